//! How far users have got, and what they have decided for themselves.

use super::{Answer, Judged, Place, User, World};

impl World {
    pub(super) fn read(
        &mut self,
        by: User,
        place: Place,
        (seq, private): (Option<u64>, bool),
    ) -> Judged {
        let conversation = &mut self.conversations[place];
        let last = conversation.last_visible(by);
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        let seq = seq.unwrap_or_else(|| marks.shown_delivered().min(last));
        if seq > last {
            return Err("format");
        }
        let before = (marks.read, marks.own_read(), marks.unread_flag);
        let told = if private {
            0
        } else {
            conversation.told_mark(by, (before.0, seq))
        };
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        marks.read = told.max(marks.read);
        if told < seq {
            marks.private_read = seq.max(marks.private_read);
        }
        marks.unread_flag = false;
        if before != (marks.read, marks.own_read(), marks.unread_flag) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    pub(super) fn flag(&mut self, by: User, place: Place, flag: bool) -> Answer {
        let member = self.conversations[place].members.get_mut(&by).unwrap();
        if std::mem::replace(&mut member.marks.unread_flag, flag) != flag {
            self.own_change(by, place);
        }
        Answer::Done
    }

    pub(super) fn received(&mut self, by: User, place: Place, seq: u64) -> Judged {
        let conversation = &mut self.conversations[place];
        if seq > conversation.last_visible(by) {
            return Err("format");
        }
        conversation.received(by, seq);
        let marks = &mut conversation.members.get_mut(&by).unwrap().marks;
        marks.delivered_for_certain = marks.delivered_for_certain.max(marks.delivered.0);
        Ok(Answer::Done)
    }

    pub(super) fn prefer(
        &mut self,
        by: User,
        place: Place,
        [muted, archived, on_top, watch]: [Option<bool>; 4],
    ) -> Judged {
        if !self.conversations[place].is_present(by) {
            return Err("not_found");
        }
        if watch == Some(true) && self.conversations[place].is_only_looked_at(by) {
            self.conversations[place].comes_from_now_on(by);
        }
        let member = self.conversations[place].members.get_mut(&by).unwrap();
        let marks = &mut member.marks;
        let before = (marks.muted, marks.archived, marks.on_top, marks.watch);
        marks.muted = muted.unwrap_or(marks.muted);
        marks.archived = archived.unwrap_or(marks.archived);
        marks.on_top = on_top.unwrap_or(marks.on_top);
        marks.watch = watch.unwrap_or(marks.watch);
        if before != (marks.muted, marks.archived, marks.on_top, marks.watch) {
            self.own_change(by, place);
        }
        Ok(Answer::Done)
    }

    pub(super) fn block(&mut self, by: User, user: User, on: bool) -> Judged {
        if user == by {
            return Err("format");
        }
        if on {
            self.blocks.insert((by, user));
        } else {
            self.blocks.remove(&(by, user));
        }
        if let Some(place) = self.direct(by, user) {
            self.member(place, by).marks.blocks = on;
        }
        Ok(Answer::Done)
    }
}
