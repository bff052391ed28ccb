//! The options of `mix`.

use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use clap::ValueEnum;

use crate::args::parse_payload;
use crate::random::Random;
use crate::steps::StepsArgs;

/// Options of `mix`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MixArgs {
    /// How many people, each with one device
    #[arg(long, default_value = "200")]
    pub(crate) users: NonZeroU16,
    /// How many groups
    #[arg(long, default_value = "10")]
    pub(crate) groups: NonZeroU16,
    /// Members of a group, on average: from half of it to one and a half
    #[arg(long, default_value = "100")]
    pub(crate) group_size: NonZeroU16,
    /// Direct conversations that each user has begun
    #[arg(long, default_value = "3")]
    pub(crate) directs: u16,
    /// Percent of the messages that go to direct conversations
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) direct_percent: u8,
    /// Sizes of messages, and how often each comes, as bytes:weight
    #[arg(long, default_value = "100:4,1024:1")]
    pub(crate) payloads: Weights<Bytes>,
    /// Reads for each message written
    #[arg(long, default_value = "20")]
    pub(crate) reads: u32,
    /// What is read, and how often, as kind:weight of history, last, mark, changes
    #[arg(long, default_value = "history:5,last:5,mark:5,changes:5")]
    pub(crate) read_kinds: Weights<ReadKind>,
    /// Entries in a page of history
    #[arg(long, default_value = "20")]
    pub(crate) page: NonZeroU16,
    /// Messages written per second, of all together
    #[arg(long, default_value = "50")]
    pub(crate) rate: NonZeroU32,
    /// How long is measured; with --steps each step
    #[arg(long, default_value = "10")]
    pub(crate) seconds: NonZeroU32,
    /// How long the load runs before it is measured
    #[arg(long, default_value = "2")]
    pub(crate) warmup: u32,
    /// Seconds to wait for answers and deliveries after the last operation
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) drain: u32,
    /// From which everything follows that is left to chance [default: by chance, and reported]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) steps: StepsArgs,
}

/// What somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadKind {
    /// `msg.history`
    History,
    /// `chat/c/{cid}/log/last/{n}`
    Last,
    /// `chat/c/{cid}/read`
    Mark,
    /// `sync.changes`
    Changes,
}

impl ReadKind {
    pub(super) const ALL: [Self; 4] = [Self::History, Self::Last, Self::Mark, Self::Changes];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Last => "last",
            Self::Mark => "mark",
            Self::Changes => "changes",
        }
    }
}

impl FromStr for ReadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == text);
        kind.ok_or_else(|| format!("{text} is none of history, last, mark, changes"))
    }
}

/// Of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) usize);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_payload(text).map(Self)
    }
}

/// Things, and how often each comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weights<T> {
    of: Vec<(T, u32)>,
    sum: u64,
}

impl<T: Copy> Weights<T> {
    /// One of them, by chance.
    pub(super) fn pick(&self, random: &mut Random) -> Option<T> {
        let mut left = random.below(self.sum);
        self.of.iter().find_map(|(one, weight)| {
            let is_it = left < u64::from(*weight);
            left = left.saturating_sub((*weight).into());
            is_it.then_some(*one)
        })
    }
}

impl<T: FromStr<Err = String>> FromStr for Weights<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = |part: &str| {
            let part = part.trim();
            let (one, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = weight
                .parse::<u32>()
                .map_err(|_| format!("{weight} is no weight"))?;
            Ok::<_, String>((one.parse()?, weight))
        };
        let of = text.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
        let sum = of.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if sum == 0 {
            return Err("the weights are all 0".to_owned());
        }
        Ok(Self { of, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_more_weight_comes_more_often() {
        let weights: Weights<ReadKind> = "mark:3, last:0,changes".parse().unwrap();
        let mut random = Random::named(7, "weights");
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            counts[weights.pick(&mut random).unwrap() as usize] += 1;
        }
        let [history, last, mark, changes] = counts;
        assert_eq!((history, last), (0, 0));
        assert!(
            (2_900..3_100).contains(&mark) && mark + changes == 4_000,
            "{counts:?}"
        );
    }

    #[test]
    fn weights_are_checked() {
        for wrong in ["", "mark:0", "mark:x", "nothing:1", "mark,,last"] {
            assert!(wrong.parse::<Weights<ReadKind>>().is_err(), "{wrong}");
        }
        assert!("8:1".parse::<Weights<Bytes>>().is_err());
    }
}
