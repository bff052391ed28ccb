//! The options of `pairs`, `fanout`, `chat` and `group`.

use std::num::{NonZeroU16, NonZeroU32};

use broker::codec::packet::Qos;

use crate::args::{Form, Topics, parse_payload, parse_qos};
use crate::steps::StepsArgs;

/// Options of `pairs`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PairsArgs {
    /// How many pairs
    #[arg(long, default_value = "50")]
    pub(crate) pairs: NonZeroU16,
    /// Subscribers have persistent sessions
    #[arg(long)]
    pub(crate) persistent: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Options of `fanout`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FanoutArgs {
    /// How many subscribers
    #[arg(long, default_value = "100")]
    pub(crate) subscribers: NonZeroU16,
    /// Subscribers have persistent sessions
    #[arg(long)]
    pub(crate) persistent: bool,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Options of `chat`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// How many pairs
    #[arg(long, default_value = "50")]
    pub(crate) pairs: NonZeroU16,
    #[command(flatten)]
    pub(crate) inbox: InboxArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// Options of `group`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GroupArgs {
    /// How many groups
    #[arg(long, default_value = "1")]
    pub(crate) groups: NonZeroU16,
    /// Members of each group who listen; those who write are members beside them
    #[arg(long, default_value = "100")]
    pub(crate) members: NonZeroU16,
    /// How many write in each group
    #[arg(long, default_value = "1")]
    pub(crate) senders: NonZeroU16,
    #[command(flatten)]
    pub(crate) inbox: InboxArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

/// How those who listen in chat get their messages.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct InboxArgs {
    /// In which form they want them
    #[arg(long, value_enum, default_value = "in")]
    pub(crate) form: Form,
    /// They are guests (clean sessions) and no devices: nothing is kept for them
    #[arg(long)]
    pub(crate) guests: bool,
}

/// The load itself.
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
    /// How long is measured; with --steps each step
    #[arg(long, default_value = "10")]
    pub(crate) seconds: NonZeroU32,
    /// How long the load runs before it is measured
    #[arg(long, default_value = "2")]
    pub(crate) warmup: u32,
    /// Open loop: publishes per second in all; latency counts from the intended time of sending
    #[arg(long)]
    pub(crate) rate: Option<NonZeroU32>,
    /// Closed loop: publishes per second that were intended in all, for latencies corrected for those that a stall kept back
    #[arg(long, conflicts_with_all = ["rate", "steps"])]
    pub(crate) expected_rate: Option<NonZeroU32>,
    /// Seconds to wait for acks and deliveries after the last publish
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) drain: u32,
    #[command(flatten)]
    pub(crate) steps: StepsArgs,
    /// Not as the scenario has it: what --vs-topics asked for.
    #[arg(skip)]
    pub(crate) topics: Option<Topics>,
}
