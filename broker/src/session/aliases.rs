//! Topic Aliases towards the client (MQTT 5.0 §3.3.2.3.4): topics that it knows by a number on this connection.
//!
//! A topic gets its alias with the first message. When all are taken, the one that was not used for the longest time is
//! given to the new topic.

/// The aliases that the client knows; the place in the list is the number.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    max: usize,
    known: Vec<Known>,
    /// Number of the last use.
    uses: u64,
}

#[derive(Debug)]
struct Known {
    topic: String,
    used: u64,
}

/// How a topic is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) number: u16,
    /// The client knows what it stands for: the topic itself is left out.
    pub(crate) established: bool,
}

impl Aliases {
    /// At most so many, from 1.
    pub(super) fn new(max: u16) -> Self {
        Self {
            max: max.into(),
            ..Self::default()
        }
    }

    /// The alias for a message that is about to be sent, if it gets one.
    pub(super) fn assign(&mut self, topic: &str) -> Option<Alias> {
        if self.max == 0 || topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        self.uses += 1;
        let place = self.known.iter().position(|known| known.topic == topic);
        if let Some(known) = place.and_then(|place| self.known.get_mut(place)) {
            known.used = self.uses;
            return alias(place?, true);
        }
        if self.known.len() < self.max {
            self.known.push(Known {
                topic: topic.to_owned(),
                used: self.uses,
            });
            return alias(self.known.len() - 1, false);
        }
        let by_use = self.known.iter_mut().enumerate();
        let (place, oldest) = by_use.min_by_key(|(_, known)| known.used)?;
        oldest.topic.clear();
        oldest.topic.push_str(topic);
        oldest.used = self.uses;
        alias(place, false)
    }
}

fn alias(place: usize, established: bool) -> Option<Alias> {
    let number = u16::try_from(place + 1).ok()?;
    Some(Alias {
        number,
        established,
    })
}

/// Longer topics are written out: what a connection remembers is bounded.
const TOPIC_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(aliases: &mut Aliases, topic: &str) -> Option<(u16, bool)> {
        let alias = aliases.assign(topic)?;
        Some((alias.number, alias.established))
    }

    #[test]
    fn the_first_message_sets_the_alias_and_the_next_ones_use_it() {
        let mut aliases = Aliases::new(2);
        assert_eq!(assigned(&mut aliases, "a"), Some((1, false)));
        assert_eq!(assigned(&mut aliases, "b"), Some((2, false)));
        assert_eq!(assigned(&mut aliases, "a"), Some((1, true)));
        assert_eq!(assigned(&mut aliases, "b"), Some((2, true)));
    }

    #[test]
    fn a_new_topic_takes_the_alias_that_was_not_used_for_the_longest_time() {
        let mut aliases = Aliases::new(2);
        for topic in ["a", "b", "a"] {
            aliases.assign(topic);
        }
        assert_eq!(assigned(&mut aliases, "c"), Some((2, false)));
        assert_eq!(assigned(&mut aliases, "a"), Some((1, true)));
        assert_eq!(assigned(&mut aliases, "b"), Some((2, false)));
    }

    #[test]
    fn a_client_that_wants_none_gets_none_and_long_topics_have_none() {
        assert_eq!(Aliases::new(0).assign("a"), None);
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        assert_eq!(Aliases::new(1).assign(&long), None);
    }
}
