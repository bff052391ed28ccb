//! What keys mean at the moment: writing, selecting, or something that lies over the screen.

use client_sdk::{SearchCursor, Seq, Target};
use crossterm::event::KeyEvent;

use crate::compose::Compose;
use crate::effect::{Effect, Hit};
use crate::items::{NOTE, Row};
use crate::text::Shown;

/// What keys mean.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Write.
    Write,
    /// Wait for a conversation that was asked for; keys wait with it.
    Going(String, Vec<KeyEvent>),
    /// Do something to a message.
    Select,
    /// Answer a question.
    Prompt(Prompt),
    /// Choose a conversation.
    Switch(Switch),
    /// Search.
    Search(Search),
    /// Read.
    Told(Told),
    /// Yes or no.
    Confirm(Confirm),
}

/// A question, and what is written as the answer.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) kind: PromptKind,
    pub(crate) field: Compose,
}

/// Which question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptKind {
    /// How a new group is called.
    GroupTitle,
    /// Who is in it.
    GroupMembers(String),
    /// How to react to this message.
    React(Seq),
}

/// Reactions that have a number.
pub(crate) const REACTIONS: [&str; 6] = ["👍", "❤️", "😂", "😮", "😢", "🙏"];

impl Prompt {
    pub(crate) fn new(kind: PromptKind) -> Self {
        let field = Compose::default();
        Self { kind, field }
    }

    /// The question.
    pub(crate) fn question(&self) -> String {
        match &self.kind {
            PromptKind::GroupTitle => "Title of the new group".to_owned(),
            PromptKind::GroupMembers(_) => "Members: @bob @carol (Tab completes)".to_owned(),
            PromptKind::React(_) => {
                let numbered = REACTIONS.iter().enumerate();
                let numbered: Vec<_> = numbered
                    .map(|(index, emoji)| format!("{} {emoji}", index + 1))
                    .collect();
                format!("React: {} or any emoji; - takes back", numbered.join("  "))
            }
        }
    }
}

/// A conversation is chosen by parts of its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    pub(crate) field: Compose,
    pub(crate) at: usize,
}

/// Something that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) title: Shown,
    /// The conversation, or what it would have to be called.
    pub(crate) target: Result<Target, String>,
}

impl Switch {
    /// What there is to be chosen, the unread ones first, then a new conversation.
    pub(crate) fn choices(&self, rows: &[Row]) -> Vec<Choice> {
        let words = self.field.text().to_lowercase();
        let words: Vec<_> = words.split_whitespace().collect();
        let matching = rows.iter().filter(|row| {
            let title = row.title.as_str().to_lowercase();
            words.iter().all(|word| title.contains(word))
        });
        let mut matching: Vec<_> = matching.collect();
        matching.sort_by_key(|row| !row.is_unread());
        let mut choices: Vec<_> = matching
            .into_iter()
            .map(|row| Choice {
                title: row.title.clone(),
                target: Ok(row.target.clone()),
            })
            .collect();
        if words == ["me"] && !rows.iter().any(|row| row.is_note) {
            choices.push(Choice {
                title: Shown::line(NOTE),
                target: Ok(Target::Me),
            });
        }
        let whom = self.field.text().trim().trim_start_matches('@');
        let is_known = rows.iter().any(|row| row.peer.as_deref() == Some(whom));
        if !whom.is_empty() && !is_known && format!("@{whom}").parse::<Target>().is_ok() {
            choices.push(Choice {
                title: Shown::line(&format!("write to @{whom}")),
                target: Err(format!("@{whom}")),
            });
        }
        choices
    }
}

/// A search, and what was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    pub(crate) field: Compose,
    pub(crate) hits: Vec<Hit>,
    pub(crate) at: usize,
    /// What was searched for last.
    pub(crate) searched: Option<String>,
    /// Only in the conversation that is open.
    pub(crate) is_here: bool,
    pub(crate) is_busy: bool,
    /// Which search it is: answers to others are no answers.
    number: u64,
    after: Option<SearchCursor>,
}

/// Messages that are kept of a search.
const HITS_MAX: usize = 500;

impl Search {
    /// Searches, or goes on.
    pub(crate) fn go(&mut self, open: Option<&Target>, next: &mut u64) -> Option<Effect> {
        let words = self.field.text().trim().to_owned();
        let is_other = self.searched.as_ref() != Some(&words);
        if words.is_empty() || (self.is_busy && !is_other) {
            return None;
        }
        *next += 1;
        self.number = *next;
        if self.searched.as_ref() != Some(&words) {
            (self.hits, self.at, self.after) = (Vec::new(), 0, None);
            self.searched = Some(words.clone());
        } else if self.after.is_none() || self.hits.len() >= HITS_MAX {
            return None;
        }
        self.is_busy = true;
        let within = open.filter(|_| self.is_here).cloned();
        Some(Effect::Find(self.number, words, within, self.after))
    }

    pub(crate) fn take(&mut self, search: u64, hits: Vec<Hit>, after: Option<SearchCursor>) {
        if !self.fail(search) {
            return;
        }
        self.hits.extend(hits);
        self.after = after;
    }

    /// Nothing comes any more of this search. Whether it is the present one.
    pub(crate) fn fail(&mut self, search: u64) -> bool {
        let is_it = self.is_busy && self.number == search;
        self.is_busy &= !is_it;
        is_it
    }

    /// There may be more.
    pub(crate) fn has_more(&self) -> bool {
        self.after.is_some() && self.hits.len() < HITS_MAX
    }
}

/// Lines to be read.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) title: Shown,
    pub(crate) lines: Vec<Shown>,
    pub(crate) from: usize,
}

impl Told {
    pub(crate) fn new(title: Shown, lines: Vec<Shown>) -> Self {
        let from = 0;
        Self { title, lines, from }
    }
}

/// What is done after a yes.
#[derive(Clone, Debug)]
pub(crate) struct Confirm {
    pub(crate) question: Shown,
    pub(crate) effect: Effect,
}
