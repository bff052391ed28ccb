//! Calls that look at conversations and their logs.

use std::sync::Arc;

use proto::ids::{ConversationId, Seq, UserId};
use proto::payload::Gap;
use proto::rpc::protobuf::history_reply;
use serde_json::value::RawValue;

use super::wire::{
    AskHistory, AskStatus, Conversation, Get, HistoryPage, List, ListedMember, Listing,
    MemberReply, StatusReply,
};
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::account::Preferences;
use crate::domain::conversation::{HistoryPolicy, Settings};
use crate::domain::member::{Marks, Member, Role};
use crate::domain::rights::Rights;
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::render::Line;
use crate::service::Refusal;
use crate::service::history::{Seen, Window};

/// Members that `conv.get` lists.
const MEMBERS_LISTED_MAX: usize = 1_024;

/// A part of a log, before it has a form.
struct Page {
    rows: Vec<Row>,
    more: bool,
    head: Seq,
}

/// A part of a page: an entry with the reactions of its reader, or a run of entries that are gone.
enum Row {
    Line(Line, Vec<Box<str>>),
    Gap(Gap),
}

impl Row {
    fn to_json(&self) -> String {
        match self {
            Self::Line(line, mine) => line.to_json(mine),
            Self::Gap(gap) => gap.to_json(),
        }
    }

    fn to_protobuf(&self) -> Vec<u8> {
        match self {
            Self::Line(line, mine) => line.to_protobuf(mine),
            Self::Gap(gap) => gap.to_protobuf(),
        }
    }
}

impl ChatPlugin {
    pub(super) async fn conv_get(&self, peer: &Peer, asked: Get) -> Result<Conversation, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        self.conversation(peer, cid).await
    }

    pub(super) async fn conversation(
        &self,
        peer: &Peer,
        cid: ConversationId,
    ) -> Result<Conversation, Refusal> {
        let overview = self.service.overview(peer.actor, cid).await?;
        let live = self.service.conversations.load(cid).await?;
        let mut present: Vec<(Member, Marks)> = live.map(|live| live.members()).unwrap_or_default();
        present.retain(|(member, _)| member.is_present());
        present.sort_by_key(|(member, _)| member.user);
        Self::charge(peer, present.len() / LISTED_PER_TOKEN);
        let mut members = Vec::new();
        for (member, marks) in present.into_iter().take(MEMBERS_LISTED_MAX) {
            members.push(ListedMember {
                user: self.named(member.user).await?,
                role: member.role,
                given: member.mask.given,
                want: member.mask.want,
                joined: member.joined,
                delivered: marks.delivered(),
                read: marks.read,
            });
        }
        Ok(Conversation {
            members: Some(members),
            ..Conversation::from(overview)
        })
    }

    /// A direct conversation in which nothing has been written.
    pub(super) async fn unused(
        &self,
        user: UserId,
        other: UserId,
        cid: ConversationId,
    ) -> Result<Conversation, Refusal> {
        let mut members = Vec::new();
        for one in [user, other].iter().take(if user == other { 1 } else { 2 }) {
            members.push(ListedMember {
                user: self.named(*one).await?,
                role: Role::Member,
                given: None,
                want: None,
                joined: Seq::ZERO,
                delivered: Seq::ZERO,
                read: Seq::ZERO,
            });
        }
        Ok(Conversation {
            cid,
            kind: cid.kind(),
            settings: Settings {
                history: HistoryPolicy::All,
                ..Settings::default()
            },
            queued: 0,
            requests: 0,
            readers: None,
            role: Role::Member,
            rights: Rights::of_role(cid.kind(), Role::Member),
            head: Seq::ZERO,
            mseq: 0,
            ts: 0,
            read: Seq::ZERO,
            private_read: Seq::ZERO,
            delivered: Seq::ZERO,
            unread: 0,
            mentions: 0,
            unread_flag: false,
            preferences: Preferences::default(),
            peer: Some(self.named(other).await?),
            members: Some(members),
        })
    }

    pub(super) async fn conv_list(&self, peer: &Peer, asked: List) -> Result<Listing, Refusal> {
        // JSON may lengthen a text.
        let size = (asked.limit.unwrap_or(100), room_of(peer) / 2);
        let page = self.service.list(peer.actor, asked.after, size).await?;
        Self::charge(peer, page.looked_at);
        Ok(Listing {
            conversations: page.list.into_iter().map(Conversation::from).collect(),
            more: page.more,
        })
    }

    pub(super) async fn msg_history(
        &self,
        peer: &Peer,
        asked: AskHistory,
    ) -> Result<HistoryPage, Refusal> {
        let page = self.page(peer, asked).await?;
        let mut entries = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            let json = RawValue::from_string(row.to_json());
            entries.push(json.map_err(|error| Refusal::format(error.to_string()))?);
        }
        Ok(HistoryPage {
            entries,
            more: page.more,
            head: page.head,
        })
    }

    /// The reply to `msg.history` in protobuf.
    pub(super) async fn msg_history_in_protobuf(
        &self,
        peer: &Peer,
        asked: AskHistory,
    ) -> Result<Vec<u8>, Refusal> {
        let page = self.page(peer, asked).await?;
        let entries: Vec<_> = page.rows.iter().map(Row::to_protobuf).collect();
        Ok(history_reply(&entries, page.more, page.head))
    }

    async fn page(&self, peer: &Peer, asked: AskHistory) -> Result<Page, Refusal> {
        let window = match (asked.before, asked.after) {
            (Some(_), Some(_)) => return Err(Refusal::format("before or after, not both")),
            (Some(seq), None) => Window::Before(seq),
            (None, Some(seq)) => Window::After(seq),
            (None, None) => Window::Before(Seq::MAX),
        };
        let cid = self.cid(peer, &asked.cid).await?;
        // A quarter of the room for bodies, which JSON may lengthen and protobuf may double; each entry takes some 400 bytes beside.
        let half = room_of(peer) / 2;
        let limit = asked.limit.unwrap_or(50).min(half / 400);
        let history = self
            .service
            .history(peer.actor, cid, window, (limit, half / 2))
            .await?;
        Self::charge(peer, history.entries.len() / LISTED_PER_TOKEN);
        let is_run = |a: &Seen, b: &Seen| {
            a.entry.gone.is_some()
                && a.entry.gone == b.entry.gone
                && a.entry.seq.next() == b.entry.seq
        };
        let runs = history.entries.chunk_by(is_run);
        Ok(Page {
            rows: runs.filter_map(|run| row(cid, run)).collect(),
            more: history.more,
            head: history.head,
        })
    }

    pub(super) async fn msg_status(
        &self,
        peer: &Peer,
        asked: AskStatus,
    ) -> Result<StatusReply, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let status = self.service.status(peer.actor, cid, asked.seq).await?;
        Self::charge(peer, status.members.len() / LISTED_PER_TOKEN);
        let members = status.members.into_iter().map(|member| MemberReply {
            uid: member.user,
            handle: member.handle,
            delivered: member.delivered,
            read: member.read,
            ts: member.moved_ms,
            delivered_ts: member.delivered_ms,
            read_ts: member.read_ms,
        });
        Ok(StatusReply {
            cid,
            seq: asked.seq,
            delivered: status.delivered,
            read: status.read,
            of: status.of,
            members: members.collect(),
        })
    }
}

/// One entry, or what stands for a run of entries of which there is nothing to see.
fn row(cid: ConversationId, run: &[Seen]) -> Option<Row> {
    let (first, last) = (run.first()?, run.last()?);
    if run.len() == 1 {
        let line = Line::new(Arc::new(first.entry.clone()), first.handle.clone());
        return Some(Row::Line(line, first.reactions.clone()));
    }
    Some(Row::Gap(Gap {
        cid,
        from: first.entry.seq,
        to: last.entry.seq,
        reason: first.entry.gone?.name(),
    }))
}
