//! One conversation on its way to one connection: a window over the log. No I/O.
//!
//! `cursor` ≤ `sent` ≤ `head`. What lies between cursor and sent has been handed out and is not settled yet; an entry is
//! settled when every copy of it has been acknowledged. The cursor moves over settled entries only, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proto::ids::{Seq, UserId};
use proto::topics::Form;

use crate::conversations::Live;
use crate::faults;
use crate::render::Line;

/// The forms of the inbox that one entry may be delivered in.
pub(crate) const FORMS: usize = Form::ALL.len();

/// The number of a form, here, in references and at rest.
pub(crate) fn slot(form: Form) -> usize {
    match form {
        Form::In => 0,
        Form::Txt => 1,
        Form::Pb => 2,
    }
}

/// The form of a number.
pub(crate) fn form_of(number: u8) -> Option<Form> {
    let is_it = |form: &Form| slot(*form) == usize::from(number);
    Form::ALL.into_iter().find(is_it)
}

/// A window over the log of one conversation.
#[expect(
    clippy::struct_excessive_bools,
    reason = "in line, reading and waiting to read go together in several ways"
)]
pub(crate) struct Flow {
    pub(crate) live: Arc<Live>,
    cursor: Seq,
    head: Seq,
    /// How far each form has been handed out; `None`: not wanted.
    sent: [Option<Seq>; FORMS],
    /// How far all forms had been handed out when the last one was no longer wanted.
    handed: Seq,
    /// Of the entries after the cursor: those with open copies, and where acks are to be told of. Bounded by what is in
    /// flight, however many entries lie between.
    pending: BTreeMap<Seq, Pending>,
    /// Entries read ahead from the store, ascending.
    page: VecDeque<Arc<Line>>,
    pub(crate) loading: bool,
    /// Something changed that is being read: it has to be read again.
    stale: bool,
    pub(crate) queued: bool,
    /// For its turn to read ahead.
    pub(crate) waiting: bool,
    /// It is its turn to read ahead.
    pub(crate) admitted: bool,
}

#[derive(Clone, Copy, Default)]
struct Pending {
    /// As many as there are Packet Identifiers.
    copies: u16,
    acknowledged: bool,
}

/// The cursor has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advance {
    /// To here.
    pub(crate) cursor: Seq,
    /// The last entry that was acknowledged, not merely handed over, among those passed.
    pub(crate) acknowledged: Option<Seq>,
}

impl Flow {
    pub(crate) fn new(live: Arc<Live>, cursor: Seq, head: Seq) -> Self {
        Self {
            live,
            cursor,
            head,
            sent: [None; FORMS],
            handed: cursor,
            pending: BTreeMap::new(),
            page: VecDeque::new(),
            loading: false,
            stale: false,
            queued: false,
            waiting: false,
            admitted: false,
        }
    }

    pub(crate) fn cursor(&self) -> Seq {
        self.cursor
    }

    pub(crate) fn announce(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    /// Wants or no longer wants a form. A new form starts at the cursor.
    pub(crate) fn want(&mut self, form: usize, wanted: bool) {
        self.handed = self.complete_up_to();
        let cursor = self.cursor;
        if let Some(sent) = self.sent.get_mut(form) {
            *sent = wanted.then(|| sent.unwrap_or(cursor));
        }
    }

    /// A copy that an earlier connection handed out and that is still unacknowledged.
    pub(crate) fn restore(&mut self, seq: Seq) {
        self.hand_out(seq);
        for sent in self.sent.iter_mut().flatten() {
            *sent = (*sent).max(seq);
        }
        self.handed = self.handed.max(seq); // also if the subscription is gone: the exchange is not
    }

    /// The next entry to hand out.
    pub(crate) fn next(&self) -> Option<Seq> {
        let next = self.sent.iter().flatten().min()?.next();
        (next <= self.head).then_some(next)
    }

    /// Does this form still need the entry at `seq`?
    pub(crate) fn needs(&self, form: usize, seq: Seq) -> bool {
        self.sent
            .get(form)
            .copied()
            .flatten()
            .is_some_and(|sent| sent < seq)
    }

    /// One form has handed out the entry at `seq`, or has nothing to show for it.
    pub(crate) fn passed(&mut self, form: usize, seq: Seq, copy: bool) {
        if let Some(sent) = self.sent.get_mut(form) {
            *sent = sent.map(|sent| sent.max(seq));
        }
        if copy {
            self.hand_out(seq);
        }
    }

    /// A copy of the entry at `seq` is settled.
    pub(crate) fn settle(&mut self, seq: Seq, acknowledged: bool) {
        let Some(pending) = self.pending.get_mut(&seq) else {
            return;
        };
        pending.copies = pending.copies.saturating_sub(1);
        pending.acknowledged |= acknowledged;
        match *pending {
            Pending {
                copies: 0,
                acknowledged: false,
            } => {
                self.pending.remove(&seq);
            }
            Pending {
                copies: 0,
                acknowledged: true,
            } => self.forget_acks_before(seq),
            Pending { .. } => {}
        }
    }

    /// Only the last of several acks in a row is told of. What some form has still to hand out may open again.
    fn forget_acks_before(&mut self, seq: Seq) {
        if seq > self.complete_up_to() {
            return;
        }
        while let Some((before, Pending { copies: 0, .. })) = self.pending.range(..seq).next_back()
        {
            let before = *before;
            self.pending.remove(&before);
        }
    }

    /// Everything up to `seq` is settled, whatever was handed out.
    pub(crate) fn settle_up_to(&mut self, seq: Seq) {
        self.cursor = self.cursor.max(seq);
        self.pending = self.pending.split_off(&self.cursor.next());
        for sent in self.sent.iter_mut().flatten() {
            *sent = (*sent).max(seq);
        }
        self.head = self.head.max(seq);
    }

    /// If more than `window` entries have been missed, and nothing is under way: the last of those before the newest `window`.
    pub(crate) fn missed(&self, window: u64) -> Option<Seq> {
        let newest = self.head.get().checked_sub(window)?;
        let sent = self.sent.iter().flatten().max().copied();
        let is_new = sent.is_some_and(|sent| sent <= self.cursor);
        (is_new && newest > self.cursor.get()).then_some(Seq::new(newest))
    }

    /// Passes entries that are not to be seen, up to `seq`. `false`: copies before them are still open.
    pub(crate) fn skip_to(&mut self, seq: Seq) -> bool {
        let sent = self.sent.iter().flatten().max().copied();
        if sent.is_none_or(|sent| sent > self.cursor) {
            return false;
        }
        self.settle_up_to(seq);
        true
    }

    /// Moves the cursor over what is settled.
    pub(crate) fn advance(&mut self) -> Option<Advance> {
        let before = self.cursor;
        let mut end = self.complete_up_to();
        let mut acknowledged = None;
        while let Some(first) = self.pending.first_entry()
            && *first.key() <= end
        {
            if first.get().copies > 0 {
                end = first.key().previous();
                break;
            }
            acknowledged = Some(*first.key());
            first.remove();
        }
        self.cursor = before.max(end);
        (self.cursor > before).then_some(Advance {
            cursor: self.cursor,
            acknowledged,
        })
    }

    /// Nothing to hand out and nothing open.
    pub(crate) fn is_idle(&self) -> bool {
        self.cursor >= self.head && self.pending.is_empty() && !self.loading && !self.queued
    }

    /// Entries that all forms have passed are complete; a reference above is half a set of copies.
    pub(crate) fn complete_up_to(&self) -> Seq {
        self.sent
            .iter()
            .flatten()
            .min()
            .copied()
            .unwrap_or(self.handed)
    }

    /// The entry at `seq` as this user sees it, from what was read ahead or from memory; `None`: it has to be read.
    pub(crate) fn line(&mut self, seq: Seq, user: UserId) -> Option<Arc<Line>> {
        while self.page.front().is_some_and(|line| line.entry.seq < seq) {
            self.page.pop_front();
        }
        if self.page.front().is_some_and(|line| line.entry.seq == seq) {
            return self.page.front().cloned();
        }
        self.live.recent_for(user, seq)
    }

    /// The entry at `seq` was read from the store.
    pub(crate) fn is_read(&self, seq: Seq) -> bool {
        self.page.front().is_some_and(|line| line.entry.seq == seq)
    }

    /// These entries are not what they were: what was read of them is not handed out.
    pub(crate) fn changed(&mut self, seqs: &[Seq]) {
        self.stale |= self.loading;
        let is_old = |line: &Arc<Line>| {
            let entry = &line.entry;
            // An edit shows no more than the message that it edits.
            seqs.contains(&entry.seq) || entry.target.is_some_and(|target| seqs.contains(&target))
        };
        if self.page.iter().any(is_old) {
            self.drop_page();
        }
    }

    /// Entries have been read ahead.
    pub(crate) fn arrived(&mut self, lines: Vec<Arc<Line>>) {
        self.loading = false;
        if std::mem::take(&mut self.stale) {
            return;
        }
        self.page = lines.into();
    }

    /// Is a page of it in memory, coming, or allowed?
    pub(crate) fn holds_page(&self) -> bool {
        self.loading || self.admitted || !self.page.is_empty()
    }

    /// What was read ahead is not needed now.
    pub(crate) fn drop_page(&mut self) {
        self.page = VecDeque::new();
    }

    fn hand_out(&mut self, seq: Seq) {
        if seq > self.cursor && !faults::is_planted(faults::EARLY_CURSOR) {
            let pending = self.pending.entry(seq).or_default();
            pending.copies = pending.copies.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{ConversationId, ConversationKind};

    use super::*;
    use crate::conversations::Live;

    const IN: usize = 0;
    const TXT: usize = 1;

    fn flow(cursor: u64, head: u64, forms: &[usize]) -> Flow {
        let id = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        let mut flow = Flow::new(
            Arc::new(Live::new(id, Arc::default())),
            Seq::new(cursor),
            Seq::new(head),
        );
        for form in forms {
            flow.want(*form, true);
        }
        flow
    }

    fn hand_out(flow: &mut Flow, forms: &[usize]) -> u64 {
        let seq = flow.next().unwrap();
        for form in forms {
            assert!(flow.needs(*form, seq));
            flow.passed(*form, seq, true);
        }
        seq.get()
    }

    #[test]
    fn every_form_has_a_number_of_its_own() {
        for form in Form::ALL {
            let number = slot(form);
            assert!(number < FORMS);
            assert_eq!(form_of(u8::try_from(number).unwrap()), Some(form));
        }
        assert_eq!(form_of(3), None);
    }

    #[test]
    fn cursor_waits_for_every_copy_in_order() {
        let mut flow = flow(0, 3, &[IN, TXT]);
        assert_eq!(
            [1, 2],
            [
                hand_out(&mut flow, &[IN, TXT]),
                hand_out(&mut flow, &[IN, TXT])
            ]
        );
        flow.settle(Seq::new(2), true);
        flow.settle(Seq::new(2), true);
        flow.settle(Seq::new(1), true);
        assert_eq!(flow.advance(), None, "one copy of 1 is open");
        flow.settle(Seq::new(1), true);
        assert_eq!(
            flow.advance(),
            Some(Advance {
                cursor: Seq::new(2),
                acknowledged: Some(Seq::new(2))
            })
        );
        assert_eq!(flow.next(), Some(Seq::new(3)));
    }

    #[test]
    fn an_entry_without_a_copy_needs_no_ack() {
        let mut flow = flow(5, 6, &[TXT]);
        flow.passed(TXT, Seq::new(6), false);
        assert_eq!(
            flow.advance(),
            Some(Advance {
                cursor: Seq::new(6),
                acknowledged: None
            })
        );
        assert!(flow.is_idle());
    }

    #[test]
    fn a_new_form_starts_at_the_cursor() {
        let mut flow = flow(0, 2, &[IN]);
        hand_out(&mut flow, &[IN]);
        hand_out(&mut flow, &[IN]);
        flow.settle(Seq::new(1), true);
        flow.advance();
        flow.want(TXT, true);
        assert_eq!(flow.next(), Some(Seq::new(2)));
        assert!(!flow.needs(IN, Seq::new(2)));
        assert!(flow.needs(TXT, Seq::new(2)));
        flow.passed(TXT, Seq::new(2), true);
        flow.settle(Seq::new(2), true);
        assert_eq!(
            flow.advance(),
            None,
            "both copies of 2 must be acknowledged"
        );
        flow.settle(Seq::new(2), true);
        assert_eq!(flow.advance().unwrap().cursor, Seq::new(2));
    }

    #[test]
    fn acks_count_after_the_last_form_is_gone() {
        let mut flow = flow(0, 3, &[IN]);
        hand_out(&mut flow, &[IN]);
        hand_out(&mut flow, &[IN]);
        flow.want(IN, false);
        flow.want(TXT, false);
        flow.settle(Seq::new(1), true);
        flow.settle(Seq::new(2), true);
        let advance = flow.advance().unwrap();
        assert_eq!(advance.acknowledged, Some(Seq::new(2)));
        flow.want(IN, true);
        assert_eq!(flow.next(), Some(Seq::new(3)), "not 1 and 2 again");
    }

    #[test]
    fn restored_references_are_not_handed_out_again() {
        let mut flow = flow(10, 20, &[IN]);
        flow.restore(Seq::new(11));
        flow.restore(Seq::new(13));
        assert_eq!(flow.next(), Some(Seq::new(14)));
        flow.settle(Seq::new(11), true);
        assert_eq!(
            flow.advance().unwrap().cursor,
            Seq::new(12),
            "12 was acknowledged out of order before"
        );
        flow.settle(Seq::new(13), true);
        assert_eq!(flow.advance().unwrap().cursor, Seq::new(13));
    }

    #[test]
    fn a_restored_reference_does_not_bring_its_subscription_back() {
        let mut flow = flow(0, 8, &[]);
        flow.restore(Seq::new(1));
        flow.restore(Seq::new(3));
        assert_eq!(flow.next(), None, "nobody wants more");
        flow.settle(Seq::new(1), true);
        flow.settle(Seq::new(3), true);
        assert_eq!(flow.advance().unwrap().cursor, Seq::new(3));
        flow.want(IN, true);
        assert_eq!(flow.next(), Some(Seq::new(4)));
    }

    #[test]
    fn as_many_copies_of_one_entry_may_be_open_as_there_are_packet_ids() {
        let mut flow = flow(0, 1, &[IN]);
        hand_out(&mut flow, &[IN]);
        for _ in 1..u16::MAX {
            flow.want(IN, false);
            flow.want(IN, true);
            hand_out(&mut flow, &[IN]);
        }
        for _ in 1..u16::MAX {
            flow.settle(Seq::new(1), true);
            assert_eq!(flow.advance(), None);
        }
        flow.settle(Seq::new(1), true);
        assert_eq!(flow.advance().unwrap().cursor, Seq::new(1));
    }

    #[test]
    fn an_old_copy_that_stays_open_costs_no_memory_for_those_behind_it() {
        let mut flow = flow(0, 100_000, &[IN, TXT]);
        hand_out(&mut flow, &[IN, TXT]);
        flow.settle(Seq::new(1), true);
        for seq in 2..=99_999 {
            let seq = Seq::new(seq);
            // Every third one is shown and acked, every third one shown at QoS 0.
            for form in [IN, TXT] {
                flow.passed(form, seq, form == IN && !seq.get().is_multiple_of(3));
            }
            flow.settle(seq, seq.get() % 3 == 1);
            assert_eq!(flow.advance(), None);
            assert!(flow.pending.len() <= 2, "{}", flow.pending.len());
        }
        flow.settle(Seq::new(1), true);
        assert_eq!(
            flow.advance(),
            Some(Advance {
                cursor: Seq::new(99_999),
                acknowledged: Some(Seq::new(99_997))
            })
        );
    }

    #[test]
    fn what_is_not_to_be_seen_is_skipped_when_nothing_is_open() {
        let mut flow = flow(0, 900, &[IN]);
        hand_out(&mut flow, &[IN]);
        assert!(!flow.skip_to(Seq::new(800)), "1 is open");
        flow.settle(Seq::new(1), true);
        flow.advance();
        assert!(flow.skip_to(Seq::new(800)));
        assert_eq!(flow.next(), Some(Seq::new(801)));
    }

    #[test]
    fn an_explicit_cursor_skips_what_is_behind_it() {
        let mut flow = flow(0, 9, &[IN]);
        hand_out(&mut flow, &[IN]);
        flow.settle_up_to(Seq::new(7));
        assert_eq!(
            (flow.cursor(), flow.next()),
            (Seq::new(7), Some(Seq::new(8)))
        );
        flow.settle(Seq::new(1), true);
        assert_eq!(flow.advance(), None);
    }
}
