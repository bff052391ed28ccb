//! Rows of users, what they show, and whom they know.

use proto::ids::{Handle, UserId};
use proto::payload::{PresenceChoice, PresenceState};

use super::super::keys;
use super::{FORMAT, Read, Reader, text, time, write_time};
use crate::domain::account::Subject;
use crate::domain::contact::{Contact, ContactCounts};
use crate::domain::overlay::HiddenBy;
use crate::domain::presence::Standing;
use crate::domain::profile::Profile;
use crate::domain::user::{ScramKeys, Token, User};
use crate::store::StoreError;

/// Who has a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct HandleRow {
    pub(in super::super) user: UserId,
    /// When it was freed; 0: in use.
    pub(in super::super) freed_ms: u64,
}

pub(in super::super) fn write_subject(about: Subject) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::subject(about));
    out
}

pub(in super::super) fn write_contact(contact: &Contact) -> Vec<u8> {
    let flags = u8::from(contact.is_contact()) | u8::from(contact.is_blocked()) << 1;
    let mut out = vec![FORMAT, flags];
    time(&mut out, contact.added_ms.unwrap_or_default());
    time(&mut out, contact.blocked_ms.unwrap_or_default());
    text(&mut out, &contact.called);
    out
}

pub(in super::super) fn write_contact_counts(counts: ContactCounts) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&counts.contacts.to_be_bytes());
    out.extend_from_slice(&counts.blocked.to_be_bytes());
    out
}

/// An entry that one user does not see: by his own wish, or because he has blocked its sender.
pub(in super::super) fn write_hidden(ts_ms: u64, by_block: bool) -> Vec<u8> {
    let mut out = write_time(ts_ms);
    out.push(u8::from(by_block));
    out
}

pub(in super::super) fn write_user(user: &User) -> Vec<u8> {
    let flags = u8::from(user.password_hash.is_some())
        | u8::from(user.removed_ms.is_some()) << 1
        | u8::from(user.scram.is_some()) << 2;
    let mut out = vec![FORMAT, flags];
    time(&mut out, user.created_ms);
    time(&mut out, user.removed_ms.unwrap_or(0));
    text(&mut out, user.handle.as_str());
    text(&mut out, &user.name);
    text(&mut out, user.password_hash.as_deref().unwrap_or_default());
    if let Some(keys) = &user.scram {
        out.extend_from_slice(&keys.salt);
        out.extend_from_slice(&keys.iterations.to_be_bytes());
        out.extend_from_slice(&keys.stored_key);
        out.extend_from_slice(&keys.server_key);
    }
    out
}

pub(in super::super) fn write_handle(row: HandleRow) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(row.user.as_bytes());
    time(&mut out, row.freed_ms);
    out
}

pub(in super::super) fn write_token(token: &Token) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(token.user.as_bytes());
    time(&mut out, token.created_ms);
    text(&mut out, &token.id);
    text(&mut out, &token.label);
    out
}

pub(in super::super) fn write_profile(profile: &Profile) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT];
    serde_json::to_writer(&mut out, profile)
        .map_err(|error| StoreError::Corrupt(format!("a profile cannot be written: {error}")))?;
    Ok(out)
}

/// The states that a user may choose, by their bytes from 1.
const CHOICES: [PresenceState; 4] = [
    PresenceState::Online,
    PresenceState::Away,
    PresenceState::Dnd,
    PresenceState::Invisible,
];

pub(in super::super) fn write_presence(standing: &Standing) -> Vec<u8> {
    let place = CHOICES
        .iter()
        .position(|state| *state == standing.choice.state);
    let state = u8::try_from(place.unwrap_or_default() + 1).unwrap_or(1);
    let mut out = vec![FORMAT, state];
    time(&mut out, standing.seen_ms);
    text(&mut out, &standing.choice.text);
    out
}

pub(in super::super) fn write_hash(hash: [u8; 32]) -> [u8; 33] {
    keys::join(&[&[FORMAT], &hash])
}

pub(in super::super) fn read_profile(value: &[u8]) -> Read<Profile> {
    let reader = Reader::new("profile", value)?;
    serde_json::from_slice(reader.rest).map_err(|error| reader.bad(&error.to_string()))
}

pub(in super::super) fn read_presence(value: &[u8]) -> Read<Standing> {
    let mut reader = Reader::new("presence", value)?;
    let state = usize::from(reader.byte()?).checked_sub(1);
    let state = state.and_then(|place| CHOICES.get(place).copied());
    let state = state.ok_or_else(|| reader.bad("unknown state"))?;
    let standing = Standing {
        seen_ms: reader.time()?,
        choice: PresenceChoice {
            state,
            text: reader.text()?.to_owned(),
        },
    };
    reader.end()?;
    Ok(standing)
}

pub(in super::super) fn read_subject(value: &[u8]) -> Read<Subject> {
    let mut reader = Reader::new("change", value)?;
    let bytes = reader.bytes(keys::CID_BYTES)?;
    let about = keys::read_subject(bytes).ok_or_else(|| reader.bad("nothing that changes"))?;
    reader.end()?;
    Ok(about)
}

pub(in super::super) fn read_contact(other: UserId, value: &[u8]) -> Read<Contact> {
    let mut reader = Reader::new("contact", value)?;
    let flags = reader.byte()?;
    let (added_ms, blocked_ms) = (reader.time()?, reader.time()?);
    let contact = Contact {
        other,
        added_ms: (flags & 1 != 0).then_some(added_ms),
        blocked_ms: (flags & 2 != 0).then_some(blocked_ms),
        called: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(contact)
}

pub(in super::super) fn read_contact_counts(value: &[u8]) -> Read<ContactCounts> {
    let mut reader = Reader::new("contact", value)?;
    let counts = ContactCounts {
        contacts: reader.word()?,
        blocked: reader.word()?,
    };
    reader.end()?;
    Ok(counts)
}

/// By what an entry is hidden from one user.
pub(in super::super) fn read_hidden(value: &[u8]) -> Read<HiddenBy> {
    let mut reader = Reader::new("hidden", value)?;
    let _since_ms = reader.time()?;
    let by = match reader.byte()? {
        0 => HiddenBy::Wish,
        1 => HiddenBy::Block,
        _ => return Err(reader.bad("unknown reason of being hidden")),
    };
    reader.end()?;
    Ok(by)
}

pub(in super::super) fn read_user(id: UserId, value: &[u8]) -> Read<User> {
    let mut reader = Reader::new("user", value)?;
    let flags = reader.byte()?;
    let created_ms = reader.time()?;
    let removed_ms = reader.time()?;
    let handle: Handle = reader
        .text()?
        .parse()
        .map_err(|_| reader.bad("bad handle"))?;
    let name = reader.text()?.to_owned();
    let password_hash = reader.text()?;
    let scram = match flags & 4 {
        0 => None,
        _ => Some(ScramKeys {
            salt: reader.array()?,
            iterations: u32::from_be_bytes(reader.array()?),
            stored_key: reader.array()?,
            server_key: reader.array()?,
        }),
    };
    let user = User {
        id,
        handle,
        name,
        password_hash: (flags & 1 != 0).then(|| password_hash.to_owned()),
        scram,
        created_ms,
        removed_ms: (flags & 2 != 0).then_some(removed_ms),
    };
    reader.end()?;
    Ok(user)
}

pub(in super::super) fn read_handle(value: &[u8]) -> Read<HandleRow> {
    let mut reader = Reader::new("handle", value)?;
    let row = HandleRow {
        user: reader.user()?,
        freed_ms: reader.time()?,
    };
    reader.end()?;
    Ok(row)
}

pub(in super::super) fn read_token(hash: [u8; 32], value: &[u8]) -> Read<Token> {
    let mut reader = Reader::new("token", value)?;
    let token = Token {
        hash,
        user: reader.user()?,
        created_ms: reader.time()?,
        id: reader.text()?.to_owned(),
        label: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(token)
}

pub(in super::super) fn read_hash(value: &[u8]) -> Read<[u8; 32]> {
    let mut reader = Reader::new("user_token", value)?;
    let hash = reader.array()?;
    reader.end()?;
    Ok(hash)
}
