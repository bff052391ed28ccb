//! Whose retained messages there are, so that one user cannot take the room of all.

use std::collections::HashMap;
use std::sync::Arc;

/// What each user has retained. What nobody owns does not count.
#[derive(Debug)]
pub(super) struct Owners {
    held: HashMap<Arc<str>, Held>,
    max: Held,
}

/// A number of messages, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Owners {
    pub(super) fn new(max: Held) -> Self {
        Self {
            held: HashMap::new(),
            max,
        }
    }

    /// Is there room for a message of this user, in the place of one of these bytes if that is the user's, too?
    pub(super) fn has_room(
        &self,
        owner: Option<&Arc<str>>,
        bytes: usize,
        replaced: Option<(Option<&Arc<str>>, usize)>,
    ) -> bool {
        let Some(owner) = owner else { return true };
        let held = self.held.get(owner).copied().unwrap_or_default();
        let own = replaced.filter(|(of, _)| *of == Some(owner));
        let fits = held.messages < self.max.messages || own.is_some();
        fits && held.bytes + bytes - own.map_or(0, |(_, bytes)| bytes) <= self.max.bytes
    }

    pub(super) fn add(&mut self, owner: Option<&Arc<str>>, bytes: usize) {
        let Some(owner) = owner else { return };
        let held = self.held.entry(Arc::clone(owner)).or_default();
        held.messages += 1;
        held.bytes += bytes;
    }

    pub(super) fn remove(&mut self, owner: Option<&Arc<str>>, bytes: usize) {
        let Some((owner, held)) = owner.and_then(|it| Some((it, self.held.get_mut(it)?))) else {
            return;
        };
        held.messages -= 1;
        held.bytes -= bytes;
        if held.messages == 0 {
            self.held.remove(owner);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
