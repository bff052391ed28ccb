//! The `mqchat` process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

use super::deadline::eventually;

/// How to start a server.
#[derive(Clone)]
pub(crate) struct Launch {
    data_dir: PathBuf,
    listen: SocketAddr,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// `mqchat serve` with this data directory on a free port of loopback.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With `--dev`: users are made at their first CONNECT.
    pub(crate) fn dev(self) -> Self {
        self.argument("--dev")
    }

    /// On this address.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listen = address.parse().unwrap();
        self
    }

    /// With one more argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With one more variable of the environment.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_str().unwrap().to_owned();
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> Server {
        let mut server = self.spawn();
        server.wait_until_listening();
        server
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Server {
        fs::create_dir_all(&self.data_dir).unwrap();
        let _ = fs::remove_file(self.data_dir.join("listen"));
        let log = log_path(&self.data_dir);
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mqchat"))
            .args(["serve", "--listen", &self.listen.to_string()])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Server {
            launch: self,
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            directory: None,
        }
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    launch: Launch,
    child: Child,
    address: SocketAddr,
    directory: Option<TempDir>,
}

impl Server {
    /// A server with `--dev` and an empty data directory.
    pub(crate) fn dev() -> Self {
        Self::in_new_directory(Launch::dev)
    }

    /// A server with an empty data directory, started as `set` says.
    pub(crate) fn in_new_directory(set: impl FnOnce(Launch) -> Launch) -> Self {
        let directory = TempDir::with_prefix("mqchat-story-").unwrap();
        let launch = set(Launch::new(&directory.path().join("data")));
        let mut server = launch.start();
        server.directory = Some(directory);
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data are.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.launch.data_dir
    }

    /// Everything that it has logged, earlier starts included.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(&self.launch.data_dir)).unwrap_or_default()
    }

    /// Waits until it listens.
    ///
    /// # Panics
    /// If it exits instead.
    pub(crate) fn wait_until_listening(&mut self) {
        let file = self.launch.data_dir.join("listen");
        let found = eventually("the server to listen", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            let text = fs::read_to_string(&file).ok()?;
            text.lines().next()?.parse().ok().map(Ok)
        });
        self.address =
            found.unwrap_or_else(|status| panic!("the server exited: {status}\n{}", self.log()));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// The same again after [`Server::kill`] or an exit.
    pub(crate) fn restart(&mut self) {
        self.restart_as(|launch| launch);
    }

    /// Again, but with other options.
    pub(crate) fn restart_as(&mut self, set: impl FnOnce(Launch) -> Launch) {
        self.kill();
        let directory = self.directory.take();
        *self = set(self.launch.clone()).start();
        self.directory = directory;
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} \"$0\"");
        let status = Command::new("sh")
            .args(["-c", &kill, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until it has exited by itself.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the server to exit", || self.child.try_wait().unwrap())
    }

    /// Memory that it has in use now (resident set), in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Most memory that it has had, in KiB, without the pages of its files: most of these are its own program, of which a
    /// build without optimisation has tens of megabytes, more with each crate.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
            .saturating_sub(self.status_kib("RssFile:"))
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Runs another command of `mqchat` on the same data directory.
    pub(crate) fn command(&self, arguments: &[&str], stdin: &str) -> Output {
        mqchat(&self.launch.data_dir, arguments, stdin)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines.len().saturating_sub(40);
            eprintln!("--- log of the server\n{}", lines[tail..].join("\n"));
        }
        let _ = fs::remove_file(log_path(&self.launch.data_dir));
    }
}

/// Runs a command of `mqchat` on a data directory and waits for it.
pub(crate) fn mqchat(data_dir: &Path, arguments: &[&str], stdin: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have closed it already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Beside the data directory, so that a full disk does not lose the log, and a lost disk neither.
fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}
