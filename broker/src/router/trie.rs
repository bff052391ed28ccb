//! Topic filters as a trie: which subscriptions match a topic name (MQTT 5.0 §4.7).
//!
//! It knows filters and the numbers of subscribers, nothing of clients. Nodes live in one vector and levels are numbered,
//! so that an edge is a pair of integers: no recursion, however many levels a filter has, and some 100 bytes per level
//! that filters do not share.

use std::collections::HashMap;
use std::sync::Arc;

/// Subscriptions with a value each, found by topic name.
#[derive(Debug)]
pub(crate) struct Trie<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    levels: HashMap<Arc<str>, Level>,
    level_names: Vec<Option<Arc<str>>>,
    free_levels: Vec<u32>,
    edges: HashMap<(u32, u32), u32>,
}

#[derive(Debug)]
struct Node<V> {
    parent: u32,
    /// The level that leads here from the parent; `PLUS` for the single-level wildcard.
    level: u32,
    /// The child for `+`, or `NONE`.
    plus: u32,
    /// Literal children.
    children: u32,
    /// Subscribers of the filter that ends here.
    here: Vec<(u64, V)>,
    /// Subscribers of the filter that goes on with `/#` from here.
    below: Vec<(u64, V)>,
}

#[derive(Debug)]
struct Level {
    number: u32,
    uses: u32,
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
const PLUS: u32 = u32::MAX;

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::new(NONE, NONE)],
            free: Vec::new(),
            levels: HashMap::new(),
            level_names: Vec::new(),
            free_levels: Vec::new(),
            edges: HashMap::new(),
        }
    }
}

impl<V> Node<V> {
    const fn new(parent: u32, level: u32) -> Self {
        Self {
            parent,
            level,
            plus: NONE,
            children: 0,
            here: Vec::new(),
            below: Vec::new(),
        }
    }

    const fn is_unused(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.plus == NONE && self.children == 0
    }
}

impl<V> Trie<V> {
    /// Adds a subscription to a valid filter; returns the value that it replaces.
    pub(crate) fn insert(&mut self, filter: &str, subscriber: u64, value: V) -> Option<V> {
        let (path, multi) = split_multi(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            at = self.child_or_new(at, level);
        }
        let list = self.list(at, multi)?;
        if let Some((_, old)) = list.iter_mut().find(|(id, _)| *id == subscriber) {
            return Some(std::mem::replace(old, value));
        }
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.push((subscriber, value));
        None
    }

    /// Removes a subscription; returns its value.
    pub(crate) fn remove(&mut self, filter: &str, subscriber: u64) -> Option<V> {
        let (path, multi) = split_multi(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            at = self.child(at, level)?;
        }
        let list = self.list(at, multi)?;
        let place = list.iter().position(|(id, _)| *id == subscriber)?;
        let (_, value) = list.swap_remove(place);
        if list.is_empty() {
            *list = Vec::new();
        }
        self.prune(at);
        Some(value)
    }

    /// Calls `visit` for each subscription that matches a topic name. A subscriber comes once per filter of it.
    pub(crate) fn matches<'a>(&'a self, topic: &str, mut visit: impl FnMut(u64, &'a V)) {
        let mut visit_all = |list: &'a [(u64, V)]| {
            for (subscriber, value) in list {
                visit(*subscriber, value);
            }
        };
        // A wildcard at the first level does not match a name that begins with $ [MQTT-4.7.2-1].
        let dollar = topic.starts_with('$');
        let mut open: Vec<(u32, Option<&str>)> = vec![(ROOT, Some(topic))];
        while let Some((at, rest)) = open.pop() {
            let Some(node) = self.node(at) else { continue };
            let wildcards = !(dollar && at == ROOT);
            if wildcards {
                visit_all(&node.below);
            }
            let Some(rest) = rest else {
                visit_all(&node.here);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if wildcards && node.plus != NONE {
                open.push((node.plus, rest));
            }
            if node.children > 0
                && let Some(child) = self.literal_child(at, level)
            {
                open.push((child, rest));
            }
        }
    }

    /// Number of nodes in use, the root included.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    fn node(&self, at: u32) -> Option<&Node<V>> {
        self.nodes.get(index(at))
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node<V>> {
        self.nodes.get_mut(index(at))
    }

    fn list(&mut self, at: u32, multi: bool) -> Option<&mut Vec<(u64, V)>> {
        let node = self.node_mut(at)?;
        Some(if multi {
            &mut node.below
        } else {
            &mut node.here
        })
    }

    fn child(&self, at: u32, level: &str) -> Option<u32> {
        if level == "+" {
            return self.node(at).map(|node| node.plus).filter(|at| *at != NONE);
        }
        self.literal_child(at, level)
    }

    fn literal_child(&self, at: u32, level: &str) -> Option<u32> {
        let number = self.levels.get(level)?.number;
        self.edges.get(&(at, number)).copied()
    }

    fn child_or_new(&mut self, at: u32, level: &str) -> u32 {
        if let Some(child) = self.child(at, level) {
            return child;
        }
        let number = if level == "+" {
            PLUS
        } else {
            self.use_level(level)
        };
        let child = self.new_node(Node::new(at, number));
        if number != PLUS {
            self.edges.insert((at, number), child);
        }
        if let Some(node) = self.node_mut(at) {
            if number == PLUS {
                node.plus = child;
            } else {
                node.children += 1;
            }
        }
        child
    }

    fn new_node(&mut self, node: Node<V>) -> u32 {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.node_mut(at)
        {
            *place = node;
            return at;
        }
        self.nodes.push(node);
        number(self.nodes.len() - 1)
    }

    /// Frees a node that nothing needs any more, and then its parents.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT
            && let Some(node) = self.node(at)
            && node.is_unused()
        {
            let (parent, level) = (node.parent, node.level);
            if level != PLUS {
                self.edges.remove(&(parent, level));
                self.release_level(level);
            }
            if let Some(node) = self.node_mut(parent) {
                if level == PLUS {
                    node.plus = NONE;
                } else {
                    node.children -= 1;
                }
            }
            self.free.push(at);
            at = parent;
        }
    }

    fn use_level(&mut self, name: &str) -> u32 {
        if let Some(level) = self.levels.get_mut(name) {
            level.uses += 1;
            return level.number;
        }
        let number = self.free_levels.pop().unwrap_or_else(|| {
            self.level_names.push(None);
            number(self.level_names.len() - 1)
        });
        let name: Arc<str> = name.into();
        if let Some(place) = self.level_names.get_mut(index(number)) {
            *place = Some(Arc::clone(&name));
        }
        self.levels.insert(name, Level { number, uses: 1 });
        number
    }

    fn release_level(&mut self, number: u32) {
        let Some(place) = self.level_names.get_mut(index(number)) else {
            return;
        };
        let Some(name) = place else { return };
        let Some(level) = self.levels.get_mut(name) else {
            return;
        };
        level.uses -= 1;
        if level.uses == 0 {
            self.levels.remove(name);
            *place = None;
            self.free_levels.push(number);
        }
    }
}

/// The filter without its `#`, and whether it had one. `None` is the filter `#` alone.
fn split_multi(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path), true),
        None => (Some(filter), false),
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("memory ends before four thousand million filter levels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(trie: &Trie<()>, topic: &str) -> Vec<u64> {
        let mut found = Vec::new();
        trie.matches(topic, |id, ()| found.push(id));
        found.sort_unstable();
        found
    }

    /// §4.7 word for word.
    fn naive(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let filter: Vec<&str> = filter.split('/').collect();
        let topic: Vec<&str> = topic.split('/').collect();
        for (place, level) in filter.iter().enumerate() {
            match *level {
                "#" => return true,
                level => match topic.get(place) {
                    Some(name) if level == "+" || level == *name => {}
                    _ => return false,
                },
            }
        }
        filter.len() == topic.len()
    }

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "b", "é", "$x"]).prop_map(str::to_owned)
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, multi)| {
            if multi || levels.is_empty() {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_matcher_finds(
            changes in prop::collection::vec((filter(), 0..4_u64, prop::bool::weighted(0.7)), 0..30),
            topics in prop::collection::vec(topic(), 1..10),
        ) {
            let mut trie = Trie::default();
            let mut model: Vec<(String, u64)> = Vec::new();
            for (filter, id, add) in changes {
                let known = model.iter().position(|(f, i)| (f, *i) == (&filter, id));
                if add {
                    let replaced = trie.insert(&filter, id, ()).is_some();
                    prop_assert_eq!(replaced, known.is_some());
                    if !replaced {
                        model.push((filter, id));
                    }
                } else {
                    prop_assert_eq!(trie.remove(&filter, id).is_some(), known.is_some());
                    if let Some(known) = known {
                        model.swap_remove(known);
                    }
                }
            }
            for topic in &topics {
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|(filter, _)| naive(filter, topic))
                    .map(|(_, id)| *id)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&trie, topic), expected, "topic {}", topic);
            }
            for (filter, id) in model {
                prop_assert!(trie.remove(&filter, id).is_some());
            }
            prop_assert_eq!(trie.len(), 1);
            prop_assert!(trie.edges.is_empty() && trie.levels.is_empty());
        }
    }

    #[test]
    fn multi_level_wildcard_matches_its_parent() {
        let mut trie = Trie::default();
        trie.insert("sport/#", 1, ());
        assert_eq!(found(&trie, "sport"), [1]);
        assert_eq!(found(&trie, "sport/tennis"), [1]);
        assert_eq!(found(&trie, "sports"), [0; 0]);
    }

    #[test]
    fn wildcard_at_the_root_does_not_match_dollar_topics() {
        let mut trie = Trie::default();
        for (id, filter) in ["#", "+/a", "$SYS/#", "$SYS/+"].into_iter().enumerate() {
            trie.insert(filter, id as u64, ());
        }
        assert_eq!(found(&trie, "$SYS/a"), [2, 3]);
    }

    #[test]
    fn tens_of_thousands_of_levels_are_no_problem() {
        let mut trie = Trie::default();
        let filter = "/".repeat(65_535);
        trie.insert(&filter, 1, ());
        assert_eq!(found(&trie, &filter), [1]);
        trie.remove(&filter, 1);
        assert_eq!(trie.len(), 1);
    }
}
