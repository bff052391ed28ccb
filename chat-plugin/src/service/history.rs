//! Looking back: pages of the log, the status of a message, the list of conversations.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use proto::ids::{ConversationId, ConversationKind, Handle, Seq, UserId};

use super::{Actor, Refusal, Service};
use crate::conversations::{Live, Sight};
use crate::domain::account::Preferences;
use crate::domain::conversation::Conversation;
use crate::domain::entry::Entry;
use crate::domain::member::{Interval, Marks, Member, Stretch};
use crate::domain::overlay::HiddenBy;
use crate::names::Profile;
use crate::receipts::Others;
use crate::store::{MovedOver, PageRange};

/// Bytes of bodies in one page of history.
const HISTORY_BYTES: usize = 128 * 1024;

/// Conversations in one page of the list, and bytes of their texts.
const LIST_MAX: usize = 1_000;
const LIST_BYTES: usize = 128 * 1024;

/// Which page of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The newest entries before this place.
    Before(Seq),
    /// The oldest entries after this place.
    After(Seq),
}

/// A page of history.
#[derive(Clone, Debug)]
pub struct History {
    /// Ascending by place.
    pub entries: Vec<Seen>,
    /// There is more in the direction that was asked for.
    pub more: bool,
    /// Place of the last entry of the conversation.
    pub head: Seq,
}

/// An entry as one user sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The entry; gone if it is hidden from this user or its time is over.
    pub entry: Entry,
    /// How people call its sender.
    pub handle: Option<Handle>,
    /// The reactions of this user to it.
    pub reactions: Vec<Box<str>>,
}

/// Who has a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How many members have it.
    pub delivered: u32,
    /// How many have read it.
    pub read: u32,
    /// Of how many.
    pub of: u32,
    /// Member by member: handle, has it, has read it.
    pub members: Vec<MemberStatus>,
}

/// What one member has of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who.
    pub user: UserId,
    /// How people call this user.
    pub handle: Option<Handle>,
    /// Some device has it.
    pub delivered: bool,
    /// It was read.
    pub read: bool,
    /// When these marks moved last, in ms since 1970; 0: never.
    pub moved_ms: u64,
    /// When it was delivered, in ms since 1970, as far as it is kept.
    pub delivered_ms: Option<u64>,
    /// When it was read.
    pub read_ms: Option<u64>,
}

/// A conversation in the list of one user.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The conversation.
    pub conversation: Conversation,
    /// The own membership.
    pub member: Member,
    /// The own marks.
    pub marks: Marks,
    /// What the user has decided about it.
    pub preferences: Preferences,
    /// Countable entries of others that were not read.
    pub unread: u64,
    /// How many of them mention the user.
    pub mentions: u64,
    /// The other user of a direct conversation.
    pub peer: Option<(UserId, Option<Profile>)>,
    /// Support cases that wait; shown to those who may take them.
    pub queued: usize,
    /// How many ask to join; shown to those who may let them in.
    pub requests: usize,
    /// How many readers a channel has, or to how many a broadcast list goes.
    pub readers: Option<u64>,
}

impl Overview {
    /// About as long as it is in JSON.
    pub(super) fn bytes(&self) -> usize {
        const NUMBERS_AND_NAMES: usize = 512;
        let settings = &self.conversation.settings;
        let peer = self.peer.as_ref().and_then(|(_, profile)| profile.as_ref());
        let name = peer.map_or(0, |profile| profile.name.len());
        let tags: usize = settings.tags.iter().map(|tag| tag.len() + 3).sum();
        let texts = settings.title.len() + settings.description.len() + settings.photo.len();
        let texts = texts + tags;
        NUMBERS_AND_NAMES + texts + name
    }
}

/// A page of the list of conversations.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Ascending by id.
    pub list: Vec<Overview>,
    /// There are more behind the last one.
    pub more: bool,
    /// Conversations that were looked at.
    pub looked_at: usize,
}

impl Service {
    /// A page of the log, as far as this user may see it: at most so many entries and bytes of bodies, but one entry.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see the conversation.
    pub async fn history(
        &self,
        actor: Actor,
        id: ConversationId,
        window: Window,
        (limit, bytes): (usize, usize),
    ) -> Result<History, Refusal> {
        let (live, sight) = self.seen(actor.user, id).await?;
        let head = sight.last_visible();
        let limit = limit.clamp(
            1,
            usize::try_from(self.config.history_limit_max).unwrap_or(usize::MAX),
        );
        let (low, high) = match window {
            Window::Before(seq) => (Seq::new(1), seq.previous().min(head)),
            Window::After(seq) => (seq.next(), head),
        };
        let newest = matches!(window, Window::Before(_));
        let stretches = visible(&sight.member.intervals, low, high);
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = bytes.clamp(1, HISTORY_BYTES);
        let mut order: Vec<&Stretch> = stretches.iter().collect();
        if newest {
            order.reverse();
        }
        let mut more = false;
        for stretch in order {
            if entries.len() >= limit || bytes == 0 {
                more = true;
                break;
            }
            let range = PageRange {
                from: stretch.from,
                to: stretch.to,
                newest,
                limit: limit - entries.len(),
                bytes,
                as_of: live.last_known(actor.user),
            };
            let page = self.store.page(id, range).await?;
            bytes = bytes.saturating_sub(page.iter().map(|entry| entry.body.len()).sum());
            let complete = page.len() as u64 == stretch.to.get() - stretch.from.get() + 1;
            if newest {
                entries.splice(0..0, page);
            } else {
                entries.extend(page);
            }
            if !complete {
                more = true;
                break;
            }
        }
        let entries = self.delivery.as_seen(actor.user, &live, entries).await?;
        let with_reactions = entries.iter().filter(|entry| has_reactions(entry));
        let seqs: Vec<Seq> = with_reactions.map(|entry| entry.seq).collect();
        let mut reacted = if seqs.is_empty() {
            HashMap::new()
        } else {
            let reacted = self.store.reacted(id, actor.user, seqs).await?;
            reacted.into_iter().collect()
        };
        let now_ms = crate::clock::now_ms();
        let mut named = Vec::with_capacity(entries.len());
        for mut entry in entries {
            if let Some(reason) = entry.gone_at(now_ms) {
                entry.make_gone(reason);
            }
            named.push(Seen {
                handle: self.names.handle(entry.from).await?,
                reactions: reacted.remove(&entry.seq).unwrap_or_default(),
                entry,
            });
        }
        Ok(History {
            entries: named,
            more,
            head,
        })
    }

    /// Who has a message, and who has read it. The marks of the sender are not counted.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is no such message for this user.
    pub async fn status(
        &self,
        actor: Actor,
        id: ConversationId,
        seq: Seq,
    ) -> Result<Status, Refusal> {
        const MEMBERS_MAX: usize = 256;
        let (live, sight) = self.present(actor.user, id).await?;
        let range = PageRange {
            from: seq,
            to: seq,
            newest: false,
            limit: 1,
            bytes: 1,
            as_of: Seq::MAX,
        };
        let entry = if sight.member.sees(seq) {
            self.store.page(id, range).await?.pop()
        } else {
            None
        };
        let entry = entry.ok_or(Refusal::NotFound(Cow::Borrowed("no such message")))?;
        if entry.from != actor.user {
            return Err(Refusal::Forbidden(
                "only the sender of a message is told who has it",
            ));
        }
        if id.kind() == ConversationKind::Broadcast {
            return self.broadcast_status(actor.user, (id, seq)).await;
        }
        let mut members = live.members();
        if let Some(peer) = live.peer(actor.user) {
            let suspect = live.may_be_hidden(peer, vec![seq]);
            let is_suspect = !suspect.is_empty();
            if is_suspect
                && let Some((_, HiddenBy::Block)) =
                    self.store.hidden(id, peer, suspect).await?.pop()
            {
                // He never had it, however far he has got since.
                let them = members.iter_mut().filter(|(member, _)| member.user == peer);
                them.for_each(|(_, marks)| *marks = Marks::default());
            }
        }
        let others = Others::new(&members, entry.from);
        let (delivered, read) = others.count(seq);
        let there = members.iter().filter(|(member, _)| {
            member.is_present() && member.user != entry.from && member.awaits(seq)
        });
        let there: Vec<_> = there.take(MEMBERS_MAX).collect();
        let have = there.iter().filter(|(_, marks)| marks.delivered() >= seq);
        let have = have.map(|(member, _)| member.user).collect();
        let moved = self.store.moved_over(id, have, seq).await?;
        let moved: HashMap<UserId, MovedOver> = moved.into_iter().collect();
        let mut named = Vec::new();
        for (member, marks) in there {
            let moved = moved.get(&member.user).copied().unwrap_or_default();
            named.push(MemberStatus {
                user: member.user,
                handle: self.names.handle(member.user).await?,
                delivered: marks.delivered() >= seq,
                read: marks.read >= seq,
                moved_ms: marks.moved_ms,
                delivered_ms: moved.delivered_ms,
                read_ms: moved.read_ms,
            });
        }
        Ok(Status {
            delivered,
            read,
            of: others.of(seq),
            members: named,
        })
    }

    /// One conversation as this user sees it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if this user cannot see it.
    pub async fn overview(&self, actor: Actor, id: ConversationId) -> Result<Overview, Refusal> {
        let (live, sight) = self.present(actor.user, id).await?;
        self.overview_of(actor, &live, sight).await
    }

    /// A page of the conversations of this user, in the order of their ids, without those that the user has left: at most
    /// `limit` after `after`, and about so many bytes, but one at least.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(
        &self,
        actor: Actor,
        after: Option<ConversationId>,
        (limit, bytes): (usize, usize),
    ) -> Result<Listing, Refusal> {
        let limit = limit.clamp(1, LIST_MAX);
        let mut bytes = bytes.min(LIST_BYTES);
        let mut listing = Listing::default();
        let mut after = after;
        loop {
            let ids = self
                .store
                .memberships_of(actor.user, after, LIST_MAX)
                .await?;
            let Some(last) = ids.last().copied() else {
                return Ok(listing);
            };
            after = Some(last);
            for id in ids {
                let (live, sight) = self.seen(actor.user, id).await?;
                listing.looked_at += 1;
                if !sight.member.is_present() {
                    continue;
                }
                let overview = self.overview_of(actor, &live, sight).await?;
                let len = overview.bytes();
                if listing.list.len() == limit || (len > bytes && !listing.list.is_empty()) {
                    listing.more = true;
                    return Ok(listing);
                }
                bytes = bytes.saturating_sub(len);
                listing.list.push(overview);
            }
        }
    }

    pub(super) async fn overview_of(
        &self,
        actor: Actor,
        live: &Arc<Live>,
        sight: Sight,
    ) -> Result<Overview, Refusal> {
        let conversation = live
            .conversation()
            .ok_or(Refusal::NotFound(Cow::Borrowed("no such conversation")))?;
        let unread = self.count_unread(live, &sight).await?;
        let mentions = if unread == 0 {
            0
        } else {
            self.count_mentions(live, &sight).await?
        };
        let peer = self.peer(actor.user, live).await?;
        let preferences = self.preferences(actor, live.id()).await?;
        let requests = self.requests_shown(live.id(), &sight).await?;
        let queued = self.queued_shown(&conversation, &sight).await?;
        let readers = self.readers_shown(live.id()).await?;
        Ok(Overview {
            readers,
            requests,
            queued,
            preferences,
            conversation,
            member: sight.member,
            marks: sight.marks,
            unread,
            mentions,
            peer,
        })
    }

    /// `mseq(to) − mseq(read) − own countable entries after it`, through indexes, for each stretch that waits for this user.
    pub(super) async fn count_unread(&self, live: &Live, sight: &Sight) -> Result<u64, Refusal> {
        let user = sight.member.user;
        let (read, last) = (sight.marks.own_read(), sight.last_visible());
        let mut unread = 0;
        for stretch in sight.member.stretches() {
            let read = read.max(stretch.from.previous());
            let last = last.min(stretch.to);
            if read >= last {
                continue;
            }
            let to = self.store.count_up_to(live.id(), user, last).await?;
            let from = self.store.count_up_to(live.id(), user, read).await?;
            unread += to.unread_since(from);
        }
        Ok(unread)
    }

    async fn peer(
        &self,
        user: UserId,
        live: &Live,
    ) -> Result<Option<(UserId, Option<Profile>)>, Refusal> {
        if live.id().kind() != ConversationKind::Direct {
            return Ok(None);
        }
        let other = live
            .present()
            .iter()
            .copied()
            .find(|other| *other != user)
            .unwrap_or(user);
        Ok(Some((other, self.names.profile(other).await?)))
    }
}

fn has_reactions(entry: &Entry) -> bool {
    let overlay = entry.overlay.as_deref();
    overlay.is_some_and(|overlay| !overlay.reactions.is_empty())
}

/// The parts of `[low, high]` that these intervals show.
pub(super) fn visible(intervals: &[Interval], low: Seq, high: Seq) -> Vec<Stretch> {
    let cut = |interval: &Interval| Stretch {
        from: interval.from.max(low),
        to: interval.to.min(high),
    };
    intervals
        .iter()
        .map(cut)
        .filter(|stretch| stretch.from <= stretch.to)
        .collect()
}
