//! Under which circumstances something was measured.

use std::path::Path;
use std::time::Duration;

use broker::codec::packet::{Packet, Qos};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::args::{Args, Target, Topics};
use crate::client::Client;
use crate::clock::{self, Clock, run_number};
use crate::crowd::{Role, login};
use crate::error::BenchError;
use crate::process::Process;
use crate::versus;

/// What to know beside the figures; all of it text.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) label: Option<String>,
    /// When it began, UTC.
    pub(crate) started: String,
    /// As it was called, without passwords.
    pub(crate) command: String,
    pub(crate) servers: Vec<String>,
    /// Names and values.
    pub(crate) machine: Vec<(&'static str, String)>,
}

impl Setting {
    /// As it is now: before anything is measured.
    pub(crate) fn now(args: &Args) -> Self {
        let mut servers = vec![server(&args.target)];
        servers.extend(
            versus::other(&args.target, &args.versus)
                .as_ref()
                .map(server),
        );
        Self {
            label: args.output.label.clone(),
            started: clock::utc(),
            command: command(std::env::args()),
            servers,
            machine: machine(args),
        }
    }

    /// Asks the brokers for their versions; those that do not tell have none.
    pub(crate) async fn ask_versions(&mut self, args: &Args) {
        let targets = [
            Some(args.target.clone()),
            versus::other(&args.target, &args.versus),
        ];
        for (target, server) in targets.iter().flatten().zip(&mut self.servers) {
            for topics in [Topics::Plain, Topics::Chat] {
                let asked = timeout(PATIENCE, version(&target.ready_for(topics))).await;
                if let Ok(Ok(version)) = asked {
                    server.push_str(", ");
                    server.push_str(&version);
                    break;
                }
            }
        }
    }

    pub(crate) fn json(&self) -> Json {
        let machine = self.machine.iter();
        let machine = machine.map(|(name, value)| ((*name).to_owned(), json!(value)));
        json!({
            "label": self.label,
            "started": self.started,
            "command": self.command,
            "version": VERSION,
            "servers": self.servers,
            "machine": machine.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the broker says of itself in `$SYS`, if it lets this user read it.
async fn version(target: &Target) -> Result<String, BenchError> {
    let login = login(target, Role::Publisher, 0, 0, run_number(), false);
    let mut client = Client::connect(&login, Clock::start()).await?.client;
    client.subscribe(VERSION_TOPIC, Qos::AtMostOnce).await?;
    loop {
        if let Packet::Publish(publish) = client.answer().await? {
            client.disconnect().await?;
            return Ok(String::from_utf8_lossy(&publish.payload).into_owned());
        }
    }
}

/// As Mosquitto has it.
const VERSION_TOPIC: &str = "$SYS/broker/version";
const PATIENCE: Duration = Duration::from_secs(2);

fn server(target: &Target) -> String {
    let mut text = format!("{}, MQTT {}", target.addr, target.mqtt_name());
    if let Some(name) = target.server_pid.and_then(|pid| Process::new(pid).name()) {
        text.push_str(", ");
        text.push_str(&name);
    }
    text
}

/// One line, in which no secret is.
fn command(words: impl Iterator<Item = String>) -> String {
    let mut shown = Vec::new();
    let mut is_secret = false;
    for (index, word) in words.enumerate() {
        let name = Path::new(&word).file_name().and_then(|name| name.to_str());
        shown.push(match (index, name) {
            _ if is_secret => "***".to_owned(),
            (0, Some(name)) => name.to_owned(),
            _ => match SECRETS
                .iter()
                .find(|it| word.starts_with(&format!("{it}=")))
            {
                Some(option) => format!("{option}=***"),
                None if word.is_empty() || word.contains(char::is_whitespace) => {
                    format!("'{word}'")
                }
                None => word.clone(),
            },
        });
        is_secret = !is_secret && SECRETS.contains(&&*word);
    }
    shown.join(" ")
}

const SECRETS: [&str; 2] = ["--password", "--vs-password"];

/// What Linux tells; elsewhere less.
fn machine(args: &Args) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut machine = vec![("cores", cores.to_string())];
    let mut tell = |name, value: Option<String>| machine.extend(value.map(|it| (name, it)));
    tell("cpu", field("/proc/cpuinfo", "model name"));
    tell("memory", field("/proc/meminfo", "MemTotal"));
    let line = |path| std::fs::read_to_string(path).ok();
    let kernel = line("/proc/sys/kernel/osrelease");
    tell("kernel", kernel.map(|it| it.trim().to_owned()));
    let load = line("/proc/loadavg").map(|it| it.split(' ').take(3).collect::<Vec<_>>().join(" "));
    tell("load_before", load);
    tell("generator_threads", Some(args.threads().to_string()));
    machine
}

/// The value of the first line that begins with this name.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let words = [
            "/a/mqchat-bench",
            "--password",
            "--json",
            "--vs-password=secret",
            "--label",
            "two words",
            "pairs",
        ];
        let shown = command(words.into_iter().map(str::to_owned));
        assert_eq!(
            shown,
            "mqchat-bench --password *** --vs-password=*** --label 'two words' pairs"
        );
    }
}
