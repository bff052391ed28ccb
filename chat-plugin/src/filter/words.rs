//! A list of words: one word or phrase on each line, `#` begins a comment.
//!
//! Whole words are compared, without regard to case, accents that stand by themselves, and characters that nobody sees.
//! Whatever is neither letter nor digit separates words, so that `bad-word` is the phrase `bad word`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;

use super::{Content, ContentFilter, Policy, Verdict};

/// Bytes of a list.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Words and phrases, by their first word.
#[derive(Debug, Default)]
pub struct WordList {
    phrases: HashMap<String, Vec<Vec<String>>>,
    count: usize,
}

impl WordList {
    /// Reads a list.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = words(line);
            let Some(first) = words.next() else { continue };
            list.phrases.entry(first).or_default().push(words.collect());
            list.count += 1;
        }
        list
    }

    /// Number of words and phrases.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Is any of them in a text?
    pub fn finds(&self, text: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let words: Vec<String> = words(text).collect();
        let mut rest = words.as_slice();
        while let Some((word, behind)) = rest.split_first() {
            let phrases = self.phrases.get(word);
            if phrases.is_some_and(|phrases| phrases.iter().any(|more| behind.starts_with(more))) {
                return true;
            }
            rest = behind;
        }
        false
    }
}

/// The words of a text, folded.
fn words(text: &str) -> impl Iterator<Item = String> {
    let seen = text.chars().filter(|c| !is_unseen(*c));
    let folded: String = seen.flat_map(fold).collect();
    let words: Vec<String> = folded
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.into_iter()
}

/// Upper case first, so that `ß` and `SS`, `ς` and `Σ` become the same.
fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// Marks that combine with the letter before them, and characters without width.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}')
}

/// A list that can be replaced, and what is done with what it finds.
#[derive(Debug)]
pub struct WordFilter {
    list: RwLock<Arc<WordList>>,
    policy: Policy,
}

impl WordFilter {
    /// A filter with this list.
    pub fn new(list: WordList, policy: Policy) -> Self {
        Self {
            list: RwLock::new(Arc::new(list)),
            policy,
        }
    }

    /// From now on with another list.
    pub fn replace(&self, list: WordList) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }
}

#[async_trait]
impl ContentFilter for WordFilter {
    async fn judge(&self, content: Content<'_>) -> Verdict {
        let list = Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner));
        if list.finds(content.text) {
            return self
                .policy
                .verdict("it holds a word that is not allowed here");
        }
        Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::super::ContentKind;
    use super::*;

    #[test]
    fn whole_words_are_found_whatever_their_case() {
        let list = WordList::parse(
            "# words\nviagra\nStraße # a street\nΟΔΥΣΣΕΥΣ\nvery bad thing\n\n  \nпривет",
        );
        assert_eq!(list.len(), 5);
        for found in [
            "buy VIAGRA!",
            "(viagra)",
            "STRASSE",
            "die straße.",
            "οδυσσευς ist da",
            "a Very-BAD\nthing",
            "ПРИВЕТ",
            "vi\u{200B}agra",
            "viagra\u{301}",
        ] {
            assert!(list.finds(found), "{found}");
        }
        for not_found in ["viagras", "very bad", "a bad thing", "strass", "", "…"] {
            assert!(!list.finds(not_found), "{not_found}");
        }
        assert!(!WordList::default().finds("viagra"));
    }

    #[tokio::test]
    async fn a_list_is_replaced_while_it_is_used() {
        let filter = WordFilter::new(WordList::parse("one"), Policy::Reject);
        let asked = |text| Content {
            cid: None,
            from: proto::ids::UserId::from_bytes([1; 16]),
            mid: None,
            kind: ContentKind::Profile,
            text,
        };
        assert!(matches!(
            filter.judge(asked("one")).await,
            Verdict::Reject(_)
        ));
        filter.replace(WordList::parse("two"));
        assert_eq!(filter.judge(asked("one")).await, Verdict::Allow);
        assert!(matches!(
            filter.judge(asked("two")).await,
            Verdict::Reject(_)
        ));
    }
}
