//! The options of chat: one struct, each field with its unit, its default and its reason.

use serde::{Deserialize, Serialize};

/// What an operator can set about chat. Unknown names are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body of a message, in bytes. Default 65,536: text and JSON fit, files belong into media.
    pub body_bytes_max: u32,
    /// Members of one group. Default 1,024: above it a channel serves readers better.
    pub group_members_max: u32,
    /// Conversations of one user. Default 10,000: bounds what a resumed session looks through.
    pub conversations_per_user_max: u32,
    /// Devices of one user; then the one seen least recently makes room. Default 32.
    pub devices_per_user_max: u32,
    /// Entries of one conversation that a device gets before the next conversation has its turn. Default 64: one busy
    /// group does not keep the others waiting.
    pub turn_entries: u32,
    /// Milliseconds between two receipt events of one conversation to one receiver. Default 250: felt as at once.
    pub receipt_interval_ms: u32,
    /// Milliseconds up to which that interval doubles while watermarks go on moving. Default 5,000.
    pub receipt_interval_max_ms: u32,
    /// Members named one by one in a receipt event. Default 256.
    pub receipt_moves_max: u32,
    /// Messages with counts in a receipt event. Default 5,000.
    pub receipt_counts_max: u32,
    /// Entries that one `msg.history` or `…/log/last/{n}` may ask for. Default 500.
    pub history_limit_max: u32,
    /// Depth of nested JSON in a payload. Default 32.
    pub json_depth_max: u32,
    /// Messages per second that one device may send for long; 0 means no limit. Default 1,000: above any person or
    /// ordinary bot, and one runaway script cannot take the whole store.
    pub device_messages_per_s: u32,
    /// Messages that a rested device may send at once. Default 20,000: an outbox filled while offline is sent in one go.
    pub device_messages_burst: u32,
    /// Messages per second that one user may send for long, over all devices; 0 means no limit. Default 2,000.
    pub user_messages_per_s: u32,
    /// Messages that a rested user may send at once, over all devices. Default 40,000.
    pub user_messages_burst: u32,
    /// Conversations and names of users kept in memory. Default 100,000: about 100 MB when all of them are groups of
    /// average size.
    pub conversation_cache_max: u32,
    /// Latest entries of one conversation kept in memory for live delivery. Default 256.
    pub ring_entries_max: u32,
    /// Bytes of such entries of one conversation. Default 1,048,576.
    pub ring_bytes_max: u32,
    /// `…/log` subscriptions of one connection. Default 64.
    pub log_subscriptions_per_connection_max: u32,
    /// Unanswered remote calls of one connection; above it calls are refused with 0x97. Default 64.
    pub rpc_pending_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * 1024,
            group_members_max: 1_024,
            conversations_per_user_max: 10_000,
            devices_per_user_max: 32,
            turn_entries: 64,
            receipt_interval_ms: 250,
            receipt_interval_max_ms: 5_000,
            receipt_moves_max: 256,
            receipt_counts_max: 5_000,
            history_limit_max: 500,
            json_depth_max: 32,
            device_messages_per_s: 1_000,
            device_messages_burst: 20_000,
            user_messages_per_s: 2_000,
            user_messages_burst: 40_000,
            conversation_cache_max: 100_000,
            ring_entries_max: 256,
            ring_bytes_max: 1024 * 1024,
            log_subscriptions_per_connection_max: 64,
            rpc_pending_max: 64,
        }
    }
}

/// An option has a value with which chat cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {min} to {max}")]
pub struct ConfigError {
    option: &'static str,
    min: u32,
    max: u32,
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first option whose value is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("body_bytes_max", self.body_bytes_max, 1, 64 << 20),
            ("group_members_max", self.group_members_max, 2, u32::MAX),
            (
                "conversations_per_user_max",
                self.conversations_per_user_max,
                1,
                u32::MAX,
            ),
            (
                "devices_per_user_max",
                self.devices_per_user_max,
                1,
                u32::MAX,
            ),
            ("turn_entries", self.turn_entries, 1, 65_535),
            ("receipt_interval_ms", self.receipt_interval_ms, 1, 60_000),
            (
                "receipt_interval_max_ms",
                self.receipt_interval_max_ms,
                self.receipt_interval_ms,
                600_000,
            ),
            ("history_limit_max", self.history_limit_max, 1, 100_000),
            // The parser recurses: deeper than this would be a question of stack.
            ("json_depth_max", self.json_depth_max, 1, 128),
            ("ring_entries_max", self.ring_entries_max, 1, u32::MAX),
            ("ring_bytes_max", self.ring_bytes_max, 1, u32::MAX),
            ("rpc_pending_max", self.rpc_pending_max, 1, u32::MAX),
            (
                "conversation_cache_max",
                self.conversation_cache_max,
                1,
                u32::MAX,
            ),
        ];
        for (option, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError { option, min, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_accepted() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        let config = Config {
            json_depth_max: 1_000,
            ..Config::default()
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "json_depth_max must be 1 to 128"
        );
    }
}
