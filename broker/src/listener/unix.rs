//! Unix sockets that listen: a file that is there while they do.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::warn;

use super::BACKLOG;
use crate::hooks::Peer;

/// A socket that listens; its file goes when it is dropped.
#[derive(Debug)]
pub(super) struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: a file that somebody else has put there since is not ours to remove.
    file: (u64, u64),
}

impl LocalListener {
    /// Listens on a path; `mode` says who may connect. What an earlier process left behind is replaced, a socket that
    /// somebody listens on is not.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        remove_leftover(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Nobody can connect before `listen`, so nobody sees the file with other permissions.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: identity(&fs::symlink_metadata(path)?),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let owner = stream
            .peer_cred()
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        let peer = Peer::Local {
            user: owner.uid(),
            process: owner.pid(),
        };
        Ok((stream, peer))
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.file);
        if !ours {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "the socket could not be removed");
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        let listener = LocalListener::bind(&path, 0o620).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o620);
        let error = LocalListener::bind(&path, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_leftover_is_replaced_and_no_other_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = LocalListener::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(listener);
        assert!(LocalListener::bind(&path, 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
