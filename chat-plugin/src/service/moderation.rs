//! What the content filter says, and what moderators decide: messages that are held, reports.

use std::borrow::Cow;

use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};
use proto::payload::EntryBody;
use serde_json::json;

use super::membership::Request;
use super::send::placed;
use super::{Actor, Placed, Refusal, Service, permit};
use crate::conversations::Sight;
use crate::domain::entry::{Basis, BodyFormat, Draft, EntryKind};
use crate::domain::held::{Held, Holding};
use crate::domain::member::{Marks, Member};
use crate::domain::overlay::{Report, ReportKey};
use crate::domain::permission::{Action, allows};
use crate::filter::{Content, ContentKind, Policy, Verdict};
use crate::store::{PageRange, StoreError};

/// Messages in one page of those that are held.
const HELD_PAGE_MAX: usize = 100;
/// When to send again what could not be looked at.
const RETRY_MS: u64 = 5_000;
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
    /// Is there a filter?
    pub(crate) fn has_filter(&self) -> bool {
        self.filter.get().is_some()
    }

    /// Asks the filter about a message that was judged. One that was stored before passes: it is only being repeated.
    pub(crate) async fn check_content(&self, draft: &Draft) -> Result<(), Refusal> {
        let Some(filter) = self.filter.get() else {
            return Ok(());
        };
        let Some(text) = shown(draft.format, &draft.body) else {
            return Ok(());
        };
        let kind = match draft.kind {
            EntryKind::Edit => ContentKind::Edit,
            _ => ContentKind::Message,
        };
        let content = Content {
            cid: Some(draft.conversation),
            from: draft.from,
            mid: Some(&draft.mid),
            kind,
            text: &text,
        };
        let verdict = filter.judge(content).await;
        if matches!(verdict, Verdict::Allow | Verdict::Failed(Policy::Allow)) {
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
            Verdict::Allow | Verdict::Failed(Policy::Allow) => Ok(()),
            Verdict::Hold(reason) if self.may_be_held(draft).await? => {
                self.hold(draft, reason).await
            }
            Verdict::Failed(Policy::Hold) if self.may_be_held(draft).await? => {
                let reason = "it could not be looked at".to_owned();
                self.hold(draft, reason).await
            }
            Verdict::Hold(reason) | Verdict::Reject(reason) => Err(Refusal::Content(reason)),
            // That nobody could look at it says nothing about it.
            Verdict::Failed(_) => Err(Refusal::Rate { retry_ms: RETRY_MS }),
        }
    }

    /// Asks the filter about what others are shown of a user, or of a conversation. Nothing of that is held: it would have to be
    /// something meanwhile.
    pub(crate) async fn check_shown(
        &self,
        from: UserId,
        (kind, cid): (ContentKind, Option<ConversationId>),
        texts: &[&str],
    ) -> Result<(), Refusal> {
        let Some(filter) = self.filter.get() else {
            return Ok(());
        };
        let texts = texts.iter().copied().filter(|text| !text.is_empty());
        let text = texts.collect::<Vec<_>>().join("\n");
        if text.is_empty() {
            return Ok(());
        }
        let content = Content {
            cid,
            from,
            mid: None,
            kind,
            text: &text,
        };
        match filter.judge(content).await {
            Verdict::Allow | Verdict::Failed(Policy::Allow) => Ok(()),
            Verdict::Hold(reason) | Verdict::Reject(reason) => Err(Refusal::Content(reason)),
            Verdict::Failed(_) => Err(Refusal::Rate { retry_ms: RETRY_MS }),
        }
    }

    /// The same of a change of a conversation, which is only repeated if it was stored before.
    pub(super) async fn check_change(
        &self,
        request: &Request,
        id: ConversationId,
        texts: &[&str],
    ) -> Result<(), Refusal> {
        let about = (ContentKind::Conversation, Some(id));
        match self.check_shown(request.actor.user, about, texts).await {
            Err(refusal) if self.done_before(request, id).await?.is_none() => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Is there somebody else to decide on it, or is it held already? In direct conversations and of a broadcast list nobody
    /// moderates, and the agent of a case may leave at any time. And an edit has its place in the log already.
    async fn may_be_held(&self, draft: &Draft) -> Result<bool, StoreError> {
        let (id, from) = (draft.conversation, draft.from);
        let is_moderated = matches!(
            id.kind(),
            ConversationKind::Group | ConversationKind::Channel
        );
        if !is_moderated || draft.kind != EntryKind::Message {
            return Ok(false);
        }
        let live = self.conversations.load(id).await?;
        let members = live.map(|live| live.members()).unwrap_or_default();
        let decides = |(member, _): &(Member, Marks)| {
            let may = || allows(id.kind(), member, Action::DeleteOthers);
            member.user != from && member.is_present() && may()
        };
        if members.iter().any(decides) {
            return Ok(true);
        }
        let held = self.store.held_message(id, from, &draft.mid).await?;
        Ok(held.is_some())
    }

    async fn hold(&self, draft: &Draft, reason: String) -> Result<(), Refusal> {
        match self.store.hold(draft.clone(), reason).await? {
            Holding::Held => Err(Refusal::Held(draft.conversation)),
            Holding::Conflict => Err(Refusal::IdempotencyConflict),
            Holding::Full => Err(Refusal::Limit("too many messages wait for a moderator")),
            Holding::TooSoon { retry_ms } => Err(Refusal::Rate { retry_ms }),
        }
    }

    /// Messages that are held in a conversation, for its moderators: at most `limit` behind `after` and about so many bytes,
    /// but one at least, and whether there are more.
    ///
    /// # Errors
    /// Why not.
    pub async fn held(
        &self,
        actor: Actor,
        id: ConversationId,
        after: Option<(UserId, MessageId)>,
        (limit, bytes): (usize, usize),
    ) -> Result<(Vec<Held>, bool), Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        let size = (limit.clamp(1, HELD_PAGE_MAX), bytes);
        Ok(self.store.held(id, after, size).await?)
    }

    /// Lets a message that is held into the log, as its sender wrote it and if he may write there; not one's own. Done again
    /// it tells where it is.
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
            let Some(held) = self.store.held_message(id, from, mid).await? else {
                let before = self.store.place_of(id, from, mid).await?;
                let before = before.map(|place| Placed {
                    conversation: id,
                    seq: place.seq,
                    ts_ms: place.ts_ms,
                    duplicate: true,
                });
                return before.ok_or(NOT_HELD);
            };
            if from == actor.user {
                return Err(Refusal::Forbidden("nobody approves his own message"));
            }
            let _held = self.conversations.keep(&live, from).await?;
            let of_sender = live.sight(from).filter(|sight| sight.member.is_present());
            let of_sender =
                of_sender.ok_or(Refusal::Forbidden("its sender is not a member any more"))?;
            if !allows(id.kind(), &of_sender.member, Action::Send) {
                return Err(Refusal::Forbidden("its sender may not write here any more"));
            }
            permit(id, &of_sender, Action::Send)?;
            let mut draft = draft(held, Basis::Version(sight.version));
            draft.audit = actor.noted("mod.approve", (id, Some(from)), &json!({"mid": mid}));
            if draft.expires_ms.is_some_and(|at_ms| at_ms <= draft.ts_ms) {
                return Err(NOT_HELD);
            }
            let outcome = self.store.append(vec![draft.clone()]).await?.pop();
            match outcome.and_then(|outcome| placed(&draft, outcome)) {
                Some(result) => {
                    self.follow_own(&draft, outcome);
                    return result;
                }
                None => live.invalidate(),
            }
        }
        Err(Refusal::BUSY)
    }

    /// Ends the holding of a message, which nobody will see. Its sender is not told, and for 14 days gets the same answer when
    /// it comes again. Done again it changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if it is in the log; why not otherwise.
    pub async fn reject_held(
        &self,
        actor: Actor,
        id: ConversationId,
        (from, mid): (UserId, &MessageId),
    ) -> Result<(), Refusal> {
        let (_, sight) = self.present(actor.user, id).await?;
        permit(id, &sight, Action::DeleteOthers)?;
        let line = actor.noted("mod.reject", (id, Some(from)), &json!({"mid": mid}));
        if !self.store.reject_held(id, from, mid, line).await?
            && self.store.place_of(id, from, mid).await?.is_some()
        {
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

    /// Settles a report: only those who run the server see it from now on. Whoever made it is not told.
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
        let detail = json!({"id": key.to_string(), "seq": report.seq});
        let line = actor.noted("mod.settle", (id, Some(report.by)), &detail);
        if !self.is_for(actor.user, (&sight, id), &report).await?
            || !self.store.settle_report(key, line).await?
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
        if report.settled || report.conversation != id || !sight.member.sees(report.seq) {
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

pub(super) const NOT_HELD: Refusal = Refusal::NotFound(Cow::Borrowed("no such message is held"));

/// What people would be shown of a body: its text, and on further lines the names and answers in it. Nothing of an encrypted one but
/// what is beside it.
pub(crate) fn shown(format: BodyFormat, body: &[u8]) -> Option<Cow<'_, str>> {
    let text = || std::str::from_utf8(body).unwrap_or_default();
    let shown = match format {
        BodyFormat::Text => return Some(Cow::Borrowed(text())),
        BodyFormat::Json => EntryBody::Json(text()).shown()?,
        BodyFormat::Protobuf => EntryBody::Protobuf(body).shown()?,
    };
    let mut lines = super::looked_at(format, body).map_or_else(Vec::new, |body| body.names());
    if lines.is_empty() {
        return Some(shown);
    }
    lines.insert(0, shown.into_owned());
    Some(Cow::Owned(lines.join("\n")))
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
        was_held: true,
        act: None,
        exchange: None,
        changes: Vec::new(),
        audit: None,
    }
}
