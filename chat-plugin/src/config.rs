//! Options of the chat, with their defaults and reasons.

use serde::{Deserialize, Serialize};

/// Options of the chat: the section `[chat]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body of a message and of a request, in bytes. Larger things belong into a media store.
    pub body_bytes_max: u32,
    /// How deep JSON may be nested.
    pub json_depth_max: u32,
    /// Members of a group.
    pub group_members_max: u32,
    /// Conversations of one user.
    pub conversations_per_user_max: u32,
    /// Devices of one user: sessions that are kept.
    pub devices_per_user_max: u32,
    /// `…/log` subscriptions of one connection; at most 128.
    pub log_subscriptions_per_connection_max: u32,
    /// Replies and refusals that may wait for one connection.
    pub rpc_pending_max: u32,
    /// Entries in one page of history.
    pub history_limit_max: u32,
    /// Entries that one conversation hands out before it is the next one's turn.
    pub turn_entries: u32,
    /// Days that the cursors of a device are kept after it was last seen.
    pub cursor_days: u32,
    /// Least time between two receipts of one conversation to one receiver, in milliseconds.
    pub receipt_interval_ms: u32,
    /// This interval doubles up to here while marks go on moving, in milliseconds.
    pub receipt_interval_max_ms: u32,
    /// Members named in one receipt.
    pub receipt_moves_max: u32,
    /// Messages counted in one receipt.
    pub receipt_counts_max: u32,
    /// Messages and calls per second of one device; 0: no limit.
    pub device_messages_per_s: u32,
    /// How many a device that has rested may send at once.
    pub device_messages_burst: u32,
    /// Messages and calls per second of one user; 0: no limit.
    pub user_messages_per_s: u32,
    /// How many a user who has rested may send at once.
    pub user_messages_burst: u32,
    /// Conversations, and names of users, kept in memory beside those in use.
    pub conversation_cache_max: u32,
    /// Newest entries of a conversation kept in memory for live delivery.
    pub ring_entries_max: u32,
    /// Bytes of their bodies.
    pub ring_bytes_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 65_536,
            json_depth_max: 32,
            group_members_max: 1_024,
            conversations_per_user_max: 10_000,
            devices_per_user_max: 32,
            log_subscriptions_per_connection_max: 64,
            rpc_pending_max: 64,
            history_limit_max: 500,
            turn_entries: 64,
            cursor_days: 90,
            receipt_interval_ms: 250,
            receipt_interval_max_ms: 5_000,
            receipt_moves_max: 256,
            receipt_counts_max: 5_000,
            device_messages_per_s: 20_000,
            device_messages_burst: 100_000,
            user_messages_per_s: 20_000,
            user_messages_burst: 100_000,
            conversation_cache_max: 20_000,
            ring_entries_max: 128,
            ring_bytes_max: 262_144,
        }
    }
}
