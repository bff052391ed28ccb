//! Whose presence the app wants, and which filters the session has. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use crate::error::{Error, Refusal};

/// Who waits to hear that a user is watched.
pub(super) type Reply = oneshot::Sender<Result<(), Error>>;

/// Filters of presence.
#[derive(Default)]
pub(super) struct Watches {
    /// Those that the app wants, and who waits to hear.
    wanted: BTreeMap<String, Vec<Reply>>,
    /// Those that the session on the server has.
    held: BTreeSet<String>,
    /// Those that were asked for on this connection and are not answered.
    asked: BTreeSet<String>,
}

impl Watches {
    /// The app wants one: it is asked for, also if the session has it, so that the state of now is told.
    pub(super) fn watch(&mut self, filter: String, reply: Reply) {
        self.held.remove(&filter);
        let replies = self.wanted.entry(filter).or_default();
        replies.retain(|reply| !reply.is_closed());
        replies.push(reply);
    }

    /// The app wants one no longer.
    pub(super) fn unwatch(&mut self, filter: &str) {
        self.wanted.remove(filter);
    }

    pub(super) fn is_wanted(&self, filter: &str) -> bool {
        self.wanted.contains_key(filter)
    }

    /// A new connection: what was asked for on the one before is as good as not asked for.
    pub(super) fn connected(&mut self, resumed: bool) {
        self.asked.clear();
        if !resumed {
            self.held.clear();
        }
    }

    /// What is to be asked for now. It is asked for then.
    pub(super) fn missing(&mut self) -> Vec<String> {
        let wanted = self.wanted.keys();
        let missing =
            wanted.filter(|filter| !self.held.contains(*filter) && !self.asked.contains(*filter));
        let missing: Vec<_> = missing.cloned().collect();
        self.asked.extend(missing.iter().cloned());
        missing
    }

    /// What the session has and nobody wants. It has it no longer then.
    pub(super) fn left_over(&mut self) -> Vec<String> {
        let left_over = self
            .held
            .extract_if(.., |filter| !self.wanted.contains_key(filter));
        left_over.collect()
    }

    /// What was asked for is answered.
    pub(super) fn answered(&mut self, filters: Vec<(String, Option<Refusal>)>) {
        for (filter, refusal) in filters {
            self.asked.remove(&filter);
            let replies = match &refusal {
                Some(_) => self.wanted.remove(&filter),
                None => self.wanted.get_mut(&filter).map(std::mem::take),
            };
            if refusal.is_none() {
                self.held.insert(filter);
            }
            for reply in replies.unwrap_or_default() {
                // Whoever asked may have gone.
                let _ = reply.send(match &refusal {
                    Some(refusal) => Err(Error::Refused(refusal.clone())),
                    None => Ok(()),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> (Reply, oneshot::Receiver<Result<(), Error>>) {
        oneshot::channel()
    }

    fn granted(filters: Vec<String>) -> Vec<(String, Option<Refusal>)> {
        filters.into_iter().map(|filter| (filter, None)).collect()
    }

    #[test]
    fn what_was_not_granted_is_asked_for_again_on_the_next_connection() {
        let mut watches = Watches::default();
        watches.connected(false);
        let (bob, mut told) = reply();
        watches.watch("bob".into(), bob);
        assert_eq!(watches.missing(), ["bob"]);
        assert_eq!(watches.missing(), [""; 0], "it is under way");
        watches.connected(true);
        assert_eq!(watches.missing(), ["bob"]);
        watches.answered(granted(vec!["bob".into()]));
        assert!(told.try_recv().unwrap().is_ok());
        watches.connected(true);
        assert_eq!(watches.missing(), [""; 0], "the session has it");
        watches.connected(false);
        assert_eq!(watches.missing(), ["bob"]);
    }

    #[test]
    fn only_what_was_asked_is_answered() {
        let mut watches = Watches::default();
        let ((bob, mut of_bob), (carol, mut of_carol)) = (reply(), reply());
        watches.watch("bob".into(), bob);
        let asked = watches.missing();
        watches.watch("carol".into(), carol);
        watches.answered(granted(asked));
        assert!(of_bob.try_recv().unwrap().is_ok());
        assert!(of_carol.try_recv().is_err(), "not yet");
        assert_eq!(watches.missing(), ["carol"]);
        let refusal = Refusal::new("limit", "no more");
        watches.answered(vec![("carol".into(), Some(refusal.clone()))]);
        let refused = of_carol.try_recv().unwrap();
        assert!(matches!(refused, Err(Error::Refused(why)) if why == refusal));
        assert!(!watches.is_wanted("carol"));
    }

    #[test]
    fn what_nobody_wants_is_left_over() {
        let mut watches = Watches::default();
        let (bob, _told) = reply();
        watches.watch("bob".into(), bob);
        let asked = watches.missing();
        watches.unwatch("bob");
        watches.answered(granted(asked));
        assert_eq!(watches.left_over(), ["bob"]);
        assert_eq!(watches.left_over(), [""; 0]);
    }
}
