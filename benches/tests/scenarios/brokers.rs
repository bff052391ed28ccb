//! Brokers of their own, on free ports of 127.0.0.1, with data that goes with them.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

/// A `mqchat serve --dev`.
pub(crate) struct Mqchat {
    child: Child,
    addr: String,
    _data: TempDir,
}

impl Mqchat {
    pub(crate) fn start(options: &[(&str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        let (log, out) = std::io::pipe().unwrap();
        let mut command = Command::new(binary());
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .current_dir(data.path())
            .env("MQCHAT_ACCOUNTS__ARGON2_MEMORY_KIB", "8")
            .envs(options.iter().copied())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let child = command.spawn().expect("mqchat starts");
        drop(command); // and with it the writing end of its log
        let mut log = BufReader::new(log);
        let mut line = String::new();
        let addr = loop {
            line.clear();
            let read = log.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "mqchat ended before it listened");
            if let Some(addr) = address(&line) {
                break addr;
            }
        };
        // What it has to say later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            child,
            addr,
            _data: data,
        }
    }

    /// The options that name it.
    pub(crate) fn target(&self) -> Vec<&str> {
        vec!["--addr", &self.addr, "--server-pid", self.pid()]
    }

    fn pid(&self) -> &'static str {
        self.child.id().to_string().leak()
    }
}

impl Drop for Mqchat {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// A mosquitto that lets everybody in and keeps nothing.
pub(crate) struct Mosquitto {
    child: Child,
    addr: String,
    _folder: TempDir,
}

impl Mosquitto {
    /// Nothing where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = port.unwrap().port();
        let conf = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
        );
        let path = folder.path().join("mosquitto.conf");
        std::fs::write(&path, conf).unwrap();
        let child = Command::new("mosquitto")
            .env(
                "PATH",
                "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/bin",
            )
            .arg("-c")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("no mosquitto here: measured on mqchat alone");
            return None;
        };
        let addr = format!("127.0.0.1:{port}");
        while TcpStream::connect(&addr).is_err() {
            sleep(Duration::from_millis(20)); // nothing tells when it listens
        }
        Some(Self {
            child,
            addr,
            _folder: folder,
        })
    }

    /// The options that name it.
    pub(crate) fn target(&self) -> Vec<&str> {
        let pid = self.child.id().to_string().leak();
        vec!["--addr", &self.addr, "--server-pid", pid]
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

/// The server beside the generator, which the build of the workspace has made; else it is built.
fn binary() -> PathBuf {
    let bench = Path::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    let beside = bench.with_file_name("mqchat");
    if !beside.is_file() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "server"])
            .status();
        assert!(built.is_ok_and(|it| it.success()), "the server is built");
    }
    beside
}

/// Of the line that tells where it listens.
fn address(line: &str) -> Option<String> {
    let at = line.find("127.0.0.1:")?;
    let rest = line.get(at..)?;
    let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.' && it != ':');
    Some(rest.get(..end.unwrap_or(rest.len()))?.to_owned())
}
