//! Options of the chat, with their defaults and reasons.

use serde::{Deserialize, Serialize};

use crate::store::embedded::BODY_BYTES_MAX;

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
            conversation_cache_max: 10_000,
            ring_entries_max: 64,
            ring_bytes_max: 131_072,
        }
    }
}

/// An option has a value with which the chat cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {bound}")]
pub struct ConfigError {
    option: &'static str,
    bound: &'static str,
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first option whose value makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let at_least_1 = [
            ("body_bytes_max", self.body_bytes_max),
            ("json_depth_max", self.json_depth_max),
            ("group_members_max", self.group_members_max),
            (
                "conversations_per_user_max",
                self.conversations_per_user_max,
            ),
            ("devices_per_user_max", self.devices_per_user_max),
            ("rpc_pending_max", self.rpc_pending_max),
            ("history_limit_max", self.history_limit_max),
            ("turn_entries", self.turn_entries),
            ("cursor_days", self.cursor_days),
            ("receipt_interval_ms", self.receipt_interval_ms),
            ("receipt_moves_max", self.receipt_moves_max),
            ("ring_entries_max", self.ring_entries_max),
        ];
        if let Some((option, _)) = at_least_1.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError {
                option,
                bound: "at least 1",
            });
        }
        let body_bytes_max = u32::try_from(BODY_BYTES_MAX).unwrap_or(u32::MAX);
        if self.body_bytes_max > body_bytes_max {
            return Err(ConfigError {
                option: "body_bytes_max",
                bound: "at most 131072: larger things are media",
            });
        }
        if self.receipt_interval_max_ms < self.receipt_interval_ms {
            return Err(ConfigError {
                option: "receipt_interval_max_ms",
                bound: "at least receipt_interval_ms",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_stop_the_chat_are_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        let lazy = Config {
            turn_entries: 0,
            ..Config::default()
        };
        assert_eq!(
            lazy.check().unwrap_err().to_string(),
            "turn_entries must be at least 1"
        );
        let large = Config {
            body_bytes_max: 1 << 20,
            ..Config::default()
        };
        assert!(large.check().is_err());
    }
}
