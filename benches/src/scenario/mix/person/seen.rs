//! What people have seen.

use super::{ReadKind, What};
use crate::report::Latency;

/// One of them, or all.
#[derive(Debug, Default)]
pub(in crate::scenario::mix) struct Seen {
    pub(in crate::scenario::mix) sent: u64,
    pub(in crate::scenario::mix) acked: u64,
    pub(in crate::scenario::mix) acked_measured: u64,
    /// Different messages.
    pub(in crate::scenario::mix) delivered: u64,
    pub(in crate::scenario::mix) delivered_measured: u64,
    pub(in crate::scenario::mix) reads: u64,
    pub(in crate::scenario::mix) reads_measured: u64,
    pub(in crate::scenario::mix) lost: u64,
    /// Not there, while others still came.
    pub(in crate::scenario::mix) late: u64,
    /// Senders who did not tell what was acknowledged.
    pub(in crate::scenario::mix) unjudged: u64,
    pub(in crate::scenario::mix) duplicates: u64,
    /// Came after a later one of the same sender.
    pub(in crate::scenario::mix) reordered: u64,
    /// Messages of another run.
    pub(in crate::scenario::mix) foreign: u64,
    /// Messages of this run that were for others, or that nobody has written.
    pub(in crate::scenario::mix) misdelivered: u64,
    pub(in crate::scenario::mix) refused: u64,
    pub(in crate::scenario::mix) first_refusal: Option<String>,
    pub(in crate::scenario::mix) unacked: u64,
    /// Due and not begun.
    pub(in crate::scenario::mix) unsent: u64,
    /// From when a message was due to PUBACK.
    pub(in crate::scenario::mix) ack: Latency,
    /// From when a message was due to the arrival.
    pub(in crate::scenario::mix) delivery: Latency,
    /// From when a read was due until it was answered in full, by kind.
    pub(in crate::scenario::mix) read: [Latency; 4],
    /// From when something was due until the generator looked at it.
    pub(in crate::scenario::mix) own_lag: Latency,
}

impl Seen {
    pub(in crate::scenario::mix) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.acked_measured += other.acked_measured;
        self.delivered += other.delivered;
        self.delivered_measured += other.delivered_measured;
        self.reads += other.reads;
        self.reads_measured += other.reads_measured;
        self.lost += other.lost;
        self.late += other.late;
        self.unjudged += other.unjudged;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.misdelivered += other.misdelivered;
        self.refused += other.refused;
        let first = || other.first_refusal.clone();
        self.first_refusal = self.first_refusal.take().or_else(first);
        self.unacked += other.unacked;
        self.unsent += other.unsent;
        self.ack.add(&other.ack);
        self.delivery.add(&other.delivery);
        for (sum, part) in self.read.iter_mut().zip(&other.read) {
            sum.add(part);
        }
        self.own_lag.add(&other.own_lag);
    }

    pub(super) fn refuse(&mut self, told: String) {
        self.refused += 1;
        self.first_refusal.get_or_insert(told);
    }

    /// A read was answered, if it was due in the measured time after so long.
    pub(super) fn note_read(&mut self, kind: ReadKind, took: Option<u64>, is_measured: bool) {
        self.reads += 1;
        self.reads_measured += u64::from(is_measured);
        if let (Some(took), Some(latency)) = (took, self.read.get_mut(kind as usize)) {
            latency.record(took);
        }
    }

    /// Something was not begun, and had waited so long.
    pub(super) fn kept_back(&mut self, what: What, waited: u64) {
        match what {
            What::Write(_) => self.ack.record(waited),
            What::Read(kind) => {
                if let Some(latency) = self.read.get_mut(kind as usize) {
                    latency.record(waited);
                }
            }
        }
    }
}
