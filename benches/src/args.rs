//! The command line: what holds for every scenario. The options of each one stand beside it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use broker::codec::packet::{Qos, Version};
use clap::{Parser, Subcommand, ValueEnum};

use crate::check::args::{CheckArgs, WorkerArgs};
use crate::scenario::Scenario;
use crate::stamp::STAMP_BYTES;
use crate::versus::VersusArgs;

/// Load generator and no-loss checker for MQTT brokers.
#[derive(Debug, Parser)]
#[command(name = "mqchat-bench", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) versus: VersusArgs,
    /// Worker threads of the generator [default: half of the cores]
    #[arg(long, global = true, help_heading = "Report")]
    threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads
            .map_or_else(|| (cores / 2).max(1), NonZeroUsize::get)
    }
}

/// Where the result goes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct Output {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write a report to look at: one HTML file that needs nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// What the report is about, for its title
    #[arg(long, global = true, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// No progress on the terminal
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// Which broker, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct Target {
    /// Address of the broker
    #[arg(long, global = true, default_value = "127.0.0.1:1883")]
    pub(crate) addr: SocketAddr,
    /// Protocol version: 3 (3.1.1) or 5
    #[arg(long, global = true, default_value = "5", value_parser = parse_version)]
    pub(crate) mqtt: Version,
    /// One user for all connections (ordinary topics only)
    #[arg(long, global = true, conflicts_with = "user_prefix")]
    pub(crate) user: Option<String>,
    /// A user for each connection: {prefix}-p0 … for publishers, {prefix}-s0 … for all others
    #[arg(long, global = true)]
    pub(crate) user_prefix: Option<String>,
    /// Password, or device token, of all users
    #[arg(
        long,
        global = true,
        env = "MQCHAT_BENCH_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,
    /// Process of the broker: report its CPU time and memory
    #[arg(long, global = true)]
    pub(crate) server_pid: Option<u32>,
    /// How many connections are opened at once while preparing
    #[arg(long, global = true, default_value = "8")]
    pub(crate) connecting: NonZeroUsize,
}

impl Target {
    pub(crate) const fn mqtt_name(&self) -> &'static str {
        match self.mqtt {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        }
    }

    /// As these topics need it: in chat each connection is a user of its own.
    pub(crate) fn ready_for(&self, topics: Topics) -> Self {
        let mut target = self.clone();
        if topics == Topics::Chat {
            target.user = None;
            target.user_prefix.get_or_insert_with(|| "bench".to_owned());
        }
        if target.user_prefix.is_some() {
            let password = || "bench-password".to_owned();
            target.password.get_or_insert_with(password);
        }
        target
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Measure(Scenario),
    /// Whether a server keeps its promises when it is killed, stopped, cut off …: starts it, breaks it and judges
    Check(CheckArgs),
    /// A worker of check
    #[command(hide = true)]
    CheckWorker(WorkerArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topics {
    /// Ordinary MQTT topics
    Plain,
    /// Conversations of mqchat
    Chat,
}

/// In which form chat subscribers want their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines of text: chat/me/txt/+
    Txt,
    /// JSON: chat/me/in/+
    In,
    /// Protobuf: chat/me/pb/+
    Pb,
}

impl Form {
    /// The inbox of this form.
    pub(crate) const fn filter(self) -> &'static str {
        match self {
            Self::In => "chat/me/in/+",
            Self::Txt => "chat/me/txt/+",
            Self::Pb => "chat/me/pb/+",
        }
    }
}

pub(crate) fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "3" | "4" | "3.1.1" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("3 or 5".to_owned()),
    }
}

pub(crate) fn parse_qos(text: &str) -> Result<Qos, String> {
    let number = text.parse().ok();
    number
        .and_then(Qos::new)
        .ok_or_else(|| "0, 1 or 2".to_owned())
}

pub(crate) fn parse_payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (STAMP_BYTES..=1 << 24).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{STAMP_BYTES} to 16777216")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
