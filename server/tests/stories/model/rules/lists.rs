//! Broadcast lists: one message becomes a direct one to each who is on the list.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Answer, Entry, Judged, Kind, Place, Role, User, World, act, system};
use crate::model::step::{History, Step, What};

impl World {
    /// What its owner changes of a broadcast list. Those to whom it goes come and go without a word.
    pub(super) fn change_list(&mut self, step: &Step, place: Place, change: &What) -> Judged {
        let list = &self.conversations[place];
        let is_listed = |user: &User| {
            let member = list.listed.get(user);
            member.is_some_and(super::Member::is_present)
        };
        let known = |user: &User| is_listed(user) || list.is_present(*user);
        match change {
            What::Add { users, role, .. } => {
                if *role != Role::Reader {
                    return Err("forbidden");
                }
                let coming: Vec<User> = users.iter().copied().filter(|user| !known(user)).collect();
                let seq = list.head();
                if coming.is_empty() {
                    return Ok(Answer::Placed { seq, dup: false });
                }
                let list = &mut self.conversations[place];
                for user in coming {
                    let member = list.listed.entry(user);
                    let new = || super::new_member(Role::Reader, seq + 1, seq + 1);
                    let member = member.and_modify(|member| member.join(seq + 1, seq + 1));
                    member.or_insert_with(new);
                }
                Ok(self.remember(step, place))
            }
            What::Remove { user, .. } if *user != step.by => {
                if !is_listed(user) {
                    return Err("not_found");
                }
                let list = &mut self.conversations[place];
                let at = list.head();
                list.listed.get_mut(user).unwrap().leave(at);
                Ok(self.remember(step, place))
            }
            // It is nobody else's.
            What::Leave { heir: Some(_), .. } => Err("forbidden"),
            What::Remove { .. } | What::Leave { .. } => {
                self.leave_at_next(place, step.by);
                let data = json!({"uid": step.by});
                Ok(self.push(step, place, system("left", data)))
            }
            What::Role { user, .. } if !known(user) => Err("not_found"),
            What::Unban { .. } => Err("not_found"),
            What::Settings { history, .. }
                if history.is_some_and(|history| history != History::Joined) =>
            {
                Err("format")
            }
            What::Settings { title, history, .. } => {
                let mut data = json!({});
                if let Some(title) = title {
                    title.clone_into(&mut self.conversations[place].title);
                    data["title"] = json!(title);
                }
                if let Some(history) = history {
                    data["history"] = history.in_json();
                }
                Ok(self.push(step, place, system("settings", data)))
            }
            _ => Err("forbidden"),
        }
    }

    /// The last message of a list goes to those who are on it.
    pub(super) fn broadcast(&mut self, place: Place) {
        let list = &self.conversations[place];
        let seq = list.head();
        let message = list.entry(seq).unwrap();
        let (from, text, format) = (message.from, message.text.clone(), message.format);
        let on_it = list.listed.iter().filter(|(_, member)| member.awaits(seq));
        let on_it: Vec<User> = on_it.map(|(user, _)| *user).collect();
        let mut copies = Vec::new();
        for user in on_it {
            let direct = self.direct_or_new(from, user);
            let copy = Entry {
                text: text.clone(),
                format,
                ..system("message", serde_json::Value::Null)
            };
            self.append(direct, from, copy);
            copies.push((user, direct, self.conversations[direct].head()));
            self.under_way.push((from, direct));
        }
        self.conversations[place].copies.insert(seq, copies);
    }

    /// What was deleted in a list is deleted in the direct conversations.
    pub(super) fn delete_copies(&mut self, place: Place, seq: u64) {
        let list = &self.conversations[place];
        let from = list.entry(seq).unwrap().from;
        let copies = list.copies.get(&seq).cloned().unwrap_or_default();
        for (_, direct, at) in copies {
            if self.conversations[direct].entry(at).unwrap().deleted {
                continue;
            }
            let deleted = act("deleted", at, json!({"target": at}));
            self.append(direct, from, deleted);
            self.make_deleted(direct, at);
            self.under_way.push((from, direct));
        }
    }

    /// Who of those to whom a message of a list went has it, and has read it; and to how many it was to go.
    pub(in crate::model) fn copies_status(
        &self,
        place: Place,
        seq: u64,
    ) -> (BTreeMap<User, (bool, bool)>, usize) {
        let list = &self.conversations[place];
        debug_assert_eq!(list.kind, Kind::Broadcast);
        let copies = list.copies.get(&seq).into_iter().flatten();
        let has = |(user, direct, at): &(User, Place, u64)| {
            let direct = &self.conversations[*direct];
            let marks = &direct.members[user].marks;
            let is_for_him = direct.entry(*at).unwrap().kept_from != Some(*user);
            let delivered = is_for_him && marks.shown_delivered() >= *at;
            (*user, (delivered, is_for_him && marks.read >= *at))
        };
        let awaiting = list.listed.values().filter(|member| member.awaits(seq));
        let has: BTreeMap<User, (bool, bool)> = copies.map(has).collect();
        let of = has.len().max(awaiting.count());
        (has, of)
    }
}
