//! Support cases: queued, claimed by an agent of the desk, closed; the next word of the visitor queues them again.

use serde_json::{Value, json};

use super::{
    Answer, Conversation, Judged, Kind, Place, Role, User, World, may_write, new_member, system,
};

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Case {
    pub(in crate::model) desk: Place,
    pub(in crate::model) visitor: User,
    pub(in crate::model) state: &'static str,
    pub(in crate::model) agent: Option<User>,
}

impl World {
    /// The case of a user at a desk.
    fn case_of(&self, visitor: User, desk: Place) -> Option<Place> {
        let is_it = |case: Case| case.visitor == visitor && case.desk == desk;
        let mut all = self.conversations.iter();
        all.position(|one| one.case.is_some_and(is_it))
    }

    pub(super) fn open_case(&mut self, by: User, desk: Place, cid: &str) -> Judged {
        let opened = Answer::Placed { seq: 1, dup: false };
        if self.case_of(by, desk).is_some() {
            return Ok(opened);
        }
        if !self.conversations[desk].desk {
            return Err("not_found");
        }
        if self.conversations[desk].banned.contains(&by) {
            return Err("forbidden");
        }
        let mut made = Conversation::new(cid.to_owned(), Kind::Case);
        "a case".clone_into(&mut made.title);
        made.members.insert(by, new_member(Role::Member, 1, 1));
        made.case = Some(Case {
            desk,
            visitor: by,
            state: "queued",
            agent: None,
        });
        self.conversations.push(made);
        let data = json!({
            "title": "a case",
            "members": [{"uid": by, "role": "member"}],
            "case_of": self.conversations[desk].cid,
            "state": "queued",
        });
        let place = self.conversations.len() - 1;
        self.append(place, by, system("created", data));
        self.tell_desk(desk);
        Ok(opened)
    }

    pub(super) fn claim(&mut self, by: User, place: Place) -> Judged {
        let case = self.case_for_agent(by, place)?;
        match (case.state, case.agent) {
            ("queued", _) if case.visitor == by => Err("forbidden"),
            ("queued", _) => {
                let data = json!({"state": "claimed", "agent": by});
                Ok(self.move_case(place, by, ("claimed", Some(by)), data))
            }
            ("claimed", Some(agent)) if agent == by => Ok(self.unmoved(place)),
            _ => Err("conflict"),
        }
    }

    pub(super) fn hand_on(&mut self, by: User, place: Place, to: Option<User>) -> Judged {
        let case = self.case_for_agent(by, place)?;
        let desk = &self.conversations[case.desk];
        if to.is_some_and(|to| !is_agent(desk, to)) {
            return Err("not_found");
        }
        if case.agent != Some(by) && desk.members[&by].role < Role::Admin {
            return Err("forbidden");
        }
        if case.state != "claimed" {
            return Err("conflict");
        }
        if to == Some(case.visitor) {
            return Err("forbidden");
        }
        if to == case.agent {
            return Ok(self.unmoved(place));
        }
        let (state, data) = match to {
            Some(to) => (
                "claimed",
                json!({"state": "transferred", "agent": to, "former": case.agent}),
            ),
            None => ("queued", json!({"state": "queued", "former": case.agent})),
        };
        Ok(self.move_case(place, by, (state, to), data))
    }

    pub(super) fn close_case(&mut self, by: User, place: Place) -> Judged {
        let case = self.conversations[place].case.ok_or("not_found")?;
        if case.visitor != by {
            self.case_for_agent(by, place)?;
        }
        if case.state == "closed" {
            return Ok(self.unmoved(place));
        }
        let desk = &self.conversations[case.desk];
        let is_head = is_agent(desk, by) && desk.members[&by].role >= Role::Admin;
        if case.visitor != by && case.agent != Some(by) && !is_head {
            return Err("forbidden");
        }
        let data = match case.agent {
            Some(former) => json!({"state": "closed", "former": former}),
            None => json!({"state": "closed"}),
        };
        Ok(self.move_case(place, by, ("closed", None), data))
    }

    /// The visitor of a closed case says something more.
    pub(super) fn reopen(&mut self, by: User, place: Place) -> Result<(), &'static str> {
        let case = self.conversations[place].case;
        if let Some(case) = case.filter(|case| case.state == "closed" && case.visitor == by) {
            if self.conversations[case.desk].banned.contains(&by) {
                return Err("forbidden");
            }
            self.move_case(place, by, ("queued", None), json!({"state": "queued"}));
        }
        Ok(())
    }

    /// What those had who do not answer at this desk any more goes back to the queue.
    pub(super) fn release_cases(&mut self, desk: Place) {
        for place in 0..self.conversations.len() {
            let case = self.conversations[place].case;
            let case = case.filter(|case| case.desk == desk);
            let Some(agent) = case.and_then(|case| case.agent) else {
                continue;
            };
            if !is_agent(&self.conversations[desk], agent) {
                let data = json!({"state": "queued", "former": agent});
                self.move_case(place, agent, ("queued", None), data);
            }
        }
    }

    /// Cases of a desk that stand there, as its agents are told.
    pub(in crate::model) fn queue(&self, desk: Place, state: &str) -> Vec<(String, Option<User>)> {
        let told = |one: &Conversation| {
            let case = one
                .case
                .filter(|case| case.desk == desk && case.state == state)?;
            Some((one.cid.clone(), case.agent))
        };
        self.conversations.iter().filter_map(told).collect()
    }

    pub(in crate::model) fn answers_at(&self, user: User, desk: Place) -> bool {
        is_agent(&self.conversations[desk], user)
    }

    /// Whoever is not of the desk does not learn that there is such a case.
    fn case_for_agent(&self, by: User, place: Place) -> Result<Case, &'static str> {
        let case = self.conversations[place].case.ok_or("not_found")?;
        let desk = &self.conversations[case.desk];
        if !desk.is_present(by) {
            return Err("not_found");
        }
        if !may_write(desk, by) {
            return Err("forbidden");
        }
        Ok(case)
    }

    fn unmoved(&self, place: Place) -> Answer {
        let seq = self.conversations[place].head();
        Answer::Placed { seq, dup: false }
    }

    fn move_case(
        &mut self,
        place: Place,
        by: User,
        (state, agent): (&'static str, Option<User>),
        data: Value,
    ) -> Answer {
        let conversation = &mut self.conversations[place];
        let at = conversation.head() + 1;
        let case = conversation.case.as_mut().unwrap();
        let (desk, before) = (case.desk, case.agent);
        (case.state, case.agent) = (state, agent);
        if let Some(before) = before.filter(|before| agent != Some(*before)) {
            self.leave_at_next(place, before);
        }
        if let Some(agent) = agent {
            let members = &mut self.conversations[place].members;
            let member = members.entry(agent).and_modify(|member| {
                member.role = Role::Moderator;
                member.join(1, at);
            });
            member.or_insert_with(|| new_member(Role::Moderator, 1, at));
        }
        self.append(place, by, system("case", data));
        self.tell_desk(desk);
        self.unmoved(place)
    }

    /// The queue looks different for all who answer there.
    fn tell_desk(&mut self, desk: Place) {
        let conversation = &self.conversations[desk];
        for user in conversation
            .present()
            .filter(|user| is_agent(conversation, *user))
        {
            self.changed[user].insert(desk);
        }
    }
}

fn is_agent(desk: &Conversation, user: User) -> bool {
    desk.members.contains_key(&user) && may_write(desk, user)
}
