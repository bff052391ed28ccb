//! What members do to messages that are there.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    Answer, DOUBTFUL, EDITS_MAX, EMOJI_MAX, Entry, Judged, Kind, Place, Role, User, World, act,
    may_react, may_write, written,
};
use crate::model::step::Step;

impl World {
    /// The message on which a present member acts.
    pub(super) fn acted_on(
        &self,
        by: User,
        place: Place,
        seq: u64,
    ) -> Result<&Entry, &'static str> {
        let conversation = &self.conversations[place];
        let found = conversation.message(by, seq);
        found
            .filter(|_| conversation.is_present(by))
            .ok_or("not_found")
    }

    pub(super) fn edit(&mut self, step: &Step, place: Place, (seq, text): (u64, &str)) -> Judged {
        let message = self.acted_on(step.by, place, seq)?;
        let conversation = &self.conversations[place];
        let is_of_list = conversation.kind == Kind::Broadcast;
        let may = message.from == step.by && may_write(conversation, step.by) && !is_of_list;
        if !may || text.contains(DOUBTFUL) {
            return Err("forbidden"); // an edit is not held
        }
        if message.edits.len() >= EDITS_MAX {
            return Err("limit");
        }
        let mut entry = written("edit", step, text);
        entry.target = Some(seq);
        let answer = self.push(step, place, entry);
        let conversation = &mut self.conversations[place];
        let head = conversation.head();
        conversation.entry_mut(seq).unwrap().edits.push(head);
        Ok(answer)
    }

    pub(super) fn delete(&mut self, step: &Step, place: Place, seq: u64) -> Judged {
        let conversation = &self.conversations[place];
        let member = &conversation.members[&step.by];
        let message = conversation
            .there(step.by, seq)
            .filter(|entry| entry.kind == "message" && member.is_present())
            .ok_or("not_found")?;
        let moderates = conversation.kind.is_moderated() && member.role >= Role::Moderator;
        if message.from != step.by && !moderates {
            return Err("forbidden");
        }
        if message.deleted {
            return Ok(Answer::Done);
        }
        let answer = self.push(step, place, act("deleted", seq, json!({"target": seq})));
        self.make_deleted(place, seq);
        self.delete_copies(place, seq);
        Ok(answer)
    }

    pub(super) fn make_deleted(&mut self, place: Place, seq: u64) {
        let conversation = &mut self.conversations[place];
        let edits = conversation.entry(seq).unwrap().edits.clone();
        for gone in edits.into_iter().chain([seq]) {
            let entry = conversation.entry_mut(gone).unwrap();
            entry.deleted = true;
            entry.reactions.clear();
            entry.pinned_by = None;
        }
    }

    /// Any entry can be hidden, by former members as well.
    pub(super) fn hide(&mut self, by: User, place: Place, seq: u64) -> Judged {
        let conversation = &mut self.conversations[place];
        conversation.there(by, seq).ok_or("not_found")?;
        let entry = conversation.entry_mut(seq).unwrap();
        if !entry.deleted && entry.hidden_from.insert(by) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    pub(super) fn react(
        &mut self,
        step: &Step,
        place: Place,
        seq: u64,
        (emoji, add): (Option<&str>, bool),
    ) -> Judged {
        let by = step.by;
        let message = self.acted_on(by, place, seq)?;
        if !may_react(&self.conversations[place], by) {
            return Err("forbidden");
        }
        let own: Vec<&str> = message
            .reactions
            .iter()
            .filter(|(_, users)| users.contains(&by))
            .map(|(emoji, _)| emoji.as_str())
            .collect();
        let data = match emoji {
            Some(emoji) if add && own.contains(&emoji) => return Ok(Answer::Done),
            Some(_) if add && own.len() >= EMOJI_MAX => return Err("limit"),
            Some(emoji) if add => json!({"target": seq, "emoji": emoji, "op": "add"}),
            Some(emoji) if !own.contains(&emoji) => return Ok(Answer::Done),
            Some(emoji) => json!({"target": seq, "emoji": emoji, "op": "remove"}),
            None if own.is_empty() => return Ok(Answer::Done),
            None => json!({"target": seq, "op": "clear"}),
        };
        let answer = self.push(step, place, act("reaction", seq, data));
        let message = self.conversations[place].entry_mut(seq).unwrap();
        if let Some(emoji) = emoji.filter(|_| add) {
            let reactions = &mut message.reactions;
            match reactions.iter_mut().find(|(known, _)| known == emoji) {
                Some((_, users)) => {
                    users.insert(by);
                }
                None => reactions.push((emoji.to_owned(), BTreeSet::from([by]))),
            }
        } else {
            for (known, users) in &mut message.reactions {
                if emoji.is_none_or(|emoji| emoji == known) {
                    users.remove(&by);
                }
            }
            message.reactions.retain(|(_, users)| !users.is_empty());
        }
        Ok(answer)
    }

    pub(super) fn pin(&mut self, step: &Step, place: Place, (seq, on): (u64, bool)) -> Judged {
        let message = self.acted_on(step.by, place, seq)?;
        let conversation = &self.conversations[place];
        let moderates = conversation.kind.is_moderated()
            && conversation.members[&step.by].role >= Role::Moderator;
        if !conversation.is_direct() && !moderates {
            return Err("forbidden");
        }
        if message.pinned_by.is_some() == on {
            return Ok(Answer::Done);
        }
        let data = json!({"target": seq, "pinned": on});
        let answer = self.push(step, place, act("pin", seq, data));
        let message = self.conversations[place].entry_mut(seq).unwrap();
        message.pinned_by = on.then_some(step.by);
        Ok(answer)
    }
}
