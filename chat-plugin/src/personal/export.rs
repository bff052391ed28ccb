//! An export: what is known of a user, and what he wrote, as lines of JSON.

use std::sync::Arc;

use proto::ids::{ConversationId, ConversationKind, Handle, Seq, UserId};
use serde_json::{Value, json};

use super::progress::{Progress, Stage};
use super::{PageError, check, member};
use crate::domain::audit::AuditLog;
use crate::domain::contact::ContactList;
use crate::domain::entry::{BodyFormat, Entry};
use crate::domain::overlay::{Report, ReportKey};
use crate::domain::scheduled::Scheduled;
use crate::domain::user::User;
use crate::render::Line;
use crate::store::{ChatStore, StoreError};

/// Rows that one read brings.
const ROWS: usize = 256;
/// Rows that are looked at for one page, and somewhat more.
const LOOKED_AT_MAX: u64 = 8_192;
/// Messages that a user has scheduled.
const SCHEDULED_MAX: usize = 1_000;

/// A page of an export.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Each an object with a `type`: `profile`, `conversation`, `message` …, at last `counts`.
    pub lines: Vec<String>,
    /// Rows that were looked at.
    pub looked_at: u64,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<Progress>,
}

/// How large a page may be, in bytes of JSON strings.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// All lines, if there is more than one.
    pub page: usize,
    /// One line. Of a longer one only its place is told.
    pub line: usize,
}

/// A page of what is known of a user and what he wrote. It may be empty and not the last one.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such user; [`super::BadProgress`]; otherwise the store's.
pub async fn export(
    store: &dyn ChatStore,
    user: UserId,
    from: Progress,
    size: Size,
) -> Result<Export, PageError> {
    let known = store.user(user).await?.ok_or(StoreError::NotFound)?;
    if let Stage::Held(id, _) | Stage::Messages(id, _) = from.stage {
        check(store, user, id).await?;
    }
    let mut exporter = Exporter {
        store,
        user: known,
        at: from,
        page: Page::new(size),
    };
    let is_all = exporter.fill().await?;
    let Exporter { at, page, .. } = exporter;
    Ok(Export {
        lines: page.lines,
        looked_at: page.looked_at,
        next: (!is_all).then_some(at),
    })
}

struct Exporter<'a> {
    store: &'a dyn ChatStore,
    user: User,
    at: Progress,
    page: Page,
}

impl Exporter<'_> {
    /// Says whether that was all.
    async fn fill(&mut self) -> Result<bool, StoreError> {
        while self.page.looked_at < LOOKED_AT_MAX {
            let goes_on = match self.at.stage {
                Stage::Account(told) => self.account(told).await?,
                Stage::Contacts(after) => self.people(ContactList::Contacts, after).await?,
                Stage::Blocked(after) => self.people(ContactList::Blocked, after).await?,
                Stage::Reports(told) => self.reports(told).await?,
                Stage::Moderated(before) => self.moderated(before).await?,
                Stage::Held(id, told) => self.held(id, told).await?,
                Stage::Messages(id, after) => self.messages(id, after).await?,
                Stage::Conversation(after) => match self.next_conversation(after).await? {
                    Some(goes_on) => goes_on,
                    None => return Ok(self.page.push(&self.counts())),
                },
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn counts(&self) -> Value {
        let Progress {
            conversations,
            messages,
            ..
        } = self.at;
        json!({"type": "counts", "conversations": conversations, "messages": messages})
    }

    /// Each of these says whether the page has room for more; where it goes on is noted.
    async fn account(&mut self, told: u64) -> Result<bool, StoreError> {
        let lines = self.account_lines().await?;
        self.page.looked_at += lines.len() as u64;
        for (number, line) in (1..)
            .zip(lines)
            .skip(usize::try_from(told).unwrap_or(usize::MAX))
        {
            if !self.page.push(&line) {
                return Ok(false);
            }
            self.at.stage = Stage::Account(number);
        }
        self.at.stage = Stage::Contacts(None);
        Ok(true)
    }

    /// As many as one user may have devices, tokens and scheduled messages.
    async fn account_lines(&self) -> Result<Vec<Value>, StoreError> {
        let (store, user) = (self.store, &self.user);
        let profile = store.profile(user.id).await?;
        let presence = store.presence(user.id).await?;
        let mut lines = vec![
            json!({
                "type": "profile", "uid": user.id, "handle": user.handle, "name": user.name,
                "created": user.created_ms, "profile": profile,
            }),
            json!({
                "type": "presence", "state": presence.choice.state, "text": presence.choice.text,
                "seen": presence.seen_ms,
            }),
        ];
        for device in store.devices(user.id).await? {
            lines.push(json!({
                "type": "device", "id": device.id.to_string(), "client_id": device.client_id,
                "first_seen": device.first_seen_ms, "last_seen": device.last_seen_ms,
            }));
        }
        for token in store.tokens(user.id).await? {
            lines.push(json!({
                "type": "token", "id": token.id, "label": token.label, "created": token.created_ms,
            }));
        }
        let waiting = store.scheduled(user.id, None, SCHEDULED_MAX).await?;
        lines.extend(waiting.iter().map(scheduled));
        Ok(lines)
    }

    async fn people(
        &mut self,
        list: ContactList,
        after: Option<UserId>,
    ) -> Result<bool, StoreError> {
        let found = self.store.contacts(self.user.id, list, after, ROWS);
        let found = found.await?;
        self.page.looked_at += found.len() as u64;
        let is_last = found.len() < ROWS;
        for contact in found {
            let line = json!({
                "type": "contact", "uid": contact.other, "called": contact.called,
                "added": contact.added_ms, "blocked": contact.blocked_ms,
            });
            let is_told_before = list == ContactList::Blocked && contact.is_contact();
            if !is_told_before && !self.page.push(&line) {
                return Ok(false);
            }
            self.at.stage = match list {
                ContactList::Contacts => Stage::Contacts(Some(contact.other)),
                ContactList::Blocked => Stage::Blocked(Some(contact.other)),
            };
        }
        if is_last {
            self.at.stage = match list {
                ContactList::Contacts => Stage::Blocked(None),
                ContactList::Blocked => Stage::Reports(0),
            };
        }
        Ok(true)
    }

    async fn reports(&mut self, told: u64) -> Result<bool, StoreError> {
        let mut last: Option<ReportKey> = None;
        let mut number = 0;
        loop {
            let found = self.store.reports(last.as_ref(), ROWS).await?;
            self.page.looked_at += found.len() as u64;
            for report in found.iter().filter(|report| report.by == self.user.id) {
                number += 1;
                if number <= told {
                    continue;
                }
                let line = json!({
                    "type": "report", "cid": report.conversation, "seq": report.seq,
                    "ts": report.ts_ms, "text": report.text,
                });
                if !self.page.push(&line) {
                    return Ok(false);
                }
                self.at.stage = Stage::Reports(number);
            }
            if found.len() < ROWS {
                self.at.stage = Stage::Moderated(None);
                return Ok(true);
            }
            last = found.last().map(Report::key);
        }
    }

    /// What the audit log says of what the user did.
    async fn moderated(&mut self, before: Option<u64>) -> Result<bool, StoreError> {
        let log = AuditLog::Moderators;
        let found = self.store.audited(log, before, ROWS).await?;
        self.page.looked_at += found.len() as u64;
        let is_last = found.len() < ROWS;
        for (number, line) in found {
            if line.is_by(self.user.id) {
                let line = json!({
                    "type": "moderated", "action": line.action, "ts": line.ts_ms, "from": line.from,
                    "cid": line.conversation, "about": line.about, "detail": line.details(),
                });
                if !self.page.push(&line) {
                    return Ok(false);
                }
            }
            self.at.stage = Stage::Moderated(Some(number));
        }
        if is_last {
            self.at.stage = Stage::Conversation(None);
        }
        Ok(true)
    }

    /// `None`: there is none.
    async fn next_conversation(
        &mut self,
        after: Option<ConversationId>,
    ) -> Result<Option<bool>, StoreError> {
        let user = self.user.id;
        let ids = self.store.conversations_of(user, after, 1).await?;
        let Some(id) = ids.first().copied() else {
            return Ok(None);
        };
        self.page.looked_at += 1;
        let told = conversation(self.store, user, id).await?;
        let is_told = self.page.push(&told);
        if is_told {
            self.at.conversations += 1;
            self.at.stage = Stage::Held(id, 0);
        }
        Ok(Some(is_told))
    }

    async fn held(&mut self, id: ConversationId, told: u64) -> Result<bool, StoreError> {
        let mut after = None;
        let mut number = 0;
        loop {
            let size = (ROWS, self.page.left);
            let (found, more) = self.store.held(id, after, size).await?;
            self.page.looked_at += found.len() as u64;
            let is_last = !more;
            let last = found.last();
            after = last.map(|last| (last.entry.from, last.entry.mid.clone()));
            for held in found {
                if held.entry.from != self.user.id {
                    continue;
                }
                number += 1;
                if number <= told {
                    continue;
                }
                if !self.page.push_line("held", held.entry, &self.user.handle) {
                    return Ok(false);
                }
                self.at.stage = Stage::Held(id, number);
            }
            if is_last {
                self.at.stage = Stage::Messages(id, Seq::ZERO);
                return Ok(true);
            }
        }
    }

    async fn messages(&mut self, id: ConversationId, after: Seq) -> Result<bool, StoreError> {
        let size = (ROWS, self.page.left);
        let found = self.store.written(id, self.user.id, after, size).await?;
        self.page.looked_at += found.looked_at as u64;
        for entry in found.entries {
            let seq = entry.seq;
            if !self.page.push_line("message", entry, &self.user.handle) {
                return Ok(false);
            }
            self.at.messages += 1;
            self.at.stage = Stage::Messages(id, seq);
        }
        self.at.stage = match found.next {
            Some(seq) => Stage::Messages(id, seq),
            None => Stage::Conversation(Some(id)),
        };
        Ok(true)
    }
}

async fn conversation(
    store: &dyn ChatStore,
    user: UserId,
    id: ConversationId,
) -> Result<Value, StoreError> {
    let mut told = json!({"type": "conversation", "cid": id, "kind": id.kind()});
    let Some(fields) = told.as_object_mut() else {
        return Ok(told);
    };
    let Some(member) = member(store, user, id).await? else {
        return Ok(told);
    };
    fields.insert("role".into(), json!(member.role));
    fields.insert("joined".into(), json!(member.joined));
    fields.insert("member".into(), json!(member.is_present()));
    if let Some(preferences) = store.preferences(user, vec![id]).await?.pop() {
        fields.insert("muted_until".into(), json!(preferences.muted_until));
        fields.insert("archived".into(), json!(preferences.archived));
        fields.insert("pinned".into(), json!(preferences.pinned));
    }
    // What it is called now is not for those who left.
    if member.is_present()
        && id.kind() != ConversationKind::Direct
        && let Some(found) = store.conversations(&[id]).await?.pop().flatten()
    {
        fields.insert("title".into(), json!(found.settings.title));
    }
    Ok(told)
}

fn scheduled(scheduled: &Scheduled) -> Value {
    let mut line = json!({
        "type": "scheduled", "cid": scheduled.conversation, "mid": scheduled.mid,
        "at": scheduled.at_ms,
    });
    let body = String::from_utf8_lossy(&scheduled.body).into_owned();
    let (name, body) = match scheduled.format {
        BodyFormat::Text => ("t", Value::String(body)),
        BodyFormat::Json => (
            "m",
            serde_json::from_str(&body).unwrap_or(Value::String(body)),
        ),
        BodyFormat::Protobuf => {
            let json = proto::payload::json_of(&scheduled.body);
            (
                "m",
                serde_json::from_str(&json).unwrap_or(Value::String(json)),
            )
        }
    };
    if let Some(fields) = line.as_object_mut() {
        fields.insert(name.to_owned(), body);
    }
    line
}

/// Lines up to about so many bytes.
struct Page {
    lines: Vec<String>,
    left: usize,
    line: usize,
    looked_at: u64,
}

impl Page {
    fn new(size: Size) -> Self {
        Self {
            lines: Vec::new(),
            left: size.page,
            line: size.line,
            looked_at: 0,
        }
    }

    /// `false`: it is to be the first one of the next page.
    fn push(&mut self, line: &Value) -> bool {
        let text = line.to_string();
        self.push_or(text, |bytes| {
            json!({"type": "too_large", "of": line.get("type"), "cid": line.get("cid"),
                "seq": line.get("seq"), "bytes": bytes})
        })
    }

    /// The same with a message.
    fn push_line(&mut self, kind: &str, entry: Entry, handle: &Handle) -> bool {
        let place = (entry.conversation, entry.seq, entry.mid.clone());
        let line = Line::new(Arc::new(entry), Some(handle.clone())).to_json(&[]);
        let line = line.replacen('{', &format!(r#"{{"type":"{kind}","#), 1);
        self.push_or(line, |bytes| {
            let (cid, seq, mid) = place;
            json!({"type": "too_large", "of": kind, "cid": cid, "seq": seq, "mid": mid,
                "bytes": bytes})
        })
    }

    /// A line that no page has room for is told by this in its place.
    fn push_or(&mut self, line: String, told: impl FnOnce(usize) -> Value) -> bool {
        let mut line = line;
        let mut bytes = escaped(&line);
        if bytes > self.line {
            line = told(line.len()).to_string();
            bytes = escaped(&line);
        }
        if bytes > self.left && !self.lines.is_empty() {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.lines.push(line);
        true
    }
}

/// Bytes of a line as a string in JSON, with what stands between two of them.
fn escaped(line: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | 0x09 | 0x0A | 0x0C | 0x0D => 1,
        0x00..=0x1F => 5,
        _ => 0,
    };
    line.len() + line.bytes().map(more).sum::<usize>() + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_long_as_it_is_escaped() {
        for line in [
            "",
            "plain",
            "\"quoted\" and \\",
            "\n\t\u{1}\u{7f}",
            "grüße 👍",
        ] {
            let json = serde_json::to_string(line).unwrap();
            assert_eq!(escaped(line), json.len() + 1, "{line:?}");
        }
    }

    #[test]
    fn a_page_takes_one_line_at_least_and_no_line_that_is_too_long() {
        let line = |text: &str| json!({"type": "x", "cid": "g.1", "text": text});
        let mut page = Page::new(Size {
            page: 60,
            line: 200,
        });
        let long = line(&"y".repeat(100));
        assert!(page.push(&long), "alone it is as long as a line may be");
        assert!(!page.push(&line("")));
        let mut page = Page::new(Size {
            page: 400,
            line: 200,
        });
        assert!(page.push(&line(&"y".repeat(300))));
        let told: Value = serde_json::from_str(&page.lines[0]).unwrap();
        assert_eq!(
            (&told["type"], &told["of"]),
            (&json!("too_large"), &json!("x"))
        );
        assert_eq!(told["cid"], "g.1");
        assert!(page.push(&line("")));
    }
}
