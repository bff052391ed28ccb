//! Entries as one user sees them, beyond what his membership shows.

use proto::ids::{Seq, UserId};

use super::{Delivery, page};
use crate::conversations::Live;
use crate::domain::entry::{Entry, EntryKind};
use crate::domain::overlay::{GoneReason, Overlay};
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
        let last = live.hidden(user);
        let mut seqs: Vec<Seq> = entries.iter().flat_map(shown).collect();
        seqs.extend(entries.iter().flat_map(edits));
        seqs.retain(|seq| *seq <= last);
        let mut hidden = Vec::new();
        if !seqs.is_empty() {
            hidden = self.store.hidden(live.id(), user, seqs).await?;
        }
        let why = |seq: Seq| {
            let found = hidden.iter().find(|(of, _)| *of == seq);
            found.map(|(_, reason)| *reason)
        };
        for entry in &mut entries {
            let reason = shown(entry).find_map(why);
            if let Some(reason) = reason.filter(|reason| hides(*reason, entry)) {
                entry.make_gone(reason);
            } else if entry.gone.is_none() && !shown(entry).all(|seq| live.sees(user, seq)) {
                entry.make_gone(GoneReason::Unseen);
            } else if edits(entry).last().and_then(why).is_some() {
                let seen = edits(entry).rfind(|seq| why(*seq).is_none());
                let as_of = seen.unwrap_or(entry.seq);
                self.take_back_edits(entry, as_of).await?;
            }
        }
        if live.blocks(user)
            && let Some(peer) = live.peer(user)
        {
            self.take_back_reactions(peer, live, &mut entries).await?;
        }
        Ok(entries)
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
        for entry in entries {
            entry.overlay = entry.overlay.take().filter(|overlay| !overlay.is_empty());
        }
        Ok(())
    }
}

/// What one must see to see this entry.
fn shown(entry: &Entry) -> impl Iterator<Item = Seq> + use<> {
    let edited = entry.target.filter(|_| entry.kind == EntryKind::Edit);
    [Some(entry.seq), edited].into_iter().flatten()
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
fn hides(reason: GoneReason, entry: &Entry) -> bool {
    entry.gone.is_none() || reason == GoneReason::Blocked
}
