//! Identifiers. Each has its own type; the text forms use only `[A-Za-z0-9._~@:-]`, so that they fit into topics.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not 26 characters of lower-case Crockford base32.
    #[error("not 26 characters of base32")]
    Base32,
    /// A conversation id must begin with `d.`, `g.`, `ch.`, `b.` or `s.`.
    #[error("unknown kind of conversation")]
    ConversationKind,
    /// A handle is 1 to 50 characters of `[a-z0-9._-]`.
    #[error("a handle is 1 to 50 characters of a-z, 0-9, dot, underscore, minus")]
    Handle,
    /// A message id is 1 to 64 characters of `[A-Za-z0-9._~:-]`.
    #[error("a message id is 1 to 64 characters of A-Z, a-z, 0-9 and . _ ~ : -")]
    MessageId,
    /// A place is a number from 1.
    #[error("not a sequence number")]
    Seq,
}

/// The text form of 16 bytes: 26 characters, Crockford base32, lower case (the form of a ULID).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn encode_base32(bytes: [u8; 16], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let value = u128::from_be_bytes(bytes);
    let mut text = [0u8; 26];
    for (index, place) in text.iter_mut().enumerate() {
        let shift = 125 - 5 * index;
        let digit = usize::try_from((value >> shift) & 31).unwrap_or_default();
        *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
    }
    out.write_str(std::str::from_utf8(&text).unwrap_or_default())
}

fn decode_base32(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != 26 {
        return Err(IdError::Base32);
    }
    let mut value: u128 = 0;
    for (index, byte) in text.bytes().enumerate() {
        let digit = ALPHABET
            .iter()
            .position(|known| *known == byte)
            .ok_or(IdError::Base32)?;
        if index == 0 && digit > 7 {
            return Err(IdError::Base32);
        }
        value = (value << 5) | digit as u128;
    }
    Ok(value.to_be_bytes())
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(|error: IdError| {
                    serde::de::Error::custom(format!("{error}: {}", crate::quote::quoted(&text)))
                })
            }
        }
    };
}

mod invitation;

pub use self::invitation::{InvitationCode, InvitationId};

/// A user: a ULID, 26 characters of lower-case Crockford base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId([u8; 16]);

impl UserId {
    /// The ULID of `ts_ms` (milliseconds since 1970, 48 bits) and 10 random bytes.
    pub fn new(ts_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        let (time, rest) = bytes.split_at_mut(6);
        time.copy_from_slice(ts_ms.to_be_bytes().get(2..).unwrap_or(&[0; 6]));
        rest.copy_from_slice(&random);
        Self(bytes)
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, in the order of sorting.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode_base32(self.0, f)
    }
}

impl FromStr for UserId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        decode_base32(text).map(Self)
    }
}
text_id!(UserId);

/// One installation of a client: derived from its user and its MQTT Client Identifier, so that two users may use the
/// same Client Identifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// The first 16 bytes of SHA-256 over the user's bytes and the Client Identifier.
    pub fn new(user: UserId, client_id: &str) -> Self {
        Self(digest16(&[
            b"device",
            user.as_bytes(),
            client_id.as_bytes(),
        ]))
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode_base32(self.0, f)
    }
}

impl FromStr for DeviceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        decode_base32(text).map(Self)
    }
}
text_id!(DeviceId);

/// The kind of a conversation, as its id tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ConversationKind {
    /// Two users, or one with himself (the note to self): `d.`.
    Direct,
    /// A group: `g.`.
    Group,
    /// Few writers, many readers: `ch.`.
    Channel,
    /// A broadcast list: `b.`.
    Broadcast,
    /// A support case: `s.`.
    Support,
}

impl ConversationKind {
    /// The part of the id before the dot.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Direct => "d",
            Self::Group => "g",
            Self::Channel => "ch",
            Self::Broadcast => "b",
            Self::Support => "s",
        }
    }

    /// The byte at rest: 1 to 5.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Direct => 1,
            Self::Group => 2,
            Self::Channel => 3,
            Self::Broadcast => 4,
            Self::Support => 5,
        }
    }

    /// The kind of a byte at rest.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Direct,
            2 => Self::Group,
            3 => Self::Channel,
            4 => Self::Broadcast,
            5 => Self::Support,
            _ => return None,
        })
    }
}

/// A conversation: its kind and 16 bytes; in text `g.` and 26 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId {
    kind: ConversationKind,
    bytes: [u8; 16],
}

impl ConversationId {
    /// The direct conversation of two users, the same whoever asks: SHA-256 of the two ids in order, truncated.
    pub fn direct(one: UserId, other: UserId) -> Self {
        let (low, high) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        Self {
            kind: ConversationKind::Direct,
            bytes: digest16(&[low.as_bytes(), high.as_bytes()]),
        }
    }

    /// A conversation that `creator` asks for with `request`: the same request makes the same id.
    pub fn requested(kind: ConversationKind, creator: UserId, request: &[u8]) -> Self {
        Self {
            kind,
            bytes: digest16(&[
                b"create",
                kind.prefix().as_bytes(),
                creator.as_bytes(),
                request,
            ]),
        }
    }

    /// The id of these parts.
    pub const fn from_parts(kind: ConversationKind, bytes: [u8; 16]) -> Self {
        Self { kind, bytes }
    }

    /// The kind of conversation.
    pub const fn kind(&self) -> ConversationKind {
        self.kind
    }

    /// The 16 bytes, without the kind.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.prefix())?;
        f.write_str(".")?;
        encode_base32(self.bytes, f)
    }
}

impl FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (prefix, rest) = text.split_once('.').ok_or(IdError::ConversationKind)?;
        let kind = match prefix {
            "d" => ConversationKind::Direct,
            "g" => ConversationKind::Group,
            "ch" => ConversationKind::Channel,
            "b" => ConversationKind::Broadcast,
            "s" => ConversationKind::Support,
            _ => return Err(IdError::ConversationKind),
        };
        Ok(Self {
            kind,
            bytes: decode_base32(rest)?,
        })
    }
}
text_id!(ConversationId);

/// The name by which people address a user: `[a-z0-9._-]{1,50}`, unique.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(Box<str>);

impl Handle {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Handle {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 50 || !text.bytes().all(known) {
            return Err(IdError::Handle);
        }
        Ok(Self(text.into()))
    }
}
text_id!(Handle);

/// The sender's idempotency key of a message: `[A-Za-z0-9._~:-]{1,64}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MessageId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let known = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b':' | b'-')
        };
        if text.is_empty() || text.len() > 64 || !text.bytes().all(known) {
            return Err(IdError::MessageId);
        }
        Ok(Self(text.into()))
    }
}
text_id!(MessageId);

/// A place in a conversation: 1, 2, 3 … without gaps. [`Seq::ZERO`] is the place before the first entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);
    /// After every entry.
    pub const MAX: Self = Self(u64::MAX);

    /// The place with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The place before; that of [`Seq::ZERO`] is itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Seq {
    type Err = IdError;
    /// Decimal digits only: no sign, no blank, at most 2^64 − 1.
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IdError::Seq);
        }
        text.parse().map(Self).map_err(|_| IdError::Seq)
    }
}

/// The first 16 bytes of SHA-256 over the parts, each preceded by its length, so that parts cannot run together.
pub fn digest16(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bytes_of_an_id_are_one(bytes: [u8; 16]) {
            let user = UserId::from_bytes(bytes);
            prop_assert_eq!(user.to_string().parse(), Ok(user));
            let cid = ConversationId::from_parts(ConversationKind::Channel, bytes);
            prop_assert_eq!(cid.to_string().parse(), Ok(cid));
        }

        #[test]
        fn text_order_is_byte_order(one: [u8; 16], other: [u8; 16]) {
            let (one, other) = (UserId::from_bytes(one), UserId::from_bytes(other));
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }
    }

    #[test]
    fn direct_conversation_is_the_same_from_both_sides() {
        let (a, b) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        assert_eq!(ConversationId::direct(a, b), ConversationId::direct(b, a));
        assert_ne!(ConversationId::direct(a, a), ConversationId::direct(a, b));
    }

    #[test]
    fn bad_texts_are_refused() {
        assert_eq!(
            "8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<UserId>(),
            Err(IdError::Base32),
            "130 bits"
        );
        assert_eq!(
            "0000000000000000000000000A".parse::<UserId>(),
            Err(IdError::Base32),
            "upper case"
        );
        assert_eq!(
            "x.00000000000000000000000000".parse::<ConversationId>(),
            Err(IdError::ConversationKind)
        );
        assert_eq!("Bob".parse::<Handle>(), Err(IdError::Handle));
        assert_eq!("".parse::<Handle>(), Err(IdError::Handle));
        assert_eq!("a/b".parse::<MessageId>(), Err(IdError::MessageId));
        assert_eq!("+1".parse::<Seq>(), Err(IdError::Seq));
    }

    #[test]
    fn ulid_begins_with_its_time() {
        let id = UserId::new(0x0102_0304_0506, [0xff; 10]);
        assert_eq!(id.as_bytes()[..6], [1, 2, 3, 4, 5, 6]);
    }
}
