//! Entries as one user sees them, beyond what his membership shows.

use std::collections::HashMap;

use proto::ids::{Seq, UserId};

use super::{Delivery, page};
use crate::conversations::Live;
use crate::domain::entry::Entry;
use crate::domain::overlay::{GoneReason, HiddenBy, Overlay, Pin};
use crate::store::{PageRange, StoreError};

impl Delivery {
    /// These entries as one user sees them: what is hidden from that user is gone, with its edits; so are edits of what the
    /// user may not see. Of somebody whom he has blocked he sees neither edits nor reactions.
    pub(crate) async fn as_seen(
        &self,
        user: UserId,
        live: &Live,
        mut entries: Vec<Entry>,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut seqs: Vec<Seq> = entries.iter().flat_map(shown).collect();
        seqs.extend(entries.iter().flat_map(edits));
        let seqs = live.may_be_hidden(user, seqs);
        let mut hidden = HashMap::new();
        if !seqs.is_empty() {
            let found = self.store.hidden(live.id(), user, seqs).await?;
            hidden.extend(found);
        }
        let why = |seq: Seq| hidden.get(&seq).copied();
        for entry in &mut entries {
            let by = shown(entry).find_map(why);
            if by.is_some_and(|by| hides(by, entry)) {
                entry.make_gone(GoneReason::Hidden);
            } else if entry.gone.is_none() && !shown(entry).all(|seq| live.sees(user, seq)) {
                entry.make_gone(GoneReason::Unseen);
            } else if edits(entry).last().and_then(why).is_some() {
                let seen = edits(entry).rfind(|seq| why(*seq).is_none());
                let as_of = seen.unwrap_or(entry.seq);
                self.take_back_edits(entry, as_of).await?;
            }
        }
        if let Some(blocked) = live.blocked_by(user) {
            self.take_back_reactions(blocked, live, &mut entries)
                .await?;
            self.take_back_pins(user, live, &mut entries).await?;
            for entry in &mut entries {
                entry.overlay = entry.overlay.take().filter(|overlay| !overlay.is_empty());
            }
        }
        Ok(entries)
    }

    /// How far others may be told that a user has got, who was at the first place and is at the second one. Who has blocked
    /// the other one of a direct conversation tells him nothing, and never of what was hidden then.
    pub(crate) async fn told_mark(
        &self,
        live: &Live,
        user: UserId,
        (from, to): (Seq, Seq),
    ) -> Result<Seq, StoreError> {
        if live.blocks(user) {
            return Ok(from);
        }
        self.seen_mark(live, user, (from, to)).await
    }

    /// The same of somebody who has not blocked the other one now.
    pub(super) async fn seen_mark(
        &self,
        live: &Live,
        user: UserId,
        (from, to): (Seq, Seq),
    ) -> Result<Seq, StoreError> {
        match live.peer(user) {
            Some(peer) if live.may_keep_back(user, (from, to)) => {
                self.store.told_mark(live.id(), user, peer, from, to).await
            }
            _ => Ok(to),
        }
    }

    /// The pinned messages of a conversation that one user sees, without those that somebody pinned whom he has blocked.
    pub(crate) async fn pins(&self, user: UserId, live: &Live) -> Result<Vec<Pin>, StoreError> {
        let mut pins = self.store.pins(live.id()).await?;
        let seqs = live.may_be_hidden(user, pins.iter().map(|pin| pin.seq).collect());
        let mut hidden = Vec::new();
        if !seqs.is_empty() {
            hidden = self.store.hidden(live.id(), user, seqs).await?;
        }
        let blocked = live.blocked_by(user);
        pins.retain(|pin| {
            let is_hidden = hidden.iter().any(|(seq, _)| *seq == pin.seq);
            live.sees(user, pin.seq) && blocked != Some(pin.by) && !is_hidden
        });
        Ok(pins)
    }

    /// The entry without its edits after a place.
    async fn take_back_edits(&self, entry: &mut Entry, as_of: Seq) -> Result<(), StoreError> {
        let range = PageRange {
            limit: 1,
            as_of,
            ..page((entry.seq, entry.seq), false)
        };
        let found = self.store.page(entry.conversation, range).await?.pop();
        let Some(mut found) = found else {
            return Ok(());
        };
        let now = entry.overlay.take().unwrap_or_default();
        let then = found.overlay.take().unwrap_or_default();
        let overlay = Overlay {
            reactions: now.reactions,
            pinned: now.pinned,
            ..*then
        };
        *entry = found;
        entry.overlay = (!overlay.is_empty()).then(|| Box::new(overlay));
        Ok(())
    }

    /// The entries without the reactions of one user.
    async fn take_back_reactions(
        &self,
        of: UserId,
        live: &Live,
        entries: &mut [Entry],
    ) -> Result<(), StoreError> {
        let has_some = |entry: &&Entry| {
            let overlay = entry.overlay.as_deref();
            overlay.is_some_and(|overlay| !overlay.reactions.is_empty())
        };
        let seqs: Vec<Seq> = entries.iter().filter(has_some).map(|it| it.seq).collect();
        if seqs.is_empty() {
            return Ok(());
        }
        for (seq, emoji) in self.store.reacted(live.id(), of, seqs).await? {
            let entry = entries.iter_mut().find(|entry| entry.seq == seq);
            let Some(overlay) = entry.and_then(|entry| entry.overlay.as_deref_mut()) else {
                continue;
            };
            for one in emoji {
                let _fewer_have_room = overlay.count(&one, false);
            }
        }
        Ok(())
    }

    /// The entries without the pins that this user does not see.
    async fn take_back_pins(
        &self,
        user: UserId,
        live: &Live,
        entries: &mut [Entry],
    ) -> Result<(), StoreError> {
        let mut overlays = entries.iter().filter_map(|entry| entry.overlay.as_deref());
        if !overlays.any(|overlay| overlay.pinned) {
            return Ok(());
        }
        let pins = self.pins(user, live).await?;
        for entry in entries {
            if let Some(overlay) = entry.overlay.as_deref_mut() {
                overlay.pinned &= pins.iter().any(|pin| pin.seq == entry.seq);
            }
        }
        Ok(())
    }
}

/// What one must see to see this entry.
fn shown(entry: &Entry) -> impl Iterator<Item = Seq> + use<> {
    [Some(entry.seq), entry.edited()].into_iter().flatten()
}

/// Its edits, the last of which is shown in its place.
fn edits(entry: &Entry) -> impl DoubleEndedIterator<Item = Seq> + use<> {
    let edits = entry
        .overlay
        .as_deref()
        .map(|overlay| overlay.edits.clone());
    edits.unwrap_or_default().into_iter()
}

/// Of what is gone for all it is told why, unless it never was to be seen.
fn hides(by: HiddenBy, entry: &Entry) -> bool {
    entry.gone.is_none() || by == HiddenBy::Block
}

#[cfg(test)]
pub(super) mod tests;
