//! What one user wrote: handed out page by page, and made gone. For the user himself and for operators, also while no server
//! runs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use proto::ids::{ConversationId, ConversationKind, Handle, Seq, UserId};
use serde::Serialize;
use serde_json::json;

use crate::domain::member::Member;
use crate::domain::purge::Purge;
use crate::render::Line;
use crate::store::{ChatStore, StoreError};

/// Steps of a purge in one page of an erasure: some thousand entries.
const STEPS_PER_PAGE: usize = 16;
/// What a line of an export takes beside its body.
const LINE_BYTES: usize = 512;

/// How far an export or an erasure has got: `g.01jz…:17:3:120`, opaque to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The conversation that is being worked on, and the place in it; `None`: none yet.
    at: Option<(ConversationId, Seq)>,
    conversations: u64,
    messages: u64,
}

/// A `next` that no page has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("next must be what the page before said")]
pub struct BadProgress;

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            conversations,
            messages,
        } = self;
        match at {
            Some((id, seq)) => write!(f, "{id}:{seq}:{conversations}:{messages}"),
            None => write!(f, "::{conversations}:{messages}"),
        }
    }
}

impl FromStr for Progress {
    type Err = BadProgress;

    fn from_str(text: &str) -> Result<Self, BadProgress> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(BadProgress);
        let (id, seq) = (next()?, next()?);
        let at = if id.is_empty() {
            None
        } else {
            let id = id.parse().map_err(|_| BadProgress)?;
            let seq = seq.parse().map_err(|_| BadProgress)?;
            Some((id, Seq::new(seq)))
        };
        let number = |text: &str| text.parse().map_err(|_| BadProgress);
        let progress = Self {
            at,
            conversations: number(next()?)?,
            messages: number(next()?)?,
        };
        match parts.next() {
            None => Ok(progress),
            Some(_) => Err(BadProgress),
        }
    }
}

/// A page of an export: lines of JSON.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Each an object with a `type`: `profile`, `conversation`, `message`, at last `counts`.
    pub lines: Vec<String>,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<Progress>,
}

/// A page of what is known of a user and what he wrote: about so many bytes.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no such user; otherwise the store's.
pub async fn export(
    store: &dyn ChatStore,
    user: UserId,
    from: Progress,
    bytes: usize,
) -> Result<Export, StoreError> {
    let known = store.user(user).await?.ok_or(StoreError::NotFound)?;
    let mut page = Page::new(bytes);
    let mut at = from;
    if at.at.is_none() {
        let profile = store.profile(user).await?;
        page.push(&json!({
            "type": "profile", "uid": user, "handle": known.handle, "name": known.name,
            "created": known.created_ms, "profile": profile,
        }));
    }
    loop {
        if let Some((id, seq)) = at.at
            && !export_messages(store, (user, &known.handle), (id, seq), &mut at, &mut page).await?
        {
            return Ok(page.more(at));
        }
        let after = at.at.map(|(id, _)| id);
        let ids = store.conversations_of(user, after, 1).await?;
        let Some(id) = ids.first().copied() else {
            page.push(&json!({
                "type": "counts", "conversations": at.conversations, "messages": at.messages,
            }));
            return Ok(page.last());
        };
        if page.is_full() {
            return Ok(page.more(at));
        }
        at.conversations += 1;
        at.at = Some((id, Seq::ZERO));
        let told = conversation(store, user, id).await?;
        page.push(&told);
    }
}

/// Says whether it has come to the end of the conversation.
async fn export_messages(
    store: &dyn ChatStore,
    (user, handle): (UserId, &Handle),
    (id, mut seq): (ConversationId, Seq),
    at: &mut Progress,
    page: &mut Page,
) -> Result<bool, StoreError> {
    const LIMIT: usize = 256;
    loop {
        if page.is_full() {
            return Ok(false);
        }
        let found = store.written(id, user, seq, (LIMIT, page.left)).await?;
        let Some(last) = found.last() else {
            return Ok(true);
        };
        seq = last.seq;
        at.at = Some((id, seq));
        at.messages += found.len() as u64;
        for entry in found {
            let line = Line::new(Arc::new(entry), Some(handle.clone())).to_json(&[]);
            page.push_line(line.replacen('{', r#"{"type":"message","#, 1));
        }
    }
}

async fn conversation(
    store: &dyn ChatStore,
    user: UserId,
    id: ConversationId,
) -> Result<serde_json::Value, StoreError> {
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
    // What it is called now is not for those who left.
    if member.is_present()
        && id.kind() != ConversationKind::Direct
        && let Some(found) = store.conversations(&[id]).await?.pop().flatten()
    {
        fields.insert("title".into(), json!(found.settings.title));
    }
    Ok(told)
}

async fn member(
    store: &dyn ChatStore,
    user: UserId,
    id: ConversationId,
) -> Result<Option<Member>, StoreError> {
    let number = u128::from_be_bytes(*user.as_bytes());
    let before = number.checked_sub(1);
    let before = before.map(|number| UserId::from_bytes(number.to_be_bytes()));
    let found = store.members(id, before, 1).await?.pop();
    let found = found.filter(|(member, _)| member.user == user);
    let found = match found {
        None => store.readers_among(id, vec![user]).await?.pop(),
        found => found,
    };
    Ok(found.map(|(member, _)| member))
}

/// Lines up to about so many bytes.
struct Page {
    lines: Vec<String>,
    left: usize,
}

impl Page {
    fn new(bytes: usize) -> Self {
        Self {
            lines: Vec::new(),
            left: bytes,
        }
    }

    fn push(&mut self, line: &serde_json::Value) {
        self.push_line(line.to_string());
    }

    fn push_line(&mut self, line: String) {
        self.left = self.left.saturating_sub(line.len().max(LINE_BYTES));
        self.lines.push(line);
    }

    /// There is always room for one line.
    fn is_full(&self) -> bool {
        self.left < LINE_BYTES && !self.lines.is_empty()
    }

    fn more(self, at: Progress) -> Export {
        Export {
            lines: self.lines,
            next: Some(at),
        }
    }

    fn last(self) -> Export {
        Export {
            lines: self.lines,
            next: None,
        }
    }
}

/// A page of an erasure: what went with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Conversations that were looked through to their end.
    pub conversations: u64,
    /// Messages that are gone.
    pub messages: u64,
    /// Messages of others to which the user reacts no longer.
    pub reactions: u64,
    /// Where the next page begins; `None`: that was all.
    #[serde(skip)]
    pub next: Option<Progress>,
}

/// Makes gone what a user wrote, wherever he is or was a member, a page at a time: messages with their edits, reactions. The
/// places stay, and so does what he did to conversations (their titles, who joined). Done again it finds nothing.
///
/// # Errors
/// The store's.
pub async fn erase(
    store: &dyn ChatStore,
    user: UserId,
    from: Progress,
) -> Result<Erased, StoreError> {
    let mut erased = Erased::default();
    let mut steps = 0;
    let mut at = from.at;
    loop {
        if let Some((id, from)) = at {
            let mut purge = Purge::Traces { of: user, from };
            loop {
                let step = store.purge(id, purge).await?;
                erased.messages += step.messages;
                erased.reactions += step.reactions;
                steps += 1;
                let Some(next) = step.next else { break };
                if steps >= STEPS_PER_PAGE {
                    erased.next = Some(Progress {
                        at: Some((id, next)),
                        ..Progress::default()
                    });
                    return Ok(erased);
                }
                purge = purge.from(next);
            }
            erased.conversations += 1;
        }
        let after = at.map(|(id, _)| id);
        let ids = store.conversations_of(user, after, 1).await?;
        let Some(id) = ids.first().copied() else {
            return Ok(erased);
        };
        if steps >= STEPS_PER_PAGE {
            erased.next = Some(Progress {
                at: Some((id, Seq::ZERO)),
                ..Progress::default()
            });
            return Ok(erased);
        }
        at = Some((id, Seq::ZERO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_and_nonsense_does_not() {
        let id = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        for at in [None, Some((id, Seq::new(17)))] {
            let progress = Progress {
                at,
                conversations: 3,
                messages: 120,
            };
            assert_eq!(progress.to_string().parse(), Ok(progress));
        }
        for bad in ["", "x", "g.x:1:2:3", "::1", "::1:2:3", "::-1:2"] {
            assert_eq!(bad.parse::<Progress>(), Err(BadProgress), "{bad}");
        }
    }
}
