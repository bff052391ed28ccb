//! What will be broken, when and whom it hits: follows from a seed. Pure.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of the server
    Kill,
    /// SIGSTOP of the server, and SIGCONT
    Stop,
    /// SIGTERM, and start
    Restart,
    /// All connections are reset
    Cut,
    /// Connections swallow what flows in one direction
    Mute,
    /// SIGKILL or SIGSTOP of a worker
    Client,
    /// SIGKILL of the server, and only what was synced is left
    Power,
    /// Every fsync fails, until the server ends
    Sync,
    /// The wall clock jumps
    Clock,
    /// The disk is full for a while
    Full,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// After so much time in which all was well.
    pub(crate) pause: Duration,
    pub(crate) blow: Blow,
}

/// A fault with all that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Kill,
    Stop(Duration),
    Restart,
    Cut,
    /// What the clients are to get, or else what they send.
    Mute {
        answers: bool,
        lasts: Duration,
    },
    KillClient(usize),
    StopClient(usize, Duration),
    Power,
    Sync,
    /// Seconds from the true time.
    Clock(i64),
    Full(Duration),
}

impl Blow {
    /// Of which kind it is.
    pub(crate) const fn fault(self) -> Fault {
        match self {
            Self::Kill => Fault::Kill,
            Self::Stop(_) => Fault::Stop,
            Self::Restart => Fault::Restart,
            Self::Cut => Fault::Cut,
            Self::Mute { .. } => Fault::Mute,
            Self::KillClient(_) | Self::StopClient(..) => Fault::Client,
            Self::Power => Fault::Power,
            Self::Sync => Fault::Sync,
            Self::Clock(_) => Fault::Clock,
            Self::Full(_) => Fault::Full,
        }
    }

    /// The server ends, or may end, without having stored what it had in memory.
    pub(crate) const fn crashes(self) -> bool {
        matches!(self, Self::Kill | Self::Power | Self::Sync | Self::Full(_))
    }

    /// A process is killed.
    pub(crate) const fn kills(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::KillClient(_) | Self::Power | Self::Sync
        )
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("SIGKILL of the server"),
            Self::Stop(lasts) => write!(f, "SIGSTOP of the server for {lasts:?}"),
            Self::Restart => f.write_str("SIGTERM of the server"),
            Self::Cut => f.write_str("all connections reset"),
            Self::Mute {
                answers: true,
                lasts,
            } => write!(f, "answers swallowed for {lasts:?}"),
            Self::Mute {
                answers: false,
                lasts,
            } => write!(f, "requests swallowed for {lasts:?}"),
            Self::KillClient(worker) => write!(f, "SIGKILL of worker {worker}"),
            Self::StopClient(worker, lasts) => {
                write!(f, "SIGSTOP of worker {worker} for {lasts:?}")
            }
            Self::Power => f.write_str("power cut"),
            Self::Sync => f.write_str("every fsync fails, then a power cut"),
            Self::Clock(ahead) => write!(f, "the clock is {ahead} s ahead"),
            Self::Full(lasts) => write!(f, "the disk is full for {lasts:?}"),
        }
    }
}

/// Steps without an end.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    random: Random,
    faults: Vec<Fault>,
    workers: u64,
}

impl Schedule {
    /// Of these faults, for so many workers.
    pub(crate) fn new(seed: u64, mut faults: Vec<Fault>, workers: usize) -> Self {
        faults.sort_unstable();
        faults.dedup();
        Self {
            random: Random::named(seed, "nemesis"),
            faults,
            workers: workers.max(1) as u64,
        }
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.between(low, high))
    }

    fn blow(&mut self, fault: Fault) -> Blow {
        match fault {
            Fault::Kill => Blow::Kill,
            Fault::Stop => Blow::Stop(self.millis(50, 1_000)),
            Fault::Restart => Blow::Restart,
            Fault::Cut => Blow::Cut,
            Fault::Mute => Blow::Mute {
                answers: self.random.below(3) > 0,
                lasts: self.millis(100, 1_500),
            },
            Fault::Client => {
                let worker = usize::try_from(self.random.below(self.workers)).unwrap_or_default();
                if self.random.below(4) == 0 {
                    Blow::StopClient(worker, self.millis(50, 1_000))
                } else {
                    Blow::KillClient(worker)
                }
            }
            Fault::Power => Blow::Power,
            Fault::Sync => Blow::Sync,
            Fault::Clock => {
                let ahead = self.random.below(1_200);
                Blow::Clock(i64::try_from(ahead).unwrap_or_default() - 600)
            }
            Fault::Full => Blow::Full(self.millis(200, 1_500)),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let pause = self.millis(50, 700);
        let fault = self.random.pick(&self.faults)?;
        let blow = self.blow(fault);
        Some(Step { pause, blow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule() {
        let all = || Fault::value_variants().to_vec();
        let steps = |seed| Schedule::new(seed, all(), 5).take(200).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        let turned = all().into_iter().rev().collect();
        assert_eq!(
            Schedule::new(7, turned, 5).take(200).collect::<Vec<_>>(),
            steps(7)
        );
    }

    #[test]
    fn every_fault_comes_and_no_other() {
        let steps: Vec<_> = Schedule::new(1, vec![Fault::Kill, Fault::Client], 3)
            .take(100)
            .collect();
        let is_allowed = |step: &Step| {
            matches!(
                step.blow,
                Blow::Kill | Blow::KillClient(0..3) | Blow::StopClient(0..3, _)
            )
        };
        assert!(steps.iter().all(is_allowed), "{steps:?}");
        assert!(steps.iter().any(|step| step.blow == Blow::Kill));
        assert!(steps.iter().any(|step| step.blow.kills()));
        assert_eq!(Schedule::new(1, Vec::new(), 3).next(), None);
    }
}
