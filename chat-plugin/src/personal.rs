//! What one user wrote, and told of himself: handed out page by page, and made gone. For the user himself and for operators,
//! also while no server runs.

mod export;
mod progress;

use std::sync::Arc;

use proto::ids::{ConversationId, Seq, UserId};
use serde::Serialize;

pub use self::export::{Export, Size, export};
use self::progress::Stage;
pub use self::progress::{BadProgress, Progress};
use crate::domain::member::Member;
use crate::domain::purge::Purge;
use crate::render::Line;
use crate::store::{ChatStore, PageRange, StoreError};

/// Steps of a purge in one page of an erasure: some thousand entries.
const STEPS_PER_PAGE: usize = 16;

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The caller is not where he says.
    #[error(transparent)]
    Progress(#[from] BadProgress),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// Entries that were looked at.
    #[serde(skip)]
    pub looked_at: u64,
    /// Where the next page begins; `None`: that was all.
    #[serde(skip)]
    pub next: Option<Progress>,
}

/// Makes gone what a user wrote, wherever he is or was a member, a page at a time: messages with their edits, reactions. The
/// places stay, and so does what he did to conversations (their titles, who joined). Done again it finds nothing.
///
/// # Errors
/// [`BadProgress`], or the store's.
pub async fn erase(
    store: &dyn ChatStore,
    user: UserId,
    from: Progress,
) -> Result<Erased, PageError> {
    let mut erased = Erased::default();
    let mut steps = 0;
    let mut at = match from.stage {
        Stage::Messages(id, seq) => Some((id, seq)),
        _ => None,
    };
    if let Some((id, _)) = at {
        check(store, user, id).await?;
    }
    loop {
        if let Some((id, from)) = at {
            let mut purge = Purge::Traces { of: user, from };
            loop {
                let step = store.purge(id, purge).await?;
                erased.messages += step.messages;
                erased.reactions += step.reactions;
                erased.looked_at += step.looked_at;
                steps += 1;
                let Some(next) = step.next else { break };
                if steps >= STEPS_PER_PAGE {
                    erased.next = Some(Progress::at(Stage::Messages(id, next)));
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
            erased.next = Some(Progress::at(Stage::Messages(id, Seq::ZERO)));
            return Ok(erased);
        }
        at = Some((id, Seq::ZERO));
    }
}

/// A message as its conversation shows it now, if it is there; for operators.
///
/// # Errors
/// The store's.
pub async fn message(
    store: &dyn ChatStore,
    id: ConversationId,
    seq: Seq,
) -> Result<Option<String>, StoreError> {
    let range = PageRange {
        from: seq,
        to: seq,
        newest: false,
        limit: 1,
        bytes: 1,
        as_of: Seq::MAX,
    };
    let found = store.page(id, range).await?.pop();
    let found = found.filter(|entry| entry.gone.is_none());
    Ok(found.map(|entry| Line::new(Arc::new(entry), None).to_json(&[])))
}

/// Was this conversation ever the user's? Any other one is not told apart from none.
async fn check(store: &dyn ChatStore, user: UserId, id: ConversationId) -> Result<(), PageError> {
    match member(store, user, id).await? {
        Some(_) => Ok(()),
        None => Err(BadProgress.into()),
    }
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
