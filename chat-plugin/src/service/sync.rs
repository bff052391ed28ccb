//! Account sync: what changed in a user's list of conversations, and of people, by one cursor.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use proto::ids::{ConversationId, Handle, Seq};

use super::history::Overview;
use super::{Actor, Refusal, Service};
use crate::domain::account::{Preferences, Subject};
use crate::domain::contact::Contact;
use crate::domain::conversation::Conversation;
use crate::domain::entry::Entry;
use crate::store::PageRange;

/// Conversations in one page.
const PAGE_MAX: usize = 200;

/// How far a device has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// It knows everything up to this account version.
    Since(u64),
    /// It is being told of all conversations, in the order of their ids, and then of what changed after `version`.
    All {
        /// When it began.
        version: u64,
        /// The last one that it was told of.
        after: Option<ConversationId>,
    },
}

/// `s57`; `a57`, `a57.g.01jz…`: opaque to clients.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Since(version) => write!(f, "s{version}"),
            Self::All {
                version,
                after: None,
            } => write!(f, "a{version}"),
            Self::All {
                version,
                after: Some(after),
            } => write!(f, "a{version}.{after}"),
        }
    }
}

impl FromStr for Position {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parse = || {
            if let Some(version) = text.strip_prefix('s') {
                return Some(Self::Since(version.parse().ok()?));
            }
            let rest = text.strip_prefix('a')?;
            let (version, after) = match rest.split_once('.') {
                Some((version, after)) => (version, Some(after.parse().ok()?)),
                None => (rest, None),
            };
            let version = version.parse().ok()?;
            Some(Self::All { version, after })
        };
        parse().ok_or_else(|| Refusal::format("next must be what the page before said"))
    }
}

/// A page of what changed.
#[derive(Debug)]
pub struct Synced {
    /// Each conversation, or person, as it is now.
    pub list: Vec<Item>,
    /// Where the next page begins, or the next sync.
    pub next: Position,
    /// There is a next page now.
    pub more: bool,
}

/// Something of which a device is told.
#[derive(Debug)]
pub enum Item {
    /// The user is a member.
    Member {
        /// The conversation.
        overview: Box<Overview>,
        /// Its last entry that the user may see, and the handle of its sender.
        last: Option<Box<(Entry, Option<Handle>)>>,
        /// What the user has hidden from himself lately.
        hidden: Vec<Seq>,
    },
    /// The user is no member any more.
    Left {
        /// Which.
        conversation: ConversationId,
        /// The last entry that the user may see.
        head: Seq,
    },
    /// What the user has decided about somebody.
    Person(Contact),
    /// The own profile, privacy or devices changed.
    Me,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Member {
                overview,
                last,
                hidden,
            } => {
                let last = last.as_ref().map_or(0, |last| 512 + last.0.body.len());
                overview.bytes() + last + 20 * hidden.len()
            }
            Self::Person(contact) => 512 + contact.called.len(),
            Self::Left { .. } | Self::Me => 64,
        }
    }
}

impl Service {
    /// The conversations that changed after a position, at most `limit` and about so many bytes, but one at least; each
    /// once, as it is now. Costs O(changes).
    ///
    /// # Errors
    /// What the store says.
    pub async fn sync(
        &self,
        actor: Actor,
        position: Position,
        (limit, bytes): (usize, usize),
    ) -> Result<Synced, Refusal> {
        let limit = limit.clamp(1, PAGE_MAX);
        match position {
            Position::Since(since) if since > 0 => {
                let changes = self.store.changes(actor.user, since, limit).await?;
                // A version that was never given: the store is not the one that the device knows.
                if since <= changes.upto {
                    let versions = changes.list.iter().map(|(version, _)| *version);
                    let places: Vec<_> = versions.map(Position::Since).collect();
                    let about = changes.list.iter().map(|(_, about)| *about).collect();
                    let page = self.page(actor, about, &places, bytes).await?;
                    return Ok(page.unwrap_or_else(|list| Synced {
                        list,
                        next: Position::Since(changes.upto),
                        more: changes.more,
                    }));
                }
                self.begin(actor, (limit, bytes)).await
            }
            Position::Since(_) => self.begin(actor, (limit, bytes)).await,
            Position::All { version, after } => {
                self.sync_all(actor, (version, after), (limit, bytes)).await
            }
        }
    }

    async fn begin(&self, actor: Actor, (limit, bytes): (usize, usize)) -> Result<Synced, Refusal> {
        let version = self.store.hand_out(actor.user, Vec::new()).await?;
        self.sync_all(actor, (version, None), (limit, bytes)).await
    }

    async fn sync_all(
        &self,
        actor: Actor,
        (version, after): (u64, Option<ConversationId>),
        (limit, bytes): (usize, usize),
    ) -> Result<Synced, Refusal> {
        let ids = self.store.memberships_of(actor.user, after, limit).await?;
        let is_last = ids.len() < limit;
        let places: Vec<_> = ids
            .iter()
            .map(|id| Position::All {
                version,
                after: Some(*id),
            })
            .collect();
        let last = places.last().copied();
        let about = ids.into_iter().map(Subject::Conversation).collect();
        let page = self.page(actor, about, &places, bytes).await?;
        Ok(page.unwrap_or_else(|list| Synced {
            list,
            next: last
                .filter(|_| !is_last)
                .unwrap_or(Position::Since(version)),
            more: !is_last,
        }))
    }

    /// These subjects as they are now. What changes from now on is told by a later page. `Err`: all of them; `Ok`: a
    /// page that is full before.
    async fn page(
        &self,
        actor: Actor,
        about: Vec<Subject>,
        places: &[Position],
        bytes: usize,
    ) -> Result<Result<Synced, Vec<Item>>, Refusal> {
        let ids: Vec<_> = about
            .iter()
            .filter_map(|about| about.conversation())
            .collect();
        if !ids.is_empty() {
            self.store.hand_out(actor.user, ids.clone()).await?;
        }
        let (mut list, mut room) = (Vec::with_capacity(about.len()), bytes);
        let mut before = None;
        let mut committed = self.store.conversations(&ids).await?.into_iter();
        for (about, place) in about.into_iter().zip(places) {
            let item = match about {
                Subject::Conversation(id) => {
                    let committed = committed.next().flatten();
                    self.item(actor, id, committed).await?
                }
                Subject::Person(other) if other == actor.user => Item::Me,
                Subject::Person(other) => {
                    Item::Person(self.store.contact(actor.user, other).await?)
                }
            };
            let len = item.bytes();
            if len > room
                && let Some(next) = before
            {
                let more = true;
                return Ok(Ok(Synced { list, next, more }));
            }
            room = room.saturating_sub(len);
            before = Some(*place);
            list.push(item);
        }
        Ok(Err(list))
    }

    /// A conversation as it is at `committed`, or later: nobody tells of a change before that again.
    async fn item(
        &self,
        actor: Actor,
        id: ConversationId,
        committed: Option<Conversation>,
    ) -> Result<Item, Refusal> {
        if let (Some(committed), Some(live)) = (committed, self.conversations.in_memory(id))
            && live.head() < committed.head
        {
            live.invalidate(); // the feed is behind
        }
        let (live, sight) = self.seen(actor.user, id).await?;
        let head = sight.last_visible();
        if !sight.member.is_present() {
            return Ok(Item::Left {
                conversation: id,
                head,
            });
        }
        let range = PageRange {
            from: head,
            to: head,
            newest: true,
            limit: 1,
            bytes: 1,
            as_of: Seq::MAX,
        };
        let found = self.store.page(id, range).await?;
        let mut found = self.delivery.as_seen(actor.user, &live, found).await?;
        let last = match found.pop() {
            Some(mut entry) if sight.member.sees(entry.seq) => {
                if let Some(reason) = entry.gone_at(crate::clock::now_ms()) {
                    entry.make_gone(reason);
                }
                let handle = self.names.handle(entry.from).await?;
                Some(Box::new((entry, handle)))
            }
            _ => None,
        };
        let overview = self.overview_of(actor, &live, sight).await?;
        let hidden = if overview.marks.hidden > Seq::ZERO {
            self.store.hidden_lately(id, actor.user).await?
        } else {
            Vec::new()
        };
        Ok(Item::Member {
            overview: Box::new(overview),
            last,
            hidden,
        })
    }

    /// What a user has decided about a conversation, after the change; durable, and told to the other devices.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub async fn prefer(
        &self,
        actor: Actor,
        id: ConversationId,
        change: impl FnOnce(&mut Preferences),
    ) -> Result<Overview, Refusal> {
        let (live, _) = self.present(actor.user, id).await?;
        let _only_one = live.turn_to_change().await;
        let mut preferences = self.preferences(actor, id).await?;
        change(&mut preferences);
        preferences.muted_until = preferences.muted_until.min(Preferences::MUTED_FOR_EVER);
        self.store
            .set_preferences(actor.user, id, preferences)
            .await?;
        self.delivery.account_changed(actor.user);
        self.delivery.watch_changed(&live, actor.user).await?;
        self.overview(actor, id).await
    }

    pub(super) async fn preferences(
        &self,
        actor: Actor,
        id: ConversationId,
    ) -> Result<Preferences, Refusal> {
        let found = self.store.preferences(actor.user, vec![id]).await?.pop();
        Ok(found.unwrap_or_default())
    }

    /// Unread messages by conversation, of those that are not muted and have any, and how many were looked at.
    ///
    /// # Errors
    /// What the store says.
    pub async fn unread_by_conversation(
        &self,
        actor: Actor,
    ) -> Result<(HashMap<ConversationId, u64>, usize), Refusal> {
        const PAGE: usize = 256;
        let now_ms = crate::clock::now_ms();
        let (mut unread, mut looked_at, mut after) = (HashMap::new(), 0, None);
        loop {
            let ids = self.store.memberships_of(actor.user, after, PAGE).await?;
            let Some(last) = ids.last().copied() else {
                return Ok((unread, looked_at));
            };
            after = Some(last);
            looked_at += ids.len();
            let preferences = self.store.preferences(actor.user, ids.clone()).await?;
            for (id, preferences) in ids.into_iter().zip(preferences) {
                let (live, sight) = self.seen(actor.user, id).await?;
                if !sight.member.is_present() || preferences.is_muted(now_ms) {
                    continue;
                }
                let count = self.count_unread(&live, &sight).await?;
                if count > 0 {
                    unread.insert(id, count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::ids::ConversationKind;

    use super::*;

    proptest! {
        #[test]
        fn a_position_survives_its_text(version: u64, after: Option<[u8; 16]>, all: bool) {
            let id = |bytes| ConversationId::from_parts(ConversationKind::Group, bytes);
            let position = if all {
                Position::All { version, after: after.map(id) }
            } else {
                Position::Since(version)
            };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn what_is_no_position_is_refused(text in "\\PC{0,40}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert!(text.starts_with(['s', 'a']), "{position:?}");
            }
        }
    }
}
