//! Invitations, requests to join and bans: those that stand alone, and what an entry does to them.

use broker::store::kv::{KvEngine, Table};
use proto::ids::{ConversationId, InvitationId, UserId};

use super::super::values::joining::{self as values, InvitationRow};
use super::super::{joining, keys, reads};
use super::Writer;
use crate::domain::account::Subject;
use crate::domain::audit::AuditLine;
use crate::domain::conversation::Settings;
use crate::domain::entry::{Basis, Change, Draft, Outcome};
use crate::domain::joining::{CODES_MAX, INVITATIONS_MAX, Invitation, JoinRequest, Requested};
use crate::domain::search::words_of_conversation;
use crate::domain::support::Case;
use crate::store::{AskToJoin, StoreError, tables};

/// A row that changes: `None` removes it.
type Row = (Table, Vec<u8>, Option<Vec<u8>>);
/// Rows that an entry changes beside its own.
pub(super) type Rows = Vec<Row>;

fn case_key(id: ConversationId, case: &Case) -> Vec<u8> {
    keys::case(case.desk, case.state, case.since, id).to_vec()
}

impl<K: KvEngine> Writer<K> {
    /// Makes an invitation, or gives the one with this id another code. `false`: there are as many as there may be.
    pub(super) fn put_invitation(
        &mut self,
        invitation: Invitation,
        hash: [u8; 16],
    ) -> Result<bool, StoreError> {
        let (conversation, id) = (invitation.conversation, invitation.id);
        let key = keys::invitation(conversation, id);
        let row = self.row(tables::INVITATION, &key)?;
        let row = row.map(|row| values::read_invitation(conversation, id, &row));
        let mut row = match row.transpose()? {
            Some(row) if row.codes.len() >= CODES_MAX => return Ok(false),
            Some(row) => row,
            None if !self.has_room_for_invitation(&invitation)? => return Ok(false),
            None => InvitationRow {
                invitation,
                codes: Vec::new(),
            },
        };
        row.codes.push(hash);
        self.put(tables::INVITATION, &key, values::write_invitation(&row));
        let value = values::write_code(conversation, id).to_vec();
        self.put(tables::CODE, &hash, value);
        Ok(true)
    }

    /// Those that are worth nothing any more make room.
    fn has_room_for_invitation(&mut self, new: &Invitation) -> Result<bool, StoreError> {
        self.commit_so_far()?;
        let all = joining::invitations(self.engine(), new.conversation)?;
        if all.len() < INVITATIONS_MAX {
            return Ok(true);
        }
        let mut has_room = false;
        for row in all {
            if !row.invitation.is_open(new.created_ms) {
                self.remove_invitation(&row);
                has_room = true;
            }
        }
        Ok(has_room)
    }

    fn remove_invitation(&mut self, row: &InvitationRow) {
        let key = keys::invitation(row.invitation.conversation, row.invitation.id);
        self.remove(tables::INVITATION, &key);
        for code in &row.codes {
            self.remove(tables::CODE, code);
        }
    }

    /// Says whether there was one.
    pub(super) fn revoke_invitation(
        &mut self,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<bool, StoreError> {
        let row = self.row(tables::INVITATION, &keys::invitation(conversation, id))?;
        let Some(row) = row else {
            return Ok(false);
        };
        let row = values::read_invitation(conversation, id, &row)?;
        self.remove_invitation(&row);
        Ok(true)
    }

    /// Takes a request to join. One that waits already stays as it is, and uses no invitation up.
    pub(super) fn ask_to_join(&mut self, asked: &AskToJoin) -> Result<Requested, StoreError> {
        let JoinRequest {
            conversation, user, ..
        } = asked.request;
        let key = keys::member(conversation, user);
        if self.row(tables::BAN, &key)?.is_some() {
            return Ok(Requested::Banned);
        }
        if self.row(tables::JOIN_REQUEST, &key)?.is_some() {
            return Ok(Requested::Waits);
        }
        let member = self.member(conversation, user)?;
        if member.is_some_and(|member| member.is_present()) {
            return Ok(Requested::Member);
        }
        self.commit_so_far()?;
        let waiting = joining::requests(self.engine(), conversation, None, asked.limit)?;
        if waiting.len() >= asked.limit {
            return Ok(Requested::Full);
        }
        if let Some(hash) = asked.code {
            match self.use_code(conversation, hash, asked.request.ts_ms)? {
                Some(row) => self.write_rows(vec![row]),
                None => return Ok(Requested::Void),
            }
        }
        let value = values::write_join_request(&asked.request);
        self.put(tables::JOIN_REQUEST, &key, value);
        for user in &asked.tell {
            self.changed_for(*user, conversation)?;
        }
        Ok(Requested::Waits)
    }

    /// Says whether there was one.
    pub(super) fn drop_join_request(
        &mut self,
        (conversation, user): (ConversationId, UserId),
        tell: &[UserId],
        line: Option<&AuditLine>,
    ) -> Result<bool, StoreError> {
        let number = self.plan_audit(line)?;
        let key = keys::member(conversation, user);
        if self.row(tables::JOIN_REQUEST, &key)?.is_none() {
            return Ok(false);
        }
        self.write_audit(line, number);
        self.remove(tables::JOIN_REQUEST, &key);
        for user in tell {
            self.changed_for(*user, conversation)?;
        }
        Ok(true)
    }

    /// What a draft rests on beside the membership, and the rows that change with it. `Err`: it cannot be stored.
    pub(super) fn plan_joining(
        &mut self,
        draft: &Draft,
        creates: bool,
    ) -> Result<Result<Rows, Outcome>, StoreError> {
        let mut rows = Rows::new();
        if draft.basis == Basis::Create && !creates {
            return Ok(Ok(rows)); // its changes are not applied
        }
        let key = |user: &UserId| keys::member(draft.conversation, *user).to_vec();
        for change in &draft.changes {
            match change {
                Change::Join { user, .. } if !creates => {
                    if self.row(tables::BAN, &key(user))?.is_some() {
                        return Ok(Err(Outcome::Banned));
                    }
                    self.forget_request(key(user), &mut rows)?;
                }
                Change::Ban { user } => {
                    if self.stays(draft, *user)? {
                        return Ok(Err(Outcome::MembersMoved));
                    }
                    let value = values::write_ban(draft.from, draft.ts_ms);
                    rows.push((tables::BAN, key(user), Some(value)));
                    self.forget_request(key(user), &mut rows)?;
                }
                Change::Role { user, .. } | Change::Given { user, .. }
                    if !creates && !self.is_or_comes(draft, *user)? =>
                {
                    return Ok(Err(Outcome::MembersMoved)); // went silently, after it was judged
                }
                Change::Unban { user } => rows.push((tables::BAN, key(user), None)),
                Change::Invited { hash } => {
                    let used = self.use_code(draft.conversation, *hash, draft.ts_ms)?;
                    let Some(row) = used else {
                        return Ok(Err(Outcome::Void));
                    };
                    rows.push(row);
                }
                Change::Approved { user, role } => {
                    let row = self.row(tables::JOIN_REQUEST, &key(user))?;
                    let row =
                        row.map(|row| values::read_join_request(draft.conversation, *user, &row));
                    let asked = row.transpose()?;
                    if asked.is_none_or(|asked| asked.role != *role) {
                        return Ok(Err(Outcome::Void));
                    }
                }
                Change::Settings(settings) => {
                    let id = draft.conversation;
                    let known = self.conversation(id)?;
                    let known_settings = known.map(|known| known.settings);
                    let before = known_settings.as_ref().and_then(|settings| settings.case);
                    rows.extend(before.map(|case| (tables::CASE, case_key(id, &case), None)));
                    let after = settings.case.map(|case| {
                        let present = super::super::values::PRESENT.to_vec();
                        (tables::CASE, case_key(id, &case), Some(present))
                    });
                    rows.extend(after);
                    let about = Subject::Conversation(id);
                    let found_by = |settings: &Settings| words_of_conversation(id.kind(), settings);
                    let before = known_settings.as_deref().map(found_by).unwrap_or_default();
                    let after = found_by(settings);
                    for word in before.difference(&after) {
                        rows.push((tables::SEARCH, keys::search(word, about), None));
                    }
                    for word in after.difference(&before) {
                        let empty = super::super::values::EMPTY.to_vec();
                        rows.push((tables::SEARCH, keys::search(word, about), Some(empty)));
                    }
                }
                _ => {}
            }
        }
        Ok(Ok(rows))
    }

    /// Would a ban leave this user in, who came silently after it was judged?
    fn stays(&self, draft: &Draft, user: UserId) -> Result<bool, StoreError> {
        let is_his = |change: &Change| matches!(change, Change::Leave { user: of } if *of == user);
        Ok(!draft.changes.iter().any(is_his) && self.is_present(draft.conversation, user)?)
    }

    /// Is this user a member, or does he become one with this draft?
    fn is_or_comes(&self, draft: &Draft, user: UserId) -> Result<bool, StoreError> {
        let joins =
            |change: &Change| matches!(change, Change::Join { user: of, .. } if *of == user);
        Ok(draft.changes.iter().any(joins) || self.is_present(draft.conversation, user)?)
    }

    fn is_present(&self, id: ConversationId, user: UserId) -> Result<bool, StoreError> {
        let seat = self.seat(id, user)?;
        Ok(seat.is_some_and(|(member, _)| member.is_present()))
    }

    fn forget_request(&self, key: Vec<u8>, rows: &mut Rows) -> Result<(), StoreError> {
        if self.row(tables::JOIN_REQUEST, &key)?.is_some() {
            rows.push((tables::JOIN_REQUEST, key, None));
        }
        Ok(())
    }

    /// One more use of a code: the row of its invitation. `None`: it is worth nothing here.
    fn use_code(
        &self,
        conversation: ConversationId,
        hash: [u8; 16],
        now_ms: u64,
    ) -> Result<Option<Row>, StoreError> {
        let Some(row) = self.row(tables::CODE, &hash)? else {
            return Ok(None);
        };
        let (of, id) = values::read_code(&row)?;
        let key = keys::invitation(of, id);
        let row = self.row(tables::INVITATION, &key)?;
        let row = row.map(|row| values::read_invitation(of, id, &row));
        let Some(mut row) = row.transpose()? else {
            return Ok(None);
        };
        if of != conversation || !row.invitation.is_open(now_ms) {
            return Ok(None);
        }
        row.invitation.uses = row.invitation.uses.saturating_add(1);
        let value = values::write_invitation(&row);
        Ok(Some((tables::INVITATION, key.to_vec(), Some(value))))
    }

    pub(super) fn write_rows(&mut self, rows: Rows) {
        for (table, key, value) in rows {
            match value {
                Some(value) => self.put(table, &key, value),
                None => self.remove(table, &key),
            }
        }
    }

    /// How long the sender of a draft has still to wait after the last message, if so.
    pub(super) fn too_soon(&mut self, draft: &Draft) -> Result<Option<u64>, StoreError> {
        if draft.slow_ms == 0 {
            return Ok(None);
        }
        self.commit_so_far()?;
        let (conversation, from) = (draft.conversation, draft.from);
        let last = reads::own_before(self.engine(), conversation, from, proto::ids::Seq::MAX)?;
        let Some((seq, _)) = last else {
            return Ok(None);
        };
        let row = self.row(tables::MESSAGE, &keys::message(conversation, seq))?;
        let row = row.ok_or_else(|| reads::hole(conversation, seq))?;
        let last_ms = super::super::values::read_entry(conversation, seq, &row)?.ts_ms;
        // A clock that was far ahead and went back keeps nobody waiting until it is there again.
        let is_soon = draft.ts_ms.abs_diff(last_ms) < draft.slow_ms;
        let free_ms = last_ms.saturating_add(draft.slow_ms);
        Ok(is_soon.then(|| free_ms.saturating_sub(draft.ts_ms).clamp(1, draft.slow_ms)))
    }
}
