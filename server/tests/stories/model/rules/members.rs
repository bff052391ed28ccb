//! Who is in a conversation, as what, and what it is.

use serde_json::json;

use super::{
    Answer, Conversation, Judged, Kind, Member, Place, Role, User, World, listed, new_member,
    system,
};
use crate::model::step::{History, Step, What};

impl World {
    pub(super) fn create(&mut self, step: &Step, cid: &str) -> Answer {
        let What::Create {
            kind,
            desk,
            public,
            title,
            history,
            members,
        } = &step.what
        else {
            unreachable!("asked for before")
        };
        let all: Vec<(User, Role)> = std::iter::once((step.by, Role::Owner))
            .chain(members.iter().copied())
            .collect();
        let mut made = Conversation::new(cid.to_owned(), *kind);
        (made.desk, made.public, made.history) = (*desk, *public, *history);
        made.is_large = *kind == Kind::Channel && self.channels_are_large;
        title.clone_into(&mut made.title);
        self.conversations.push(made);
        let place = self.conversations.len() - 1;
        self.join_with(place, &all, 1);
        let data = json!({"title": title, "members": listed(*kind, &all)});
        self.push(step, place, system("created", data))
    }

    pub(super) fn change(&mut self, step: &Step, place: Place, change: &What) -> Judged {
        let conversation = &self.conversations[place];
        let own = &conversation.members[&step.by];
        if !own.is_present() {
            return Err("not_found");
        }
        let (role, kind) = (own.role, conversation.kind);
        if kind == Kind::Broadcast {
            return self.change_list(step, place, change);
        }
        let is_group = kind.has_admins();
        let is_admin = is_group && role >= Role::Admin;
        let theirs = |user: &User| {
            let member = conversation.members.get(user);
            let present = member.filter(|member| member.is_present());
            present.map(|member| member.role).ok_or("not_found")
        };
        let owners = |except: User| {
            let others = conversation.present().filter(move |user| *user != except);
            others.filter(|user| conversation.members[user].role == Role::Owner)
        };
        let entry = match change {
            What::Add {
                users, role: given, ..
            } => {
                if !is_admin || *given >= role {
                    return Err("forbidden");
                }
                let coming: Vec<(User, Role)> = users
                    .iter()
                    .filter(|user| !conversation.is_present(**user))
                    .map(|user| (*user, *given))
                    .collect();
                if coming.is_empty() {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                if coming
                    .iter()
                    .any(|(user, _)| conversation.banned.contains(user))
                {
                    return Err("forbidden");
                }
                let is_silent = coming.iter().all(|(user, role)| {
                    kind.has_many(*role) && conversation.comes_without_a_word(*user)
                });
                self.join(place, &coming);
                if is_silent {
                    return Ok(self.remember(step, place));
                }
                system("added", json!({"members": listed(kind, &coming)}))
            }
            What::Remove { user, .. } if *user != step.by => {
                let theirs = theirs(user)?;
                if !is_admin || theirs >= role {
                    return Err("forbidden");
                }
                if self.part(place, *user) {
                    return Ok(self.remember(step, place));
                }
                system("removed", json!({"uid": user}))
            }
            What::Remove { .. } | What::Leave { .. } => {
                if !is_group {
                    return Err("forbidden");
                }
                let heir = match change {
                    What::Leave { heir, .. } => heir.filter(|heir| *heir != step.by),
                    _ => None,
                };
                let others = conversation.present().any(|user| user != step.by);
                let is_last_owner = role == Role::Owner && owners(step.by).next().is_none();
                let mut data = json!({"uid": step.by});
                if is_last_owner && others {
                    let heir = heir.ok_or("last_owner")?;
                    theirs(&heir)?;
                    data["owner"] = json!(heir);
                    self.set_role(place, heir, Role::Owner);
                }
                if self.part(place, step.by) {
                    return Ok(self.remember(step, place));
                }
                system("left", data)
            }
            What::Role {
                user, role: given, ..
            } => {
                let theirs = theirs(user)?;
                let may = role == Role::Owner || (is_admin && theirs < role && *given < role);
                if !is_group || !may {
                    return Err("forbidden");
                }
                if theirs == *given {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                if theirs == Role::Owner && owners(*user).next().is_none() {
                    return Err("last_owner");
                }
                self.set_role(place, *user, *given);
                self.changed[*user].insert(place); // also who is a reader now
                system("role", json!({"uid": user, "role": given.name()}))
            }
            What::Transfer { user, .. } => {
                if !is_group || role != Role::Owner {
                    return Err("forbidden");
                }
                theirs(user)?;
                if *user == step.by {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                self.set_role(place, step.by, Role::Admin);
                self.set_role(place, *user, Role::Owner);
                system(
                    "role",
                    json!({"uid": user, "role": "owner", "former": step.by}),
                )
            }
            What::Ban { user, .. } => {
                let theirs = theirs(user);
                if !is_admin || theirs.unwrap_or(Role::Reader) >= role {
                    return Err("forbidden");
                }
                if conversation.banned.contains(user) {
                    let seq = conversation.head();
                    return Ok(Answer::Placed { seq, dup: false });
                }
                self.conversations[place].banned.insert(*user);
                if theirs.is_ok() {
                    self.leave_at_next(place, *user);
                }
                system("banned", json!({"uid": user}))
            }
            What::Unban { user, .. } => {
                if !is_admin {
                    return Err("forbidden");
                }
                if !self.conversations[place].banned.remove(user) {
                    return Err("not_found");
                }
                system("unbanned", json!({"uid": user}))
            }
            What::Settings { title, history, .. } => {
                if !is_admin {
                    return Err("forbidden");
                }
                let conversation = &mut self.conversations[place];
                let mut data = json!({});
                if let Some(title) = title {
                    title.clone_into(&mut conversation.title);
                    data["title"] = json!(title);
                }
                if let Some(history) = history {
                    conversation.history = *history;
                    data["history"] = history.in_json();
                }
                system("settings", data)
            }
            _ => unreachable!("no change of members: {change:?}"),
        };
        let answer = self.push(step, place, entry);
        self.release_cases(place);
        Ok(answer)
    }

    /// By himself, into what is public.
    pub(super) fn join_alone(&mut self, step: &Step, place: Place) -> Judged {
        let conversation = &self.conversations[place];
        if conversation.is_present(step.by) {
            let seq = conversation.head();
            return Ok(Answer::Placed { seq, dup: false });
        }
        let kind = conversation.kind;
        if !conversation.public || !kind.has_admins() {
            return Err("not_found");
        }
        if conversation.banned.contains(&step.by) {
            return Err("forbidden");
        }
        let role = match kind {
            Kind::Channel => Role::Reader,
            _ => Role::Member,
        };
        let before = conversation.members.get(&step.by);
        let role = before.map_or(role, |before| before.role.min(role)); // no more than he had
        let is_silent = kind.has_many(role) && conversation.comes_without_a_word(step.by);
        self.join(place, &[(step.by, role)]);
        if is_silent {
            return Ok(self.remember(step, place));
        }
        let data = json!({"uid": step.by, "role": role.name(), "via": "open"});
        Ok(self.push(step, place, system("joined", data)))
    }

    pub(super) fn member(&mut self, place: Place, user: User) -> &mut Member {
        self.conversations[place].members.get_mut(&user).unwrap()
    }

    fn set_role(&mut self, place: Place, user: User, role: Role) {
        if role != Role::Reader {
            self.conversations[place].comes_from_now_on(user);
        }
        self.member(place, user).role = role;
    }

    /// Those join with the next entry, and see of the time before it what the policy of the moment grants.
    fn join(&mut self, place: Place, coming: &[(User, Role)]) {
        let conversation = &self.conversations[place];
        let at = conversation.head() + 1;
        let from = match conversation.history {
            History::All => 1,
            History::Joined => at,
            History::Last(count) => at.saturating_sub(count).max(1),
        };
        self.join_with(place, coming, from);
    }

    fn join_with(&mut self, place: Place, coming: &[(User, Role)], from: u64) {
        let conversation = &mut self.conversations[place];
        let at = conversation.head() + 1;
        let is_list = conversation.kind == Kind::Broadcast;
        for (user, role) in coming {
            let is_listed = is_list && *role == Role::Reader;
            let members = if is_listed {
                &mut conversation.listed
            } else {
                &mut conversation.members
            };
            match members.get_mut(user) {
                Some(member) => {
                    member.role = *role;
                    member.join(from, at);
                }
                None => {
                    members.insert(*user, new_member(*role, from, at));
                }
            }
            if !is_listed {
                self.changed[*user].insert(place);
            }
        }
    }

    /// One leaves. A reader of a channel does so without a word, all others by the next entry, which is the last one that they
    /// see.
    fn part(&mut self, place: Place, user: User) -> bool {
        let conversation = &self.conversations[place];
        let is_silent = conversation.is_many(user);
        if is_silent {
            let at = conversation.head();
            self.leave_at(place, user, at);
        } else {
            self.leave_at_next(place, user);
        }
        is_silent
    }

    /// The next entry is the last one that one sees.
    pub(super) fn leave_at_next(&mut self, place: Place, user: User) {
        let at = self.conversations[place].head() + 1;
        self.leave_at(place, user, at);
    }

    fn leave_at(&mut self, place: Place, user: User, at: u64) {
        let is_many = self.conversations[place].is_many(user);
        let member = self.member(place, user);
        member.leave(at);
        if is_many {
            member.forgone = at;
        }
        self.changed[user].insert(place);
    }
}

impl Conversation {
    /// Who was more than a reader when he left comes back with an entry.
    fn comes_without_a_word(&self, user: User) -> bool {
        let before = self.members.get(&user);
        before.is_none_or(|before| self.kind.has_many(before.role))
    }
}
