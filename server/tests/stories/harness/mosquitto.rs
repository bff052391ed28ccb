//! The unmodified tools of mosquitto.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use broker::codec::packet::Version;

use super::deadline::PATIENCE;

/// A running `mosquitto_sub`; killed when dropped.
pub(crate) struct Sub {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Sub {
    /// Starts it as `user` with more arguments.
    pub(crate) fn start(
        address: SocketAddr,
        version: Version,
        user: &str,
        arguments: &[&str],
    ) -> Self {
        let mut child = tool("mosquitto_sub", address, version, user)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub (Debian package mosquitto-clients)");
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::sync_channel(200_000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) fn next_line(&self) -> String {
        self.lines
            .recv_timeout(PATIENCE)
            .expect("mosquitto_sub printed nothing more")
    }

    /// The next `count` lines.
    pub(crate) fn next_lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next_line()).collect()
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// If it had printed lines that nobody asked for.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let rest: Vec<_> = self.lines.iter().collect();
        assert!(
            rest.is_empty(),
            "{} lines too many: {:?}",
            rest.len(),
            rest[0]
        );
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes one message at QoS 1.
pub(crate) fn publish(
    address: SocketAddr,
    version: Version,
    user: &str,
    arguments: &[&str],
) -> Output {
    let output = tool("mosquitto_pub", address, version, user)
        .args(["-q", "1"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("mosquitto_pub (Debian package mosquitto-clients)");
    assert!(output.status.success(), "{output:?}");
    output
}

/// Publishes one message at QoS 1, which may be refused. Returns what the tool said.
pub(crate) fn attempt_publish(
    address: SocketAddr,
    version: Version,
    user: &str,
    arguments: &[&str],
) -> String {
    let mut command = tool("mosquitto_pub", address, version, user);
    said(command.args(["-q", "1"]).args(arguments))
}

/// Subscribes until the tool ends by itself: because it is refused, or as the arguments say. Returns what it said.
pub(crate) fn attempt_subscribe(
    address: SocketAddr,
    version: Version,
    user: &str,
    arguments: &[&str],
) -> String {
    said(tool("mosquitto_sub", address, version, user).args(arguments))
}

/// Calls and waits for the reply, for the time of patience at most. Returns what the tool said.
pub(crate) fn attempt_request(
    address: SocketAddr,
    version: Version,
    user: &str,
    arguments: &[&str],
) -> String {
    let patience = PATIENCE.as_secs().to_string();
    let mut command = tool("mosquitto_rr", address, version, user);
    said(command.args(["-W", &patience]).args(arguments))
}

fn said(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the tools of mosquitto (Debian package mosquitto-clients)");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Publishes each line at QoS 1 in one connection.
pub(crate) fn publish_lines(
    address: SocketAddr,
    version: Version,
    user: &str,
    topic: &str,
    lines: impl Iterator<Item = String>,
) {
    let mut child = tool("mosquitto_pub", address, version, user)
        .args(["-q", "1", "-l", "-t", topic])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub (Debian package mosquitto-clients)");
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn tool(name: &str, address: SocketAddr, version: Version, user: &str) -> Command {
    let mut command = Command::new(name);
    command
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-u", user, "-P", &format!("{user}-secret")])
        .args([
            "-V",
            match version {
                Version::V311 => "mqttv311",
                Version::V5 => "mqttv5",
            },
        ]);
    command
}
