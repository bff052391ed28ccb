//! What the content filter says, and what moderators decide: messages that are held, reports.

use std::borrow::Cow;

use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};
use proto::payload::EntryBody;

use super::send::placed;
use super::{Actor, Placed, Refusal, Service, permit};
use crate::conversations::Sight;
use crate::domain::entry::{Basis, BodyFormat, Draft, Entry, EntryKind};
use crate::domain::held::{Held, Holding};
use crate::domain::overlay::{Report, ReportKey};
use crate::domain::permission::Action;
use crate::filter::{Content, Verdict};
use crate::store::{PageRange, StoreError};

/// Messages in one page of those that are held.
const HELD_PAGE_MAX: usize = 100;
/// Reports that are looked at for one page.
const REPORTS_LOOKED_AT: usize = 512;

/// A page of reports.
#[derive(Clone, Debug, Default)]
pub struct ReportPage {
    /// The reports.
    pub reports: Vec<Report>,
    /// How many were looked at.
    pub looked_at: usize,
    /// The last one that was looked at.
    pub next: Option<ReportKey>,
    /// There are no more.
    pub is_last: bool,
}

impl Service {
    /// Asks the filter about a message that was judged. One that was stored before passes: it is only being repeated.
    pub(super) async fn check_content(&self, draft: &Draft) -> Result<(), Refusal> {
        let Some(filter) = self.filter.get() else {
            return Ok(());
        };
        let Some(text) = shown(draft.format, &draft.body) else {
            return Ok(());
        };
        let kind = match draft.kind {
            EntryKind::Edit => "edit",
            _ => "message",
        };
        let content = Content {
            cid: draft.conversation,
            from: draft.from,
            mid: &draft.mid,
            kind,
            text: &text,
        };
        let verdict = filter.judge(content).await;
        if verdict == Verdict::Allow {
            return Ok(());
        }
        let before = self
            .store
            .place_of(draft.conversation, draft.from, &draft.mid)
            .await?;
        if before.is_some() {
            return Ok(());
        }
        match verdict {
            Verdict::Allow => Ok(()),
            Verdict::Hold(reason) if may_be_held(draft) => self.hold(draft, reason).await,
            Verdict::Hold(reason) | Verdict::Reject(reason) => Err(Refusal::Content(reason)),
        }
    }

    async fn hold(&self, draft: &Draft, reason: String) -> Result<(), Refusal> {
        let entry = Entry {
            conversation: draft.conversation,
            seq: Seq::ZERO,
            mseq: 0,
            ts_ms: draft.ts_ms,
            from: draft.from,
            device: draft.device,
            mid: draft.mid.clone(),
            kind: draft.kind,
            format: draft.format,
            opaque: draft.opaque,
            body: draft.body.clone(),
            target: draft.target,
            thread: draft.thread,
            expires_ms: draft.expires_ms,
            mentions: draft.mentions.clone(),
            gone: None,
            source: None,
            overlay: None,
        };
        let held = Held {
            entry,
            digest: draft.digest,
            reason,
        };
        match self.store.hold(held).await? {
            Holding::Held => Err(Refusal::Held(draft.conversation)),
            Holding::Conflict => Err(Refusal::IdempotencyConflict),
            Holding::Full => Err(Refusal::Limit("too many messages wait for a moderator")),
        }
    }

    /// Messages that are held in a conversation, for its moderators: at most `limit` behind `after`.
    ///
    /// # Errors
    /// Why not.
    pub async fn held(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<(UserId, MessageId)>,
        limit: usize,
    ) -> Result<Vec<Held>, Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        let limit = limit.clamp(1, HELD_PAGE_MAX + 1);
        Ok(self.store.held(id, after, limit).await?)
    }

    /// Lets a message that is held into the log, as its sender wrote it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if none is held under this id; why not otherwise.
    pub async fn approve_held(
        &self,
        actor: Actor,
        id: ConversationId,
        (from, mid): (UserId, &MessageId),
    ) -> Result<Placed, Refusal> {
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let (live, sight) = self.present(actor.user, id).await?;
            permit(id, &sight, Action::DeleteOthers)?;
            let found = self.store.held_message(id, from, mid).await?;
            let held = found.ok_or(NOT_HELD)?;
            self.conversations.load_for(id, from).await?;
            let sender = live.sight(from).filter(|sight| sight.member.is_present());
            if sender.is_none() {
                return Err(Refusal::Forbidden("its sender is not a member any more"));
            }
            let draft = draft(held, Basis::Version(sight.version));
            let outcome = self.store.append(vec![draft.clone()]).await?.pop();
            match outcome.and_then(|outcome| placed(&draft, outcome)) {
                Some(result) => {
                    self.follow_own(&draft, outcome);
                    let place = result?;
                    self.store.end_hold(id, from, mid).await?;
                    return Ok(place);
                }
                None => live.invalidate(),
            }
        }
        Err(Refusal::BUSY)
    }

    /// Ends the holding of a message, which nobody will see. Its sender is not told.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if none is held under this id; why not otherwise.
    pub async fn reject_held(
        &self,
        actor: Actor,
        id: ConversationId,
        (from, mid): (UserId, &MessageId),
    ) -> Result<(), Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        if !self.store.end_hold(id, from, mid).await? {
            return Err(NOT_HELD);
        }
        Ok(())
    }
}

impl Service {
    /// Reports of messages of a conversation, for its moderators, the oldest first: of what they see, but for their own
    /// messages. At most `limit` behind `after`, of some hundred that are looked at; and where the next page begins.
    ///
    /// # Errors
    /// Why not.
    pub async fn reports(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<ReportKey>,
        limit: usize,
    ) -> Result<ReportPage, Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        let found = self
            .store
            .reports(after.as_ref(), REPORTS_LOOKED_AT)
            .await?;
        let mut page = ReportPage {
            is_last: found.len() < REPORTS_LOOKED_AT,
            ..ReportPage::default()
        };
        for report in found {
            if page.reports.len() >= limit {
                page.is_last = false;
                break;
            }
            page.looked_at += 1;
            page.next = Some(report.key());
            if self.is_for(actor.user, (&sight, id), &report).await? {
                page.reports.push(report);
            }
        }
        Ok(page)
    }

    /// Settles a report: it is forgotten. Whoever made it is not told.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if there is none that this moderator sees; why not otherwise.
    pub async fn settle_report(
        &self,
        actor: Actor,
        id: ConversationId,
        key: &ReportKey,
    ) -> Result<(), Refusal> {
        const NO_REPORT: Refusal = Refusal::NotFound(Cow::Borrowed("no such report"));
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        let report = self.store.reported(key).await?.ok_or(NO_REPORT)?;
        if !self.is_for(actor.user, (&sight, id), &report).await?
            || !self.store.close_report(key).await?
        {
            return Err(NO_REPORT);
        }
        Ok(())
    }

    /// Is a report one that this moderator decides on? Nobody does on himself.
    async fn is_for(
        &self,
        user: UserId,
        (sight, id): (&Sight, ConversationId),
        report: &Report,
    ) -> Result<bool, StoreError> {
        if report.conversation != id || !sight.member.sees(report.seq) {
            return Ok(false);
        }
        let range = PageRange {
            from: report.seq,
            to: report.seq,
            newest: false,
            limit: 1,
            bytes: 1,
            as_of: Seq::MAX,
        };
        let found = self.store.page(id, range).await?.pop();
        Ok(found.is_some_and(|entry| entry.from != user))
    }
}

const NOT_HELD: Refusal = Refusal::NotFound(Cow::Borrowed("no such message is held"));

/// Where nobody moderates, nobody could decide; and an edit has its place in the log already.
fn may_be_held(draft: &Draft) -> bool {
    let is_moderated = draft.conversation.kind() != ConversationKind::Direct;
    is_moderated && draft.kind == EntryKind::Message
}

/// What people would be shown of a body; nothing of an encrypted one but the text beside it.
pub(crate) fn shown(format: BodyFormat, body: &[u8]) -> Option<Cow<'_, str>> {
    let text = || std::str::from_utf8(body).unwrap_or_default();
    match format {
        BodyFormat::Text => Some(Cow::Borrowed(text())),
        BodyFormat::Json => EntryBody::Json(text()).shown(),
        BodyFormat::Protobuf => EntryBody::Protobuf(body).shown(),
    }
}

fn draft(held: Held, basis: Basis) -> Draft {
    let Held { entry, digest, .. } = held;
    Draft {
        conversation: entry.conversation,
        basis,
        from: entry.from,
        peer: None,
        device: entry.device,
        mid: entry.mid,
        digest,
        ts_ms: crate::clock::now_ms(),
        slow_ms: 0, // it waited long enough
        kind: entry.kind,
        format: entry.format,
        opaque: entry.opaque,
        body: entry.body,
        target: entry.target,
        thread: entry.thread,
        expires_ms: entry.expires_ms,
        mentions: entry.mentions,
        source: None,
        scheduled: None,
        act: None,
        exchange: None,
        changes: Vec::new(),
    }
}
