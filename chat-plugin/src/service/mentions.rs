//! Mentions: who is meant by a message, and where somebody was.

use proto::ids::{ConversationId, Handle, Seq, UserId};
use proto::payload::Mention;

use super::history::visible;
use super::{Actor, Refusal, Service};
use crate::conversations::{Live, Sight};
use crate::domain::entry::{Entry, Mentioned};
use crate::domain::permission::{Action, allows};
use crate::store::PageRange;

/// So many are counted; more are as good as so many.
const COUNTED_MAX: usize = 1_000;
/// Messages in one page, and bytes of their bodies.
const PAGE_MAX: usize = 100;
const PAGE_BYTES: usize = 128 * 1024;
/// Conversations that are looked at for one page.
const CONVERSATIONS_MAX: usize = 256;

/// Where a page of mentions ended: below this place of this conversation the next one begins.
pub type Ended = (ConversationId, Seq);

/// A page of messages that mention somebody.
#[derive(Debug, Default)]
pub struct Mentions {
    /// The messages, and the handles of their senders.
    pub list: Vec<(Entry, Option<Handle>)>,
    /// Where it ended, if there may be more.
    pub next: Option<Ended>,
    /// Conversations that were looked at.
    pub looked_at: usize,
}

impl Service {
    /// Which members a message of `user` mentions; nobody who could not see it, and all only by those who may.
    pub(super) async fn mentioned(
        &self,
        user: UserId,
        conversation: ConversationId,
        mentions: &[Mention],
    ) -> Result<Mentioned, Refusal> {
        if mentions.is_empty() {
            return Ok(Mentioned::default());
        }
        let live = self.conversations.load_for(conversation, user).await?;
        let sight = live.as_ref().and_then(|live| live.sight(user));
        let may_mean_all =
            |sight: &Sight| allows(conversation.kind(), &sight.member, Action::MentionAll);
        let (mut all, mut users) = (false, Vec::new());
        for mention in mentions {
            let one = match mention {
                Mention::All => {
                    all = sight.as_ref().is_none_or(may_mean_all);
                    continue;
                }
                Mention::User(id) => Some(*id),
                Mention::Handle(handle) => self.names.user(handle).await?,
            };
            let Some(one) = one.filter(|one| !users.contains(one)) else {
                continue;
            };
            let is_member = match (&live, &sight) {
                (Some(_), Some(_)) => {
                    let live = self.conversations.load_for(conversation, one).await?;
                    live.is_some_and(|live| live.is_present(one))
                }
                // It is made with this message.
                _ => conversation == ConversationId::direct(user, one),
            };
            users.extend(is_member.then_some(one));
        }
        let users = users.into();
        Ok(Mentioned { all, users })
    }

    /// How many messages that mention a user are not read.
    pub(super) async fn count_mentions(&self, live: &Live, sight: &Sight) -> Result<u64, Refusal> {
        let user = sight.member.user;
        let (read, last) = (sight.marks.own_read().next(), sight.last_visible());
        let mut count = 0;
        let awaited: Vec<_> = sight.member.stretches().collect();
        for mut stretch in awaited {
            stretch.from = stretch.from.max(read);
            stretch.to = stretch.to.min(last);
            if stretch.from > stretch.to || count >= COUNTED_MAX {
                continue;
            }
            let room = COUNTED_MAX - count;
            let found = self.store.mentions(live.id(), user, stretch, room);
            count += found.await?.len();
        }
        Ok(count as u64)
    }

    /// Messages that mention the actor and can be seen, in one conversation or in all, from where the page before ended:
    /// conversation by conversation in the order of their ids, the newest of each first. At most `limit`, and about so
    /// many bytes.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the actor cannot see the conversation that was asked for.
    pub async fn mentions(
        &self,
        actor: Actor,
        only: Option<ConversationId>,
        from: Option<Ended>,
        (limit, bytes): (usize, usize),
    ) -> Result<Mentions, Refusal> {
        let mut page = Mentions::default();
        let mut room = (limit.clamp(1, PAGE_MAX), bytes.clamp(1, PAGE_BYTES));
        if let Some(id) = only {
            let below = from.filter(|(known, _)| *known == id);
            let below = below.map_or(Seq::MAX, |(_, seq)| seq);
            page.looked_at = 1;
            self.mentions_in(actor, (id, below), &mut room, &mut page)
                .await?;
            return Ok(page);
        }
        let (mut after, mut first) = (None, from);
        if let Some((id, _)) = from {
            after = Some(id);
        }
        loop {
            let ids = match first.take() {
                Some((id, _)) => vec![id],
                None => self.store.memberships_of(actor.user, after, 64).await?,
            };
            let Some(last) = ids.last().copied() else {
                return Ok(page);
            };
            for id in ids {
                if page.looked_at == CONVERSATIONS_MAX {
                    page.next = after.map(|after| (after, Seq::ZERO));
                    return Ok(page);
                }
                page.looked_at += 1;
                let below = from.filter(|(known, _)| *known == id);
                let below = below.map_or(Seq::MAX, |(_, seq)| seq);
                match self
                    .mentions_in(actor, (id, below), &mut room, &mut page)
                    .await
                {
                    Err(Refusal::NotFound(_)) => {} // left meanwhile
                    looked => looked?,
                }
                if page.next.is_some() {
                    return Ok(page);
                }
                after = Some(id);
            }
            after = Some(last);
        }
    }

    /// Adds those of one conversation; `page.next` says that there was no room for all.
    async fn mentions_in(
        &self,
        actor: Actor,
        (id, below): Ended,
        (limit, bytes): &mut (usize, usize),
        page: &mut Mentions,
    ) -> Result<(), Refusal> {
        let (live, sight) = self.present(actor.user, id).await?;
        let now_ms = crate::clock::now_ms();
        let high = below.previous().min(sight.last_visible());
        let stretches = visible(&sight.member.intervals, Seq::new(1), high);
        for stretch in stretches.into_iter().rev() {
            let mut stretch = stretch;
            while stretch.from <= stretch.to {
                let found = self
                    .store
                    .mentions(id, actor.user, stretch, PAGE_MAX)
                    .await?;
                let is_last = found.len() < PAGE_MAX;
                for seq in found {
                    stretch.to = seq.previous();
                    if *limit == 0 || *bytes == 0 {
                        page.next = Some((id, seq.next()));
                        return Ok(());
                    }
                    let entry = self.store.page(id, one(seq)).await?;
                    let entry = self.delivery.as_seen(actor.user, &live, entry).await?.pop();
                    let Some(entry) = entry.filter(|entry| entry.gone_at(now_ms).is_none()) else {
                        continue;
                    };
                    *limit -= 1;
                    *bytes = bytes.saturating_sub(512 + entry.body.len());
                    let handle = self.names.handle(entry.from).await?;
                    page.list.push((entry, handle));
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn one(seq: Seq) -> PageRange {
    PageRange {
        from: seq,
        to: seq,
        newest: false,
        limit: 1,
        bytes: 1,
        as_of: Seq::MAX,
    }
}
