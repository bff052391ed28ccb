//! Keys of rows, as `docs/storage.md` draws them.

use proto::ids::{
    ConversationId, ConversationKind, DeviceId, InvitationId, MessageId, Seq, UserId,
};

use crate::domain::account::Subject;
use crate::domain::audit::AuditLog;
use crate::domain::overlay::ReportKey;
use crate::domain::support::CaseState;

/// Bytes of a conversation id in keys and values: kind and 16 bytes.
pub(super) const CID_BYTES: usize = 17;

/// `cid[17]`.
pub(super) fn cid(conversation: ConversationId) -> [u8; CID_BYTES] {
    join(&[&[conversation.kind().to_byte()], conversation.as_bytes()])
}

/// Reads `cid[17]`.
pub(super) fn read_cid(bytes: &[u8]) -> Option<ConversationId> {
    let (kind, rest) = bytes.split_first()?;
    let kind = ConversationKind::from_byte(*kind)?;
    Some(ConversationId::from_parts(kind, rest.try_into().ok()?))
}

/// `cid[17] seq[8]`: tables message, overlay, pin and broadcast.
pub(super) fn message(conversation: ConversationId, seq: Seq) -> [u8; 25] {
    join(&[&cid(conversation), &seq.get().to_be_bytes()])
}

/// `state[1] cid[17] seq[8]`: table purge. Those under way come first.
pub(super) fn purge(is_done: bool, conversation: ConversationId, seq: Seq) -> [u8; 26] {
    join(&[&[u8::from(is_done)], &message(conversation, seq)])
}

/// `cid[17] uid[16]`: tables member, reader, marks, clean, join request and ban.
pub(super) fn member(conversation: ConversationId, user: UserId) -> [u8; 33] {
    join(&[&cid(conversation), user.as_bytes()])
}

/// `desk[17] state[1] since[6] cid[17]`: table case.
pub(super) fn case(
    desk: ConversationId,
    state: CaseState,
    since_ms: u64,
    conversation: ConversationId,
) -> [u8; 41] {
    join(&[
        &cid(desk),
        &[state.to_byte()],
        &short_time(since_ms),
        &cid(conversation),
    ])
}

/// `cid[17] id[16]`: table invitation.
pub(super) fn invitation(conversation: ConversationId, id: InvitationId) -> [u8; 33] {
    join(&[&cid(conversation), id.as_bytes()])
}

/// `uid[16] cid[17]`: tables user → conversation and receipt due.
pub(super) fn user_conversation(user: UserId, conversation: ConversationId) -> [u8; 33] {
    join(&[user.as_bytes(), &cid(conversation)])
}

/// `uid[16] other[16]`: table contact. With zeros as the other one: how many there are.
pub(super) fn contact(user: UserId, other: UserId) -> [u8; 32] {
    join(&[user.as_bytes(), other.as_bytes()])
}

/// No user has this id: it is before all of them.
pub(super) const NO_USER: UserId = UserId::from_bytes([0; 16]);

/// A conversation, or a zero and a user: what an account version is about.
pub(super) fn subject(subject: Subject) -> [u8; CID_BYTES] {
    match subject {
        Subject::Conversation(id) => cid(id),
        Subject::Person(user) => join(&[&[0], user.as_bytes()]),
    }
}

/// Reads a [`subject`].
pub(super) fn read_subject(bytes: &[u8]) -> Option<Subject> {
    match bytes.split_first()? {
        (0, user) => Some(Subject::Person(UserId::from_bytes(user.try_into().ok()?))),
        _ => read_cid(bytes).map(Subject::Conversation),
    }
}

/// `word… 0 subject[17]`: table search. A word has no zero.
pub(super) fn search(word: &str, about: Subject) -> Vec<u8> {
    let people = matches!(about, Subject::Person(_));
    [&*search_from(people, word), &[0], &subject(about)].concat()
}

/// Words that begin like this, of people or of conversations: apart, as there are many more of the ones.
pub(super) fn search_from(people: bool, prefix: &str) -> Vec<u8> {
    [&[u8::from(!people)], prefix.as_bytes()].concat()
}

/// `uid[16] subject[17]`: table changed.
pub(super) fn changed(user: UserId, about: Subject) -> [u8; 33] {
    join(&[user.as_bytes(), &subject(about)])
}

/// `uid[16] ver[8]`: table change.
pub(super) fn change(user: UserId, version: u64) -> [u8; 24] {
    join(&[user.as_bytes(), &version.to_be_bytes()])
}

/// `cid[17] uid[16] seq[8]`: tables own and mention.
pub(super) fn own(conversation: ConversationId, user: UserId, seq: Seq) -> [u8; 41] {
    join(&[
        &cid(conversation),
        user.as_bytes(),
        &seq.get().to_be_bytes(),
    ])
}

/// `cid[17] uid[16] which[1] seq[8]`: table moved.
pub(super) fn moved(conversation: ConversationId, user: UserId, read: bool, seq: Seq) -> [u8; 42] {
    join(&[
        &cid(conversation),
        user.as_bytes(),
        &[u8::from(read)],
        &seq.get().to_be_bytes(),
    ])
}

/// `cid[17] seq[8] uid[16]`: tables reaction, hidden and copy.
pub(super) fn entry_user(conversation: ConversationId, seq: Seq, user: UserId) -> [u8; 41] {
    join(&[
        &cid(conversation),
        &seq.get().to_be_bytes(),
        user.as_bytes(),
    ])
}

/// `cid[17] who[16] level[1] block[8]`: table excluded.
pub(super) fn excluded(
    conversation: ConversationId,
    who: UserId,
    level: u8,
    block: u64,
) -> [u8; 42] {
    join(&[
        &cid(conversation),
        who.as_bytes(),
        &[level],
        &block.to_be_bytes(),
    ])
}

/// `at[6] cid[17] seq[8]`: table expiry.
pub(super) fn expiry(at_ms: u64, conversation: ConversationId, seq: Seq) -> [u8; 31] {
    join(&[
        &short_time(at_ms),
        &cid(conversation),
        &seq.get().to_be_bytes(),
    ])
}

/// `at[6]`: where a time begins in the table expiry.
pub(super) fn short_time(at_ms: u64) -> [u8; 6] {
    let [_, _, low @ ..] = at_ms.min(super::values::TIME_MAX).to_be_bytes();
    low
}

/// `ts[6] uid[16] mid…`: table report.
pub(super) fn report(key: &ReportKey) -> Vec<u8> {
    [
        &short_time(key.ts_ms),
        key.by.as_bytes().as_slice(),
        key.mid.as_str().as_bytes(),
    ]
    .concat()
}

/// `uid[16] mid…`: table scheduled.
pub(super) fn scheduled(user: UserId, mid: &MessageId) -> Vec<u8> {
    [user.as_bytes(), mid.as_str().as_bytes()].concat()
}

/// `at[6] uid[16] mid…`: table due.
pub(super) fn due(at_ms: u64, user: UserId, mid: &MessageId) -> Vec<u8> {
    [&short_time(at_ms)[..], &scheduled(user, mid)].concat()
}

/// `log[1] number[8]`: table audit.
pub(super) fn audit(log: AuditLog, number: u64) -> [u8; 9] {
    join(&[&[log.to_byte()], &number.to_be_bytes()])
}

/// `cid[17] uid[16] mid…`: tables held and rejected.
pub(super) fn held(conversation: ConversationId, from: UserId, mid: &str) -> Vec<u8> {
    [
        &cid(conversation),
        from.as_bytes().as_slice(),
        mid.as_bytes(),
    ]
    .concat()
}

/// `dev[16] cid[17]`: table cursor.
pub(super) fn cursor(device: DeviceId, conversation: ConversationId) -> [u8; 33] {
    join(&[device.as_bytes(), &cid(conversation)])
}

/// `uid[16] dev[16]`: tables device and shared.
pub(super) fn device(user: UserId, device: DeviceId) -> [u8; 32] {
    join(&[user.as_bytes(), device.as_bytes()])
}

/// `dev[16] packet_id[2]`: table exchange.
pub(super) fn exchange(device: DeviceId, packet_id: u16) -> [u8; 18] {
    join(&[device.as_bytes(), &packet_id.to_be_bytes()])
}

/// `dev[16] dseq[8]`: tables device event and device data.
pub(super) fn device_event(device: DeviceId, dseq: u64) -> [u8; 24] {
    join(&[device.as_bytes(), &dseq.to_be_bytes()])
}

/// `uid[16] id…`: table user → token.
pub(super) fn user_token(user: UserId, id: &str) -> Vec<u8> {
    [user.as_bytes(), id.as_bytes()].concat()
}

/// `week[2] cid[17] uid[16] mid…`: table idempotency. The week can be changed in place by [`set_week`].
pub(super) fn idempotency(
    out: &mut Vec<u8>,
    conversation: ConversationId,
    user: UserId,
    mid: &MessageId,
) {
    out.clear();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&cid(conversation));
    out.extend_from_slice(user.as_bytes());
    out.extend_from_slice(mid.as_str().as_bytes());
}

/// Sets the week of an idempotency key.
pub(super) fn set_week(key: &mut [u8], week: u16) {
    for (to, from) in key.iter_mut().zip(week.to_be_bytes()) {
        *to = from;
    }
}

/// The first id that sorts after none: every real one is at or behind it.
pub(super) const FIRST_CID: [u8; CID_BYTES] = [0; CID_BYTES];
/// At or behind every conversation id.
pub(super) const LAST_CID: [u8; CID_BYTES] = [0xFF; CID_BYTES];

/// `N` bytes from parts whose lengths add up to `N`.
pub(super) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut rest = out.as_mut_slice();
    for part in parts {
        debug_assert!(part.len() <= rest.len(), "parts are longer than the key");
        let taken = std::mem::take(&mut rest);
        let Some((place, behind)) = taken.split_at_mut_checked(part.len()) else {
            break;
        };
        place.copy_from_slice(part);
        rest = behind;
    }
    debug_assert!(rest.is_empty(), "parts are shorter than the key");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_of_keys_is_order_of_places(a: u64, b: u64, id: [u8; 16]) {
            let cid = ConversationId::from_parts(ConversationKind::Group, id);
            let (one, other) = (message(cid, Seq::new(a)), message(cid, Seq::new(b)));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
        }

        #[test]
        fn conversation_ids_come_back(kind in 1u8..=5, id: [u8; 16]) {
            let known = ConversationId::from_parts(ConversationKind::from_byte(kind).unwrap(), id);
            prop_assert_eq!(read_cid(&cid(known)), Some(known));
        }
    }

    #[test]
    fn subjects_come_back() {
        let cid = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        for about in [
            Subject::Conversation(cid),
            Subject::Person(UserId::from_bytes([3; 16])),
        ] {
            assert_eq!(read_subject(&subject(about)), Some(about));
        }
        assert_eq!(read_subject(&LAST_CID), None);
    }

    #[test]
    fn unknown_kind_is_no_conversation() {
        assert_eq!(read_cid(&FIRST_CID), None);
        assert_eq!(read_cid(&LAST_CID), None);
        assert_eq!(read_cid(&[1; 16]), None);
    }
}
