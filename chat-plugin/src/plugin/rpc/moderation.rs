//! Calls of moderators: what is held or reported, and what becomes of it.

use proto::ids::{MessageId, Seq, UserId};
use proto::topics::Target;
use serde::{Deserialize, Serialize};

use super::wire::{Changed, Named, UserAsked};
use super::{LISTED_PER_TOKEN, room_of};
use crate::domain::held::Held;
use crate::domain::overlay::{BadReportKey, REPORT_BYTES_MAX, ReportKey};
use crate::plugin::ChatPlugin;
use crate::plugin::peer::Peer;
use crate::service::Refusal;
use crate::service::moderation::shown;

/// Bytes of messages in one page.
const PAGE_BYTES: usize = 128 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskHeld {
    cid: Target,
    next: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decide {
    cid: Target,
    from: UserAsked,
    mid: MessageId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settle {
    cid: Target,
    id: String,
}

#[derive(Serialize)]
pub(super) struct ReportList {
    reports: Vec<ListedReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct ListedReport {
    id: String,
    by: Named,
    seq: Seq,
    ts: u64,
    text: String,
}

#[derive(Serialize)]
pub(super) struct HeldPage {
    held: Vec<HeldMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct HeldMessage {
    from: Named,
    mid: MessageId,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<Seq>,
    text: String,
    reason: String,
}

impl ChatPlugin {
    pub(super) async fn mod_held(&self, peer: &Peer, asked: AskHeld) -> Result<HeldPage, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let after = asked.next.as_deref().map(position).transpose()?;
        let bytes = (room_of(peer) / 4).min(PAGE_BYTES);
        let size = (asked.limit.unwrap_or(50), bytes);
        let (found, more) = self.service.held(peer.actor, cid, after, size).await?;
        let mut held = Vec::with_capacity(found.len());
        for Held { entry, reason, .. } in found {
            let text = shown(entry.format, &entry.body).unwrap_or_default();
            held.push(HeldMessage {
                from: self.named(entry.from).await?,
                mid: entry.mid,
                ts: entry.ts_ms,
                reply_to: entry.target,
                thread: entry.thread,
                text: text.into_owned(),
                reason,
            });
        }
        Self::charge(peer, held.len() / LISTED_PER_TOKEN);
        let last = held.last().filter(|_| more);
        let next = last.map(|last: &HeldMessage| format!("{}:{}", last.from.uid, last.mid));
        Ok(HeldPage { held, next })
    }

    pub(super) async fn mod_approve(&self, peer: &Peer, asked: Decide) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let from = self.service.member_of(peer.actor, cid, &asked.from.0);
        let held = (from.await?, &asked.mid);
        let place = self.service.approve_held(peer.actor, cid, held).await?;
        Ok(Changed::from(place))
    }

    pub(super) async fn mod_reject(&self, peer: &Peer, asked: Decide) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let from = self.service.member_of(peer.actor, cid, &asked.from.0);
        let held = (from.await?, &asked.mid);
        self.service.reject_held(peer.actor, cid, held).await?;
        Ok(Changed::without_entry(cid))
    }
}

impl ChatPlugin {
    pub(super) async fn mod_reports(
        &self,
        peer: &Peer,
        asked: AskHeld,
    ) -> Result<ReportList, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let after = asked.next.as_deref().map(key).transpose()?;
        // All of them fit into a page of the smallest packet that holds one.
        let room = (room_of(peer) / 4).min(PAGE_BYTES) / REPORT_BYTES_MAX;
        let limit = asked.limit.unwrap_or(50).clamp(1, room.clamp(1, 100));
        let page = self.service.reports(peer.actor, cid, after, limit).await?;
        let mut reports = Vec::with_capacity(page.reports.len());
        for report in page.reports {
            reports.push(ListedReport {
                id: report.key().to_string(),
                by: self.named(report.by).await?,
                seq: report.seq,
                ts: report.ts_ms,
                text: report.text,
            });
        }
        Self::charge(peer, page.looked_at / LISTED_PER_TOKEN);
        let next = page.next.filter(|_| !page.is_last);
        Ok(ReportList {
            reports,
            next: next.map(|next| next.to_string()),
        })
    }

    pub(super) async fn mod_settle(&self, peer: &Peer, asked: Settle) -> Result<Changed, Refusal> {
        let cid = self.cid(peer, &asked.cid).await?;
        let key = key(&asked.id)?;
        self.service.settle_report(peer.actor, cid, &key).await?;
        Ok(Changed::without_entry(cid))
    }
}

fn key(text: &str) -> Result<ReportKey, Refusal> {
    let wrong = |error: BadReportKey| Refusal::format(error.to_string());
    text.parse().map_err(wrong)
}

fn position(next: &str) -> Result<(UserId, MessageId), Refusal> {
    let wrong = || Refusal::format("next must be what the page before said");
    let (from, mid) = next.split_once(':').ok_or_else(wrong)?;
    let from = from.parse().map_err(|_| wrong())?;
    Ok((from, mid.parse().map_err(|_| wrong())?))
}
