//! The command line.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

use broker::codec::packet::{Qos, Version};
use clap::{Parser, Subcommand, ValueEnum};

use crate::check::args::{CheckArgs, WorkerArgs};
use crate::stamp::STAMP_BYTES;

/// Load generator and no-loss checker for MQTT brokers.
#[derive(Debug, Parser)]
#[command(name = "mqchat-bench", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Worker threads of the generator [default: half of the cores]
    #[arg(long, global = true)]
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

/// Which broker, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// Address of the broker
    #[arg(long, global = true, default_value = "127.0.0.1:1883")]
    pub(crate) addr: SocketAddr,
    /// Protocol version: 3 (3.1.1) or 5
    #[arg(long, global = true, default_value = "5", value_parser = parse_version)]
    pub(crate) mqtt: Version,
    /// One user for all connections
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// N publishers, each with one subscriber of its own
    Pairs(PairsArgs),
    /// One publisher, N subscribers
    Fanout(FanoutArgs),
    /// How long CONNACK takes, and how many connections a second are accepted
    Connects(ConnectsArgs),
    /// What an idle connection costs in memory
    Idle(IdleArgs),
    /// Messages for sessions whose clients are away, and how fast these get them when they come back
    Offline(OfflineArgs),
    /// How long it takes until everybody is back when all connections were cut at once
    Storm(StormArgs),
    /// What comes of it when all members of a large group read one message (mqchat only)
    Receipts(ReceiptsArgs),
    /// What it costs to publish in a channel with very many readers (mqchat only)
    Channel(ChannelArgs),
    /// Whether a server keeps its promises when it is killed, stopped, cut off …: starts it, breaks it and judges
    Check(CheckArgs),
    /// A worker of check
    #[command(hide = true)]
    CheckWorker(WorkerArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PairsArgs {
    /// How many pairs
    #[arg(long, default_value = "50")]
    pub(crate) pairs: NonZeroU16,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FanoutArgs {
    /// How many subscribers
    #[arg(long, default_value = "100")]
    pub(crate) subscribers: NonZeroU16,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// QoS of publishes and subscriptions (chat delivers at 1 at most)
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: Qos,
    /// Payload in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
    /// Unacknowledged publishes per publisher; at QoS 0 undelivered ones
    #[arg(long, default_value = "20")]
    pub(crate) window: NonZeroU16,
    /// How long is measured
    #[arg(long, default_value = "10")]
    pub(crate) seconds: NonZeroU32,
    /// How long the load runs before it is measured
    #[arg(long, default_value = "2")]
    pub(crate) warmup: u32,
    /// Open loop: publishes per second in all; latency counts from the intended time of sending
    #[arg(long)]
    pub(crate) rate: Option<NonZeroU32>,
    /// Where to publish
    #[arg(long, value_enum, default_value = "plain")]
    pub(crate) topics: Topics,
    /// In which form chat subscribers want their messages
    #[arg(long, value_enum, default_value = "in")]
    pub(crate) form: Form,
    /// Subscribers have persistent sessions (in chat: they are devices, not guests)
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Seconds to wait for acks and deliveries after the last publish
    #[arg(long, default_value = "10")]
    pub(crate) drain: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topics {
    /// Ordinary MQTT topics
    Plain,
    /// Direct messages (pairs) or a group (fanout) of mqchat
    Chat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Lines of text: chat/me/txt/+
    Txt,
    /// JSON: chat/me/in/+
    In,
    /// Protobuf: chat/me/pb/+
    Pb,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConnectsArgs {
    /// How many connections in all
    #[arg(long, default_value = "1000")]
    pub(crate) connections: NonZeroU32,
    /// How many at once
    #[arg(long, default_value = "20")]
    pub(crate) concurrency: NonZeroU16,
    /// How many different users, with --user-prefix
    #[arg(long, default_value = "1")]
    pub(crate) users: NonZeroU32,
    /// Let each user connect once before: first logins (password hashing, new users) are not measured
    #[arg(long)]
    pub(crate) prime: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IdleArgs {
    /// How many connections
    #[arg(long, default_value = "1000")]
    pub(crate) connections: NonZeroU32,
    /// How many different users, with --user-prefix
    #[arg(long, default_value = "1")]
    pub(crate) users: NonZeroU32,
    /// A filter that each connection subscribes to
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// Seconds of quiet before memory is read
    #[arg(long, default_value = "3")]
    pub(crate) settle: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StormArgs {
    /// How many sessions
    #[arg(long, default_value = "1000")]
    pub(crate) sessions: NonZeroU32,
    /// How many different users, with --user-prefix
    #[arg(long, default_value = "1")]
    pub(crate) users: NonZeroU32,
    /// How many come back at once; each that is back makes room for the next
    #[arg(long, default_value = "1000")]
    pub(crate) at_once: NonZeroUsize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReceiptsArgs {
    /// How many members read
    #[arg(long, default_value = "5000")]
    pub(crate) members: NonZeroU32,
    /// Seconds over which the reads are spread
    #[arg(long, default_value = "5")]
    pub(crate) within: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChannelArgs {
    /// How many readers the channel has
    #[arg(long, default_value = "100000")]
    pub(crate) readers: NonZeroU32,
    /// How many of them are connected and listen
    #[arg(long, default_value = "2000")]
    pub(crate) connected: NonZeroU32,
    /// How many messages are published, one after the other
    #[arg(long, default_value = "100")]
    pub(crate) messages: NonZeroU32,
    /// QoS of the subscriptions
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: Qos,
    /// Payload in bytes
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OfflineArgs {
    /// How many sessions
    #[arg(long, default_value = "100")]
    pub(crate) sessions: NonZeroU16,
    /// How many messages for each
    #[arg(long, default_value = "1000")]
    pub(crate) messages: NonZeroU32,
    /// QoS of the subscriptions (publishes are at 1)
    #[arg(long, default_value = "1", value_parser = parse_qos)]
    pub(crate) qos: Qos,
    /// Payload in bytes, at least 40
    #[arg(long, default_value = "100", value_parser = parse_payload)]
    pub(crate) payload: usize,
    /// Unacknowledged publishes per publisher
    #[arg(long, default_value = "100")]
    pub(crate) window: NonZeroU16,
    /// Where to publish
    #[arg(long, value_enum, default_value = "plain")]
    pub(crate) topics: Topics,
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "3" | "4" | "3.1.1" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("3 or 5".to_owned()),
    }
}

fn parse_qos(text: &str) -> Result<Qos, String> {
    let number = text.parse().ok();
    number
        .and_then(Qos::new)
        .ok_or_else(|| "0, 1 or 2".to_owned())
}

fn parse_payload(text: &str) -> Result<usize, String> {
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
