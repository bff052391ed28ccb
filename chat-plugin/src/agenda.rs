//! What is due when: at most one time for each key.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// Keys by their times.
pub(crate) struct Agenda<K> {
    due: BTreeSet<(Instant, K)>,
    of: HashMap<K, Instant>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            of: HashMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash> Agenda<K> {
    /// A key is due at this time, or not any more. `true`: nothing is due earlier.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) -> bool {
        let before = match at {
            Some(at) => self.of.insert(key, at),
            None => self.of.remove(&key),
        };
        if let Some(before) = before {
            self.due.remove(&(before, key));
        }
        let Some(at) = at else { return false };
        self.due.insert((at, key));
        self.due.first() == Some(&(at, key))
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what is due first, if it is by now.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, key));
        self.of.remove(&key);
        Some(key)
    }
}

/// Waits until then; without a time, for ever.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_due_once_at_its_last_time() {
        let now = crate::clock::monotonic();
        let after = |s| now + Duration::from_secs(s);
        let mut agenda = Agenda::default();
        assert!(agenda.set('a', Some(after(5))));
        assert!(!agenda.set('b', Some(after(9))));
        assert!(agenda.set('b', Some(after(1))), "earlier than all");
        assert!(!agenda.set('a', Some(after(7))));
        assert_eq!(agenda.next(), Some(after(1)));
        assert_eq!(agenda.pop_due(after(6)), Some('b'));
        assert_eq!(agenda.pop_due(after(6)), None);
        assert!(!agenda.set('a', None));
        assert_eq!((agenda.next(), agenda.pop_due(after(9))), (None, None));
    }
}
