//! Finding users and public conversations by the beginning of a word, without a way to list them all: a few hits for each
//! question, of at least so many characters, and so many questions in a minute. Who does not want to be found is found by
//! the exact handle only. Who has blocked the one who asks is found like anybody: a block cannot be seen.

use std::collections::BTreeSet;

use proto::ids::{Handle, UserId};

use super::{Actor, Refusal, Service};
use crate::domain::account::Subject;
use crate::domain::conversation::Conversation;
use crate::domain::search::{words, words_of_conversation, words_of_user};
use crate::store::StoreError;

/// Hits in one reply.
pub const HITS_MAX: usize = 20;
/// Characters of the shortest beginning that is looked for.
const PREFIX_MIN: usize = 3;
/// Bytes of a question.
const QUESTION_MAX: usize = 256;
/// Words of a question that count.
const WORDS_MAX: usize = 8;
/// Candidates that are looked at for one question.
const CANDIDATES_MAX: usize = 128;

impl Service {
    /// Users whose handle, name and tags have words that begin like these; of `@handle`, who has exactly this one.
    ///
    /// # Errors
    /// [`Refusal::Format`] if it says too little or too much, [`Refusal::Rate`] if the actor asks too often.
    pub async fn search_users(
        &self,
        actor: Actor,
        question: &str,
        limit: usize,
    ) -> Result<Vec<UserId>, Refusal> {
        let limit = limit.clamp(1, HITS_MAX);
        let exact_only = question.starts_with('@');
        let asked = if exact_only {
            Vec::new()
        } else {
            prefixes(question)?
        };
        self.rates.searches.take(actor.user)?;
        let mut found = Vec::new();
        if let Ok(handle) = question.trim_start_matches('@').parse::<Handle>()
            && let Some(exact) = self.names.user(&handle).await?
            && exact != actor.user
        {
            found.push(exact);
        }
        let Some(longest) = asked.iter().max_by_key(|word| word.len()).cloned() else {
            return Ok(found);
        };
        let candidates = self.store.search(longest, true, CANDIDATES_MAX).await?;
        for candidate in candidates {
            if found.len() >= limit {
                break;
            }
            if let Subject::Person(user) = candidate
                && user != actor.user
                && !found.contains(&user)
                && self.matches(user, &asked).await?
            {
                found.push(user);
            }
        }
        Ok(found)
    }

    /// Public groups and channels whose titles and tags have words that begin like these, with the number of their members.
    /// Who is banned there does not find them.
    ///
    /// # Errors
    /// As [`Service::search_users`].
    pub async fn search_conversations(
        &self,
        actor: Actor,
        question: &str,
        limit: usize,
    ) -> Result<Vec<(Conversation, u64)>, Refusal> {
        let limit = limit.clamp(1, HITS_MAX);
        let asked = prefixes(question)?;
        self.rates.searches.take(actor.user)?;
        let longest = asked.iter().max_by_key(|word| word.len()).cloned();
        let longest = longest.unwrap_or_default();
        let candidates = self.store.search(longest, false, CANDIDATES_MAX).await?;
        let ids = candidates.into_iter().filter_map(Subject::conversation);
        let ids: Vec<_> = ids.collect();
        let mut found = Vec::new();
        for conversation in self.store.conversations(&ids).await?.into_iter().flatten() {
            if found.len() >= limit {
                break;
            }
            let id = conversation.id;
            let words = words_of_conversation(id.kind(), &conversation.settings);
            if begins(&words, &asked) && self.store.ban(id, actor.user).await?.is_none() {
                let live = self.conversations.load(id).await?;
                let members = live.map_or(0, |live| live.present().len() as u64);
                let readers = self.store.reader_count(id).await?;
                found.push((conversation, members + readers));
            }
        }
        Ok(found)
    }

    /// Has the user, as he is now, a word for each of these beginnings?
    async fn matches(&self, user: UserId, asked: &[String]) -> Result<bool, StoreError> {
        let Some(found) = self.store.user(user).await? else {
            return Ok(false);
        };
        let has = words_of_user(&found, &self.store.profile(user).await?);
        Ok(begins(&has, asked))
    }
}

/// Is there a word for each of these beginnings?
fn begins(words: &BTreeSet<String>, asked: &[String]) -> bool {
    let has = |prefix: &String| words.iter().any(|word| word.starts_with(prefix.as_str()));
    asked.iter().all(has)
}

/// What a question asks for: each word, or the beginning of a handle.
fn prefixes(question: &str) -> Result<Vec<String>, Refusal> {
    if question.len() > QUESTION_MAX {
        return Err(Refusal::format(format!(
            "a question has at most {QUESTION_MAX} bytes"
        )));
    }
    let asked: Vec<String> = words(question).take(WORDS_MAX).collect();
    if !asked.iter().any(|word| word.chars().count() >= PREFIX_MIN) {
        return Err(Refusal::format(format!(
            "a question has at least {PREFIX_MIN} characters of a word"
        )));
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_a_word_of_some_length() {
        assert_eq!(prefixes("Ann-Ma").unwrap(), ["ann", "ma"]);
        assert_eq!(prefixes("öls").unwrap(), ["öls"]);
        for bad in ["", "an", "@a.b-c", "  ,.", &"x".repeat(257)] {
            assert!(prefixes(bad).is_err(), "{bad:?}");
        }
    }
}
