//! Devices: installations that have an inbox subscription in a persistent session.

use proto::ids::{ConversationId, DeviceId, Seq, UserId, digest16};

/// A device at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which one.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Its MQTT Client Identifier.
    pub client_id: String,
    /// Its durable subscriptions below `chat/`; empty after a clean start.
    pub subscriptions: Vec<Subscription>,
    /// Seconds that its session outlives a connection; `u32::MAX` for ever.
    pub session_expiry: u32,
    /// It has had an inbox subscription: its cursors stand where it began. A conversation without a cursor began later.
    pub has_inbox: bool,
    /// It has had a subscription to its private queue: others may send to it.
    pub has_queue: bool,
    /// A connection of it is open, or was when the server was killed: then it does not count as expired.
    pub connected: bool,
    /// Receipts that moved since then may not have arrived, in ms since 1970.
    pub receipts_ms: u64,
    /// It knows the list of conversations as it was at this account version.
    pub account: u64,
    /// When it was first connected, in ms since 1970.
    pub first_seen_ms: u64,
    /// Public id of the token with which it logged in last, if it was one.
    pub token: Option<String>,
    /// When it was last connected (updated at connect and disconnect), in ms since 1970.
    pub last_seen_ms: u64,
}

/// A durable subscription below `chat/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter as subscribed, `$share/…` included.
    pub filter: String,
    /// Granted QoS: 0 or 1.
    pub qos: u8,
    /// Not what the same connection sent.
    pub no_local: bool,
    /// Retain flag as published.
    pub retain_as_published: bool,
    /// Subscription Identifier, 5.0.
    pub identifier: Option<u32>,
    /// For `…/log`: which one of the device's, 0 to 127. Otherwise 0.
    pub slot: u8,
    /// When it was made, in ms since 1970: a `…/log` subscribed again replays.
    pub made_ms: u64,
}

/// A shared subscription to a `…/log` (`$share/{name}/chat/c/{cid}/log…`): one for all sessions of its user that hold it. It
/// stays when they go, so that they go on where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSubscription {
    /// Under this id its position is stored, like the cursor of a device.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// The filter as subscribed.
    pub filter: String,
    /// When somebody held it last, in ms since 1970.
    pub seen_ms: u64,
}

impl SharedSubscription {
    /// The id of a filter of this user.
    pub fn id_of(user: UserId, filter: &str) -> DeviceId {
        DeviceId::from_bytes(digest16(&[b"share", user.as_bytes(), filter.as_bytes()]))
    }
}

/// An unacknowledged delivery of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflight {
    /// MQTT Packet Identifier, 1 to 65,535.
    pub packet_id: u16,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Which entry.
    pub seq: Seq,
    /// In which form; meaning given by `delivery`.
    pub form: u8,
}
