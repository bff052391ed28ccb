//! Keys and values of the local store, as `docs/sdk.md` §6 draws them.

use proto::ids::{ConversationId, ConversationKind, MessageId, Seq, UserId};

use crate::error::Refusal;

/// The schema that is written here.
pub(crate) const SCHEMA: u64 = 1;

/// Names of single values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    Schema,
    ClientId,
    Uid,
    Handle,
    Version,
    Subscribed,
    Began,
    Feed,
    Confirmed,
    Outbox,
}

impl Meta {
    pub(crate) fn key(self) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Schema => b"schema",
            Self::ClientId => b"client_id",
            Self::Uid => b"uid",
            Self::Handle => b"handle",
            Self::Version => b"ver",
            Self::Subscribed => b"subscribed",
            Self::Began => b"began",
            Self::Feed => b"feed",
            Self::Confirmed => b"confirmed",
            Self::Outbox => b"outbox",
        };
        [b"m", name].concat()
    }
}

fn cid_bytes(cid: ConversationId) -> [u8; 17] {
    let mut bytes = [0; 17];
    let (kind, id) = bytes.split_at_mut(1);
    kind.copy_from_slice(&[cid.kind().to_byte()]);
    id.copy_from_slice(cid.as_bytes());
    bytes
}

fn of_cid(table: u8, cid: ConversationId) -> Vec<u8> {
    [&[table][..], &cid_bytes(cid)].concat()
}

fn of_place(table: u8, cid: ConversationId, seq: Seq) -> Vec<u8> {
    [&[table][..], &cid_bytes(cid), &seq.get().to_be_bytes()].concat()
}

/// The first key behind all that begin with this prefix.
pub(crate) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

pub(crate) fn conversation(cid: ConversationId) -> Vec<u8> {
    of_cid(b'c', cid)
}

pub(crate) const CONVERSATIONS: &[u8] = b"c";

pub(crate) fn positions(cid: ConversationId) -> Vec<u8> {
    of_cid(b'p', cid)
}

pub(crate) const POSITIONS: &[u8] = b"p";

pub(crate) fn entry(cid: ConversationId, seq: Seq) -> Vec<u8> {
    of_place(b'e', cid, seq)
}

/// The entries of a conversation.
pub(crate) fn entries(cid: ConversationId) -> Vec<u8> {
    of_cid(b'e', cid)
}

pub(crate) fn edit(cid: ConversationId, target: Seq, seq: Seq) -> Vec<u8> {
    [edits(cid, target), seq.get().to_be_bytes().to_vec()].concat()
}

/// The edits of a message.
pub(crate) fn edits(cid: ConversationId, target: Seq) -> Vec<u8> {
    of_place(b'x', cid, target)
}

pub(crate) fn expiry(ts: u64, cid: ConversationId, seq: Seq) -> Vec<u8> {
    [
        &b"y"[..],
        &ts.to_be_bytes(),
        &cid_bytes(cid),
        &seq.get().to_be_bytes(),
    ]
    .concat()
}

/// Bodies that end before this time.
pub(crate) fn expiries_until(ts: u64) -> (Vec<u8>, Vec<u8>) {
    let end = [&b"y"[..], &ts.saturating_add(1).to_be_bytes()].concat();
    (b"y".to_vec(), end)
}

pub(crate) fn stale(cid: ConversationId, seq: Seq) -> Vec<u8> {
    of_place(b's', cid, seq)
}

pub(crate) const STALE: &[u8] = b"s";

pub(crate) fn watermark(cid: ConversationId, user: UserId) -> Vec<u8> {
    [watermarks(cid), user.as_bytes().to_vec()].concat()
}

/// The watermarks of a conversation.
pub(crate) fn watermarks(cid: ConversationId) -> Vec<u8> {
    of_cid(b'w', cid)
}

pub(crate) fn handle(handle: &str) -> Vec<u8> {
    [b"h", handle.as_bytes()].concat()
}

/// What waits for the app.
pub(crate) const FEED: &[u8] = b"f";

pub(crate) fn fed(number: u64) -> Vec<u8> {
    [&b"f"[..], &number.to_be_bytes()].concat()
}

pub(crate) fn outbox(number: u64) -> Vec<u8> {
    [&b"o"[..], &number.to_be_bytes()].concat()
}

/// The outbox by message id.
pub(crate) fn sending(mid: &str) -> Vec<u8> {
    [b"i", mid.as_bytes()].concat()
}

/// Where an own message is, by message id.
pub(crate) fn own(cid: ConversationId, mid: &str) -> Vec<u8> {
    [of_cid(b'j', cid), mid.as_bytes().to_vec()].concat()
}

/// The number at the end of a key.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let (_, number) = key.split_last_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}

/// The conversation and the place at the end of a key.
pub(crate) fn place_of(key: &[u8]) -> Option<(ConversationId, Seq)> {
    let (rest, seq) = key.split_last_chunk::<8>()?;
    Some((cid_of(rest)?, Seq::new(u64::from_be_bytes(*seq))))
}

/// The conversation at the end of a key, or a value.
pub(crate) fn cid_of(key: &[u8]) -> Option<ConversationId> {
    let (_, bytes) = key.split_last_chunk::<17>()?;
    let (kind, id) = bytes.split_first_chunk::<1>()?;
    let kind = ConversationKind::from_byte(kind[0])?;
    Some(ConversationId::from_parts(kind, id.try_into().ok()?))
}

/// A conversation as a value.
pub(crate) fn cid_value(cid: ConversationId) -> Vec<u8> {
    cid_bytes(cid).to_vec()
}

/// Where this device stands in a conversation. Places that are 0 are not known.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Positions {
    /// The log has everything from here …
    #[prost(uint64, tag = "1")]
    pub(crate) covered_from: u64,
    /// … to here.
    #[prost(uint64, tag = "2")]
    pub(crate) covered_to: u64,
    /// Everything up to here is in the feed or behind it, from where this device began.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) fed_to: Option<u64>,
    /// The last place that is known of.
    #[prost(uint64, tag = "4")]
    pub(crate) known: u64,
    /// All others have got everything up to here.
    #[prost(uint64, tag = "5")]
    pub(crate) delivered_all: u64,
    /// All others have read everything up to here.
    #[prost(uint64, tag = "6")]
    pub(crate) read_all: u64,
    /// The user has read everything up to here, also as long as the server does not know.
    #[prost(uint64, tag = "7")]
    pub(crate) read: u64,
}

/// How far a member has got.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Watermark {
    #[prost(uint64, tag = "1")]
    pub(crate) delivered: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) read: u64,
}

/// What waits for the app.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Fed {
    /// Kind byte and 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) cid: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) seq: u64,
}

/// What waits for the server.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OutboxRow {
    /// The conversation, or `@handle`, `u.{uid}`, `me`.
    #[prost(string, tag = "1")]
    pub(crate) target: String,
    #[prost(string, tag = "2")]
    pub(crate) topic: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: bytes::Bytes,
    /// The message id; empty for marks.
    #[prost(string, tag = "4")]
    pub(crate) mid: String,
    /// When it was put here, in ms since 1970.
    #[prost(uint64, tag = "5")]
    pub(crate) created: u64,
    #[prost(enumeration = "OutboxKind", tag = "6")]
    pub(crate) kind: i32,
    /// The message that it acts on, or the mark.
    #[prost(uint64, tag = "7")]
    pub(crate) seq: u64,
    /// Why it was refused; then it does not wait any more.
    #[prost(string, tag = "8")]
    pub(crate) error: String,
    #[prost(string, tag = "9")]
    pub(crate) error_message: String,
}

impl OutboxRow {
    pub(crate) fn mid(&self) -> Option<MessageId> {
        self.mid.parse().ok()
    }

    /// Why it was refused, if it was.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let refusal = || Refusal::new(self.error.clone(), self.error_message.clone());
        (!self.error.is_empty()).then(refusal)
    }
}

/// What something in the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum OutboxKind {
    Other = 0,
    Message = 1,
    Edit = 2,
    Delete = 3,
    Hide = 4,
    React = 5,
    Pin = 6,
    Read = 7,
    Unread = 8,
    ReadPrivately = 9,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_it_belongs() {
        let cid = ConversationId::from_parts(ConversationKind::Group, [7; 16]);
        let key = entry(cid, Seq::new(9));
        assert_eq!(place_of(&key), Some((cid, Seq::new(9))));
        assert_eq!(cid_of(&positions(cid)), Some(cid));
        assert_eq!(cid_of(&cid_value(cid)), Some(cid));
        assert_eq!(number_of(&fed(3)), Some(3));
        assert!(entries(cid) < key && key < behind(&entries(cid)));
        assert_eq!(behind(&[1, 0xff]), [2]);
    }
}
