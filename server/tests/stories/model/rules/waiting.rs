//! Messages that wait: for a moderator, or for their time.

use super::{Answer, Entry, Judged, Place, Role, User, World, may_write};
use crate::model::step::{How, Step, To, Way, What};

/// A message that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::model) struct Scheduled {
    pub(in crate::model) to: To,
    pub(in crate::model) text: String,
    /// Its time has come before, and it was refused.
    pub(in crate::model) refused: Option<&'static str>,
}

impl Scheduled {
    /// What it becomes.
    fn step(&self, by: User, id: &str) -> Step {
        Step {
            by,
            way: Way::Call,
            id: Some(id.to_owned()),
            what: What::Send {
                to: self.to,
                how: How::Plain,
                text: self.text.clone(),
            },
        }
    }
}

impl World {
    // -- for a moderator

    /// Holds a message, or refuses it where there may be nobody to decide.
    pub(super) fn hold(&mut self, step: &Step, place: Place, mut entry: Entry) -> Judged {
        let conversation = &mut self.conversations[place];
        let id = step.id.clone().expect("what is doubtful has an id");
        let mut others = conversation.members.iter().filter(|(user, member)| {
            **user != step.by && member.role >= Role::Moderator && conversation.is_present(**user)
        });
        let is_held = conversation.held.contains_key(&(step.by, id.clone()));
        if !conversation.kind.holds() || (others.next().is_none() && !is_held) {
            return Err("forbidden");
        }
        entry.from = step.by;
        let held = conversation.held.entry((step.by, id));
        let (what, _) = held.or_insert_with(|| (step.what.clone(), entry));
        if *what != step.what {
            return Err("idempotency_conflict");
        }
        Ok(Answer::Done)
    }

    /// May this user decide on what is held?
    fn decides(&self, by: User, place: Place) -> Result<(), &'static str> {
        let conversation = &self.conversations[place];
        if !conversation.is_present(by) {
            return Err("not_found");
        }
        let role = conversation.members[&by].role;
        if !conversation.kind.is_moderated() || role < Role::Moderator {
            return Err("forbidden");
        }
        Ok(())
    }

    pub(super) fn approve(
        &mut self,
        by: User,
        place: Place,
        (from, id): (User, &String),
    ) -> Judged {
        self.decides(by, place)?;
        let conversation = &self.conversations[place];
        let key = (from, id.clone());
        let Some((what, entry)) = conversation.held.get(&key).cloned() else {
            let known = conversation.ids.get(&key);
            let dup = |(_, seq): &(What, u64)| Answer::Placed {
                seq: *seq,
                dup: true,
            };
            return known.map(dup).ok_or("not_found");
        };
        if from == by || !may_write(conversation, from) {
            return Err("forbidden"); // its sender, by now
        }
        self.conversations[place].held.remove(&key);
        self.conversations[place].approved.push(key);
        self.append(place, from, entry);
        let step = Step {
            by: from,
            way: Way::Call,
            id: Some(id.clone()),
            what,
        };
        Ok(self.remember(&step, place))
    }

    pub(super) fn reject(&mut self, by: User, place: Place, (from, id): (User, &String)) -> Judged {
        self.decides(by, place)?;
        let key = (from, id.clone());
        let conversation = &mut self.conversations[place];
        let was_held = conversation.held.remove(&key).is_some();
        if !was_held && conversation.ids.contains_key(&key) {
            return Err("not_found"); // it is in the log
        }
        Ok(Answer::Done)
    }

    /// What a moderator is told of what is held.
    pub(in crate::model) fn held_for(
        &self,
        by: User,
        place: Place,
    ) -> Result<Vec<(User, String, String)>, &'static str> {
        self.decides(by, place)?;
        let held = self.conversations[place].held.iter();
        let told = |((from, id), (_, entry)): (&(User, String), &(What, Entry))| {
            (*from, id.clone(), entry.text.clone())
        };
        Ok(held.map(told).collect())
    }

    // -- for their time

    pub(super) fn schedule(&mut self, by: User, (to, text): (To, &str), id: &str) -> Judged {
        let new = Scheduled {
            to,
            text: text.to_owned(),
            refused: None,
        };
        let step = new.step(by, id);
        if let Some(place) = self.place_of(&step) {
            if let Some(answer) = self.repeated(place, &step) {
                return answer; // it was sent
            }
            let conversation = &self.conversations[place];
            if !conversation.members.contains_key(&by) {
                return Err("not_found");
            }
            if !may_write(conversation, by) {
                return Err("forbidden");
            }
        }
        let waiting = self.scheduled.entry((by, id.to_owned()));
        let waiting = waiting.or_insert_with(|| new.clone());
        if (waiting.to, &waiting.text, waiting.refused) != (new.to, &new.text, None) {
            return Err("idempotency_conflict");
        }
        Ok(Answer::Done)
    }

    pub(super) fn reschedule(&mut self, by: User, id: &str, text: &str) -> Judged {
        let waiting = self.scheduled.get_mut(&(by, id.to_owned()));
        let waiting = waiting.ok_or("not_found")?;
        text.clone_into(&mut waiting.text);
        if waiting.refused.is_some() {
            return self.send_now(by, id); // its time has come long ago
        }
        Ok(Answer::Done)
    }

    pub(super) fn send_now(&mut self, by: User, id: &str) -> Judged {
        let key = (by, id.to_owned());
        let waiting = self.scheduled.get(&key).cloned().ok_or("not_found")?;
        match self.judge(&waiting.step(by, id), "") {
            Ok(_) => {
                self.scheduled.remove(&key);
            }
            Err(refused) => self.scheduled.get_mut(&key).unwrap().refused = Some(refused),
        }
        Ok(Answer::Done)
    }

    pub(super) fn cancel(&mut self, by: User, id: &str) -> Answer {
        self.scheduled.remove(&(by, id.to_owned()));
        Answer::Done
    }
}
