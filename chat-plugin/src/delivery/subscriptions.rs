//! What one connection has subscribed to below `chat/`. No I/O.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use broker::codec::packet::Qos;

/// Options of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<u32>,
}

/// Filters of one row of the topic map: `…/+`, and single names.
#[derive(Debug)]
pub(crate) struct Filters<K> {
    all: Option<Options>,
    only: HashMap<K, Options>,
}

/// What overlapping filters of one form come to: one copy, at the highest QoS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) identifiers: Vec<u32>,
}

impl<K> Default for Filters<K> {
    fn default() -> Self {
        Self {
            all: None,
            only: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Filters<K> {
    /// Subscribes to one name, or to all with `None`. The same filter again replaces its options.
    pub(crate) fn insert(&mut self, name: Option<K>, options: Options) {
        match name {
            None => self.all = Some(options),
            Some(name) => {
                self.only.insert(name, options);
            }
        }
    }

    /// Unsubscribes. Says whether there was such a filter.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, name: Option<&Q>) -> bool
    where
        K: Borrow<Q>,
    {
        match name {
            None => self.all.take().is_some(),
            Some(name) => self.only.remove(name).is_some(),
        }
    }

    /// Is there a filter for this name and no other?
    pub(crate) fn has_only<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.only.contains_key(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_none() && self.only.is_empty()
    }

    pub(crate) fn matched<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> Option<Matched>
    where
        K: Borrow<Q>,
    {
        let both = self.all.iter().chain(self.only.get(name));
        both.fold(None, |matched: Option<Matched>, options| {
            let mut matched = matched.unwrap_or(Matched {
                qos: options.qos,
                no_local: true,
                identifiers: Vec::new(),
            });
            matched.qos = matched.qos.max(options.qos);
            matched.no_local &= options.no_local;
            matched.identifiers.extend(options.identifier);
            Some(matched)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(qos: Qos, no_local: bool, identifier: u32) -> Options {
        Options {
            qos,
            no_local,
            identifier: Some(identifier),
        }
    }

    #[test]
    fn overlapping_filters_give_one_copy_at_the_highest_qos() {
        let mut filters = Filters::<Box<str>>::default();
        filters.insert(None, options(Qos::AtMostOnce, true, 1));
        filters.insert(Some("a".into()), options(Qos::AtLeastOnce, false, 2));
        let matched = filters.matched("a").unwrap();
        assert_eq!(
            matched,
            Matched {
                qos: Qos::AtLeastOnce,
                no_local: false,
                identifiers: vec![1, 2]
            }
        );
        assert_eq!(filters.matched("b").unwrap().qos, Qos::AtMostOnce);
        assert!(filters.remove::<str>(None));
        assert!(!filters.remove::<str>(None));
        assert_eq!(filters.matched("b"), None);
    }
}
