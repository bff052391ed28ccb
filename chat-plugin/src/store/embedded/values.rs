//! Values of rows, as `docs/storage.md` draws them. Writing cannot fail; reading distrusts every byte.

pub(super) mod audit;
mod conversations;
pub(super) mod devices;
pub(super) mod joining;
mod messages;
mod people;
mod waiting;

use proto::error::ErrorName;
use proto::ids::{ConversationId, Seq, UserId};

pub(super) use self::conversations::{
    Changed, Head, LEFT_CONVERSATION, USER_CONVERSATION, read_changed, read_head, read_marks,
    read_member, read_settings, write_changed, write_head, write_marks, write_member,
    write_settings,
};
pub(super) use self::devices::{
    Exchanged, read_device, read_exchanged, read_inflight, write_device, write_exchanged,
    write_inflight,
};
pub(super) use self::messages::{
    First, read_emoji, read_entry, read_entry_mseq, read_first, read_overlay, read_pin,
    write_emoji, write_entry, write_first, write_overlay, write_pin,
};
pub(super) use self::people::{
    HandleRow, read_contact, read_contact_counts, read_handle, read_hash, read_hidden,
    read_presence, read_profile, read_subject, read_token, read_user, write_contact,
    write_contact_counts, write_handle, write_hash, write_hidden, write_presence, write_profile,
    write_subject, write_token, write_user,
};
pub(super) use self::waiting::{
    read_held, read_held_digest, read_held_time, read_purge, read_report, read_scheduled,
    read_tally, write_held, write_purge, write_report, write_scheduled, write_tally,
};
use super::keys;
use crate::domain::entry::Mentioned;
use crate::domain::overlay::GoneReason;
use crate::domain::rights::Rights;
use crate::store::StoreError;

/// Whom a mention of all means, in the place of a user.
pub(super) const EVERYBODY: UserId = UserId::from_bytes([0xFF; 16]);

/// The format byte of everything written today.
const FORMAT: u8 = 1;

/// Largest time that has room in 6 bytes.
pub(super) const TIME_MAX: u64 = (1 << 48) - 1;

/// Those of the role.
const NO_RIGHTS_SAID: u16 = u16::MAX;

fn time(out: &mut Vec<u8>, ms: u64) {
    let [_, _, low @ ..] = ms.min(TIME_MAX).to_be_bytes();
    out.extend_from_slice(&low);
}

fn long(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Texts longer than 65,535 bytes cannot come from MQTT; should one come from elsewhere, its end is cut off.
fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Who wrote a message: table mention.
pub(super) fn write_user_id(user: UserId) -> [u8; 17] {
    keys::join(&[&[FORMAT], user.as_bytes()])
}

/// A count that may be negative: table excluded.
pub(super) fn write_count(count: i64) -> [u8; 9] {
    keys::join(&[&[FORMAT], &count.to_be_bytes()])
}

/// A row that says all by being there: table expiry.
pub(super) const PRESENT: &[u8] = &[FORMAT];

/// A row that says all by being there.
pub(super) const EMPTY: &[u8] = &[FORMAT];

/// A number or place alone: tables own, cursor and conversation count.
pub(super) fn write_number(number: u64) -> [u8; 9] {
    keys::join(&[&[FORMAT], &number.to_be_bytes()])
}

pub(super) fn write_time(ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, ms);
    out
}

/// Reads the fields of a value from the front.
struct Reader<'a> {
    rest: &'a [u8],
    table: &'static str,
}

type Read<T> = Result<T, StoreError>;

impl<'a> Reader<'a> {
    /// Checks the format byte.
    fn new(table: &'static str, value: &'a [u8]) -> Read<Self> {
        match value.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { rest, table }),
            Some((other, _)) => Err(StoreError::Corrupt(format!(
                "a row of table {table} has the unknown format {other}"
            ))),
            None => Err(StoreError::Corrupt(format!(
                "a row of table {table} is empty"
            ))),
        }
    }

    fn bad(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("a row of table {}: {what}", self.table))
    }

    fn bytes(&mut self, len: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.bad("too short"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.bad("too short"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn seq(&mut self) -> Read<Seq> {
        self.long().map(Seq::new)
    }

    fn rights(&mut self) -> Read<Option<Rights>> {
        match self.short()? {
            NO_RIGHTS_SAID => Ok(None),
            bits => Rights::from_bits(bits)
                .map(Some)
                .ok_or_else(|| self.bad("unknown rights")),
        }
    }

    fn time(&mut self) -> Read<u64> {
        let low: [u8; 6] = self.array()?;
        Ok(u64::from_be_bytes(keys::join(&[&[0, 0], &low])))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Read<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.bad("not UTF-8"))
    }

    fn text(&mut self) -> Read<&'a str> {
        let len = usize::from(self.short()?);
        let bytes = self.bytes(len)?;
        self.utf8(bytes)
    }

    fn cid(&mut self) -> Read<ConversationId> {
        let bytes = self.bytes(keys::CID_BYTES)?;
        keys::read_cid(bytes).ok_or_else(|| self.bad("no conversation id"))
    }

    fn refusal(&mut self) -> Read<(ErrorName, String)> {
        let name = self.text()?;
        let name = ErrorName::ALL
            .into_iter()
            .find(|known| known.name() == name);
        let name = name.ok_or_else(|| self.bad("unknown refusal"))?;
        Ok((name, self.text()?.to_owned()))
    }

    fn mentions(&mut self) -> Read<Mentioned> {
        let users = (0..self.byte()?).map(|_| self.user());
        let mut users = users.collect::<Read<Vec<_>>>()?;
        let all = users.first() == Some(&EVERYBODY);
        if all {
            users.remove(0);
        }
        let users = users.into();
        Ok(Mentioned { all, users })
    }

    fn user(&mut self) -> Read<UserId> {
        self.array().map(UserId::from_bytes)
    }

    fn gone_reason(&mut self) -> Read<GoneReason> {
        Ok(match self.byte()? {
            1 => GoneReason::Deleted,
            2 => GoneReason::Expired,
            3 => GoneReason::Purged,
            _ => return Err(self.bad("unknown reason of being gone")),
        })
    }

    fn end(self) -> Read<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.bad("too long"))
        }
    }
}

pub(super) fn read_user_id(table: &'static str, value: &[u8]) -> Read<UserId> {
    let mut reader = Reader::new(table, value)?;
    let user = reader.user()?;
    reader.end()?;
    Ok(user)
}

pub(super) fn read_count(value: &[u8]) -> Read<i64> {
    let mut reader = Reader::new("excluded", value)?;
    let count = reader.array().map(i64::from_be_bytes)?;
    reader.end()?;
    Ok(count)
}

pub(super) fn read_number(table: &'static str, value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new(table, value)?;
    let number = reader.long()?;
    reader.end()?;
    Ok(number)
}

pub(super) fn read_time(table: &'static str, value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new(table, value)?;
    let ms = reader.time()?;
    reader.end()?;
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::{Device, Inflight, Subscription};
    use crate::domain::entry::{BodyFormat, Entry, EntryKind};
    use crate::domain::member::{Interval, Marks, Member, Role};
    use crate::domain::overlay::Overlay;
    use crate::domain::rights::Mask;
    use crate::domain::user::{ScramKeys, Token, User};
    use bytes::Bytes;
    use proptest::prelude::*;
    use proto::ids::ConversationKind;
    use proto::ids::DeviceId;

    fn uid(byte: u8) -> UserId {
        UserId::from_bytes([byte; 16])
    }

    fn group() -> ConversationId {
        ConversationId::from_parts(ConversationKind::Group, [7; 16])
    }

    fn entry() -> Entry {
        Entry {
            conversation: group(),
            seq: Seq::new(9),
            mseq: 8,
            ts_ms: 1_700_000_000_123,
            from: uid(1),
            device: DeviceId::from_bytes([2; 16]),
            mid: "m-1".parse().unwrap(),
            kind: EntryKind::Message,
            format: BodyFormat::Text,
            opaque: true,
            body: Bytes::from_static(b"hello"),
            target: None,
            thread: None,
            expires_ms: None,
            mentions: Mentioned::default(),
            gone: None,
            source: None,
            overlay: None,
        }
    }

    fn device() -> Device {
        Device {
            id: DeviceId::from_bytes([2; 16]),
            user: uid(1),
            client_id: "phone".to_owned(),
            subscriptions: vec![Subscription {
                filter: "chat/me/in/+".to_owned(),
                qos: 1,
                no_local: true,
                retain_as_published: false,
                identifier: Some(77),
                slot: 3,
                made_ms: 9,
            }],
            session_expiry: u32::MAX,
            has_inbox: true,
            has_queue: true,
            connected: true,
            receipts_ms: 4,
            account: 6,
            first_seen_ms: 9,
            token: Some("t1".to_owned()),
            last_seen_ms: 5,
        }
    }

    #[test]
    fn rows_come_back() {
        let entry = entry();
        let mut value = Vec::new();
        write_entry(&mut value, &entry);
        assert_eq!(
            read_entry(entry.conversation, entry.seq, &value),
            Ok(entry.clone())
        );
        assert_eq!(read_entry_mseq(&value), Ok(8));

        let entry = Entry {
            target: Some(Seq::new(3)),
            thread: Some(Seq::new(2)),
            expires_ms: Some(1_800_000_000_123),
            ..entry
        };
        value.clear();
        write_entry(&mut value, &entry);
        assert_eq!(
            read_entry(entry.conversation, entry.seq, &value),
            Ok(entry.clone())
        );
        let mut gone = entry;
        gone.make_gone(GoneReason::Expired);
        value.clear();
        write_entry(&mut value, &gone);
        assert_eq!(
            read_entry(gone.conversation, gone.seq, &value),
            Ok(gone.clone())
        );
        assert_eq!(read_entry_mseq(&value), Ok(8));

        let overlay = Overlay {
            edits: vec![Seq::new(10), Seq::new(12)],
            edited_ms: 7,
            reactions: vec![("👍".into(), 3), ("❤️".into(), 1)],
            pinned: true,
        };
        assert_eq!(read_overlay(&write_overlay(&overlay)), Ok(overlay));
        let emoji: Vec<Box<str>> = vec!["👍".into(), "a".into()];
        assert_eq!(read_emoji(&write_emoji(&emoji)), Ok(emoji));
        assert_eq!(read_count(&write_count(-5)), Ok(-5));

        let device = device();
        assert_eq!(
            read_device(device.user, device.id, &write_device(&device)),
            Ok(device)
        );

        let user = User {
            id: uid(1),
            handle: "alice".parse().unwrap(),
            name: "Alice".to_owned(),
            password_hash: None,
            scram: None,
            created_ms: 1,
            removed_ms: Some(0),
        };
        let with_password = User {
            password_hash: Some("$argon2id$".to_owned()),
            scram: Some(ScramKeys {
                salt: [1; 16],
                iterations: 15_000,
                stored_key: [2; 32],
                server_key: [3; 32],
            }),
            removed_ms: None,
            ..user.clone()
        };
        for user in [user, with_password] {
            assert_eq!(read_user(user.id, &write_user(&user)), Ok(user));
        }

        let member = Member {
            user: uid(1),
            role: Role::Admin,
            mask: Mask {
                given: Some(Rights::SEND),
                want: None,
            },
            joined: Seq::new(4),
            intervals: vec![Interval {
                from: Seq::new(2),
                joined: Seq::new(4),
                to: Seq::MAX,
            }],
        };
        assert_eq!(read_member(member.user, &write_member(&member)), Ok(member));

        let marks = Marks {
            delivered: Seq::new(3),
            read: Seq::new(2),
            private_read: Seq::new(1),
            unread_flag: true,
            moved_ms: 9,
            hidden: Seq::ZERO,
            blocks: true,
        };
        assert_eq!(read_marks(&write_marks(&marks)), Ok(marks));
        let marks = Marks {
            hidden: Seq::new(8),
            ..marks
        };
        assert_eq!(read_marks(&write_marks(&marks)), Ok(marks));

        let token = Token {
            hash: [3; 32],
            id: "t1".to_owned(),
            user: uid(1),
            label: "laptop".to_owned(),
            created_ms: 7,
        };
        assert_eq!(read_token(token.hash, &write_token(&token)), Ok(token));

        let inflight = vec![Inflight {
            packet_id: 5,
            conversation: group(),
            seq: Seq::new(6),
            form: 2,
        }];
        assert_eq!(read_inflight(&write_inflight(&inflight)), Ok(inflight));
    }

    #[test]
    fn row_of_a_message_is_as_drawn() {
        let mut value = Vec::new();
        write_entry(&mut value, &entry());
        assert_eq!(value[..4], [1, 1, 1, 1], "format, kind, body format, flags");
        assert_eq!(value[4..10], 1_700_000_000_123u64.to_be_bytes()[2..]);
        assert_eq!(value[10..18], 8u64.to_be_bytes());
        assert_eq!(value[18..34], [1; 16]);
        assert_eq!(value[34..50], [2; 16]);
        assert_eq!(value[50], 3);
        assert_eq!(&value[51..], b"m-1hello");
    }

    #[test]
    fn unknown_formats_are_refused() {
        assert!(matches!(read_head(&[2]), Err(StoreError::Corrupt(_))));
        assert!(matches!(read_head(&[]), Err(StoreError::Corrupt(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic(value: Vec<u8>) {
            let id = DeviceId::from_bytes([0; 16]);
            let _ = read_entry(group(), Seq::new(1), &value);
            let _ = read_entry_mseq(&value);
            let _ = read_first(&value);
            let _ = read_head(&value);
            let _ = read_settings(&value);
            let _ = read_member(uid(1), &value);
            let _ = read_marks(&value);
            let _ = read_number("own", &value);
            let _ = read_time("due", &value);
            let _ = read_device(uid(1), id, &value);
            let _ = read_inflight(&value);
            let _ = read_exchanged(&value);
            let _ = read_user(uid(1), &value);
            let _ = read_handle(&value);
            let _ = read_token([0; 32], &value);
            let _ = read_hash(&value);
            let _ = read_overlay(&value);
            let _ = read_emoji(&value);
            let _ = read_pin(Seq::new(1), &value);
            let _ = read_count(&value);
            let _ = read_held(group(), &value);
            let _ = read_held_time(&value);
        }
    }
}
