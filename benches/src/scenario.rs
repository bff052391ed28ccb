//! What can be measured: each scenario prepares, puts its load on the server, and reports.

mod channel;
mod conns;
mod mix;
mod offline;
mod pacer;
mod receipts;
mod reconnect_storm;
mod schedule;
mod streams;

use clap::Subcommand;

use crate::args::{Target, Topics};
use crate::clock::{Clock, run_number};
use crate::error::BenchError;
use crate::process::Process;
use crate::progress::Progress;
use crate::report::Report;
use crate::steps::StepsArgs;
use streams::{ChatArgs, FanoutArgs, GroupArgs, PairsArgs};

/// Which one, and its options.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Scenario {
    /// N publishers, each with one subscriber of its own, on ordinary topics
    Pairs(PairsArgs),
    /// One publisher, N subscribers, on an ordinary topic
    Fanout(FanoutArgs),
    /// Direct messages, each durable before its ack: N who write, each to one of their own (mqchat only)
    Chat(ChatArgs),
    /// Groups of 100 in which some write, each message durable before its ack (mqchat only)
    Group(GroupArgs),
    /// What a connection costs: time to CONNACK, connections per second, and memory while it is idle
    Conns(conns::ConnsArgs),
    /// Messages for sessions whose clients are away, and how fast these get them when they come back
    Offline(offline::OfflineArgs),
    /// How long it takes until everybody is back when all connections were cut at once
    ReconnectStorm(reconnect_storm::StormArgs),
    /// What comes of it when all members of a large group read one message (mqchat only)
    Receipts(receipts::ReceiptsArgs),
    /// What it costs to publish in a channel with very many readers (mqchat only)
    Channel(channel::ChannelArgs),
    /// What people do: groups and direct conversations, short and long messages, and 20 reads for each write (mqchat only)
    Mix(mix::MixArgs),
}

impl Scenario {
    pub(crate) async fn run(&self, bench: Bench) -> Result<Report, BenchError> {
        match self {
            Self::Pairs(args) => streams::pairs(bench, args).await,
            Self::Fanout(args) => streams::fanout(bench, args).await,
            Self::Chat(args) => streams::chat(bench, args).await,
            Self::Group(args) => streams::group(bench, args).await,
            Self::Conns(args) => conns::run(bench, args).await,
            Self::Offline(args) => offline::run(bench, args).await,
            Self::ReconnectStorm(args) => reconnect_storm::run(bench, args).await,
            Self::Receipts(args) => receipts::run(bench, args).await,
            Self::Channel(args) => channel::run(bench, args).await,
            Self::Mix(args) => mix::run(bench, args).await,
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Pairs(_) => "pairs",
            Self::Fanout(_) => "fanout",
            Self::Chat(_) => "chat",
            Self::Group(_) => "group",
            Self::Conns(_) => "conns",
            Self::Offline(_) => "offline",
            Self::ReconnectStorm(_) => "reconnect-storm",
            Self::Receipts(_) => "receipts",
            Self::Channel(_) => "channel",
            Self::Mix(_) => "mix",
        }
    }

    /// Rates to be tried one after the other.
    pub(crate) const fn steps(&self) -> Option<&StepsArgs> {
        match self {
            Self::Pairs(PairsArgs { load, .. })
            | Self::Fanout(FanoutArgs { load, .. })
            | Self::Chat(ChatArgs { load, .. })
            | Self::Group(GroupArgs { load, .. }) => Some(&load.steps),
            Self::Mix(mix) => Some(&mix.steps),
            _ => None,
        }
    }

    /// The same, with this seed if it has none: all runs that are compared have one plan.
    pub(crate) fn with_seed(&self, seed: u64) -> Self {
        let mut scenario = self.clone();
        if let Self::Mix(mix) = &mut scenario {
            mix.seed.get_or_insert(seed);
        }
        scenario
    }

    /// The same at this rate.
    pub(crate) fn at_rate(&self, rate: std::num::NonZeroU32) -> Self {
        let mut scenario = self.clone();
        match &mut scenario {
            Self::Pairs(PairsArgs { load, .. })
            | Self::Fanout(FanoutArgs { load, .. })
            | Self::Chat(ChatArgs { load, .. })
            | Self::Group(GroupArgs { load, .. }) => load.rate = Some(rate),
            Self::Mix(mix) => mix.rate = rate,
            _ => {}
        }
        scenario
    }

    /// The same on topics of this kind.
    ///
    /// # Errors
    /// If there is no such thing.
    pub(crate) fn on(&self, topics: Topics) -> Result<Self, BenchError> {
        let mut scenario = self.clone();
        match &mut scenario {
            Self::Pairs(PairsArgs { load, .. })
            | Self::Fanout(FanoutArgs { load, .. })
            | Self::Chat(ChatArgs { load, .. })
            | Self::Group(GroupArgs { load, .. }) => load.topics = Some(topics),
            Self::Offline(offline) => offline.topics = topics,
            Self::Conns(_) | Self::ReconnectStorm(_) if topics == Topics::Plain => {}
            Self::Receipts(_) | Self::Channel(_) | Self::Mix(_) if topics == Topics::Chat => {}
            other => {
                return Err(BenchError::Options(format!(
                    "{} has no form on {} topics",
                    other.name(),
                    if topics == Topics::Chat {
                        "chat"
                    } else {
                        "plain"
                    }
                )));
            }
        }
        Ok(scenario)
    }
}

/// What every scenario is given.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) target: Target,
    pub(crate) clock: Clock,
    /// Of this run, so that what earlier ones left is recognised.
    pub(crate) run: u32,
    pub(crate) server: Option<Process>,
    pub(crate) progress: Progress,
}

impl Bench {
    pub(crate) fn new(target: &Target, progress: &Progress) -> Self {
        Self {
            target: target.clone(),
            clock: Clock::start(),
            run: run_number(),
            server: target.server_pid.map(Process::new),
            progress: progress.clone(),
        }
    }

    /// As these topics need it.
    fn on(mut self, topics: Topics) -> Self {
        self.target = self.target.ready_for(topics);
        self
    }
}
