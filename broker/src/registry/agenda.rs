//! What is to happen to kept sessions, in the order of time; and who has how many of them, so that it is known whose
//! session goes when there are too many. Each step takes time in the logarithm of their number.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::SessionKey;

/// A moment, and a number that makes it different from all others.
pub(super) type Place = (Instant, u64);

/// The deadlines of all kept sessions.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// One for each kept session.
    expiries: BTreeMap<Place, SessionKey>,
    wills: BTreeMap<Place, SessionKey>,
    /// The same expiries, of one user after the other. Never `None`: that is where a search begins.
    of_users: BTreeMap<(Arc<str>, Option<Place>), SessionKey>,
    ranks: HashMap<Arc<str>, Rank>,
    ranked: BTreeSet<(Rank, Arc<str>)>,
    next: u64,
}

/// Who has the most sessions comes last; among equals, whose session expires first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    kept: usize,
    first: Reverse<Place>,
}

/// Something that is due.
#[derive(Debug)]
pub(super) enum Deadline {
    Expiry(SessionKey),
    Will(SessionKey),
}

impl Agenda {
    pub(super) fn add_expiry(&mut self, at: Instant, key: &SessionKey) -> Place {
        let place = self.place(at);
        self.expiries.insert(place, Arc::clone(key));
        let user = &key.0;
        let entry = (Arc::clone(user), Some(place));
        self.of_users.insert(entry, Arc::clone(key));
        self.rank(user, self.kept_of(user) + 1);
        place
    }

    pub(super) fn add_will(&mut self, at: Instant, key: &SessionKey) -> Place {
        let place = self.place(at);
        self.wills.insert(place, Arc::clone(key));
        place
    }

    /// The session is not kept any more.
    pub(super) fn remove(&mut self, expiry: Place, will: Option<Place>) {
        if let Some(will) = will {
            self.wills.remove(&will);
        }
        let Some(key) = self.expiries.remove(&expiry) else {
            return;
        };
        let user = &key.0;
        self.of_users.remove(&(Arc::clone(user), Some(expiry)));
        self.rank(user, self.kept_of(user).saturating_sub(1));
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let firsts = [&self.expiries, &self.wills].map(|all| all.first_key_value());
        firsts.into_iter().flatten().map(|(place, _)| place.0).min()
    }

    /// What is due. A will is taken out by this; an expiry when its session is removed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Deadline> {
        if let Some(will) = self.wills.first_entry()
            && will.key().0 <= now
        {
            return Some(Deadline::Will(will.remove()));
        }
        let (place, key) = self.expiries.first_key_value()?;
        (place.0 <= now).then(|| Deadline::Expiry(Arc::clone(key)))
    }

    /// Number of kept sessions.
    pub(super) fn kept(&self) -> usize {
        self.expiries.len()
    }

    /// Of one user.
    pub(super) fn kept_of(&self, user: &str) -> usize {
        self.ranks.get(user).map_or(0, |rank| rank.kept)
    }

    /// The session that expires first of those of one user.
    pub(super) fn first_of(&self, user: &Arc<str>) -> Option<SessionKey> {
        self.first(user).map(|(_, key)| Arc::clone(key))
    }

    /// The session that goes when there are too many: of the user who has the most, the one that expires first.
    pub(super) fn first_of_most(&self) -> Option<SessionKey> {
        let (_, user) = self.ranked.last()?;
        self.first_of(user)
    }

    fn first(&self, user: &Arc<str>) -> Option<(Place, &SessionKey)> {
        let mut from = self.of_users.range((Arc::clone(user), None)..);
        let ((found, place), key) = from.next()?;
        place.filter(|_| found == user).map(|place| (place, key))
    }

    /// Notes how many sessions a user has now.
    fn rank(&mut self, user: &Arc<str>, kept: usize) {
        if let Some(old) = self.ranks.remove(user) {
            self.ranked.remove(&(old, Arc::clone(user)));
        }
        if let Some((first, _)) = self.first(user) {
            let first = Reverse(first);
            let rank = Rank { kept, first };
            self.ranks.insert(Arc::clone(user), rank);
            self.ranked.insert((rank, Arc::clone(user)));
        }
    }

    const fn place(&mut self, at: Instant) -> Place {
        self.next += 1;
        (at, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    fn key(user: &str, client_id: &str) -> SessionKey {
        Arc::new((user.into(), client_id.into()))
    }

    #[test]
    fn who_has_the_most_goes_first_and_among_equals_who_expires_first() {
        let mut agenda = Agenda::default();
        let now = clock::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let bob = key("bob", "1");
        let bob_place = agenda.add_expiry(at(1), &bob);
        agenda.add_expiry(at(9), &key("alice", "1"));
        assert_eq!(agenda.first_of_most(), Some(Arc::clone(&bob)));
        let second = key("alice", "2");
        let second_place = agenda.add_expiry(at(5), &second);
        assert_eq!(agenda.first_of_most(), Some(second));
        agenda.remove(second_place, None);
        assert_eq!(agenda.first_of_most(), Some(bob));
        agenda.remove(bob_place, None);
        assert_eq!((agenda.kept(), agenda.kept_of("bob")), (1, 0));
    }

    #[test]
    fn wills_and_expiries_come_in_time() {
        let mut agenda = Agenda::default();
        let now = clock::now();
        let key = key("alice", "1");
        let expiry = agenda.add_expiry(now, &key);
        agenda.add_will(now, &key);
        assert_eq!(agenda.next(), Some(now));
        assert!(matches!(agenda.take_due(now), Some(Deadline::Will(_))));
        assert!(matches!(agenda.take_due(now), Some(Deadline::Expiry(_))));
        agenda.remove(expiry, None);
        assert!(agenda.take_due(now).is_none());
        assert!(agenda.ranks.is_empty() && agenda.ranked.is_empty() && agenda.of_users.is_empty());
    }
}
