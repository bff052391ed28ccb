//! A name for the admin socket that fits into a socket address, whatever the directory's own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// What a Unix socket address has room for, without the zero at its end: unix(7).
const ADDRESS_BYTES_MAX: usize = 107;

/// Calls with a path of at most so many bytes that leads to the same file as `socket`: if that is too long, through a
/// descriptor of its directory.
pub(super) fn with_short<T>(
    socket: &Path,
    call: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return call(socket);
    };
    if socket.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return call(socket);
    }
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    call(&short.join(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_directory_with_a_long_name_has_a_socket() {
        let home = tempfile::tempdir().unwrap();
        for bytes in [1, 60, 107, 250] {
            let directory = home.path().join("d".repeat(bytes));
            std::fs::create_dir(&directory).unwrap();
            let socket = directory.join("admin.sock");
            let listener = with_short(&socket, |path| UnixListener::bind(path)).unwrap();
            assert!(socket.exists());
            with_short(&socket, |path| UnixStream::connect(path)).unwrap();
            drop(listener);
            let refused = with_short(&socket, |path| UnixStream::connect(path)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
