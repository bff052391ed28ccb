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
    /// Seconds in which the sender of a message can edit it; 0: for ever.
    pub edit_window_s: u32,
    /// Seconds in which the sender of a message can delete it for everybody; 0: for ever.
    pub delete_window_s: u32,
    /// Days that messages stay, in all conversations; 0: for ever.
    pub retention_days: u32,
    /// So many of the newest messages of each conversation stay; 0: all.
    pub retention_messages: u32,
    /// Hours that the clock may be ahead of what was trusted last and of the time that the server has been running since: further
    /// ahead nothing is removed for its age, until an operator trusts the clock.
    pub retention_clock_ahead_h: u32,
    /// Days that lines of the audit log stay; 0: for ever.
    pub audit_days: u32,
    /// So many of the newest lines stay: of what operators did, and as many of what moderators did.
    pub audit_lines_max: u32,
    /// Members of a group.
    pub group_members_max: u32,
    /// Readers of a channel.
    pub channel_readers_max: u32,
    /// A channel with up to so many readers comes to all their inboxes; with more, to those who watch it.
    pub channel_inbox_max: u32,
    /// Users to whom a broadcast list goes.
    pub broadcast_recipients_max: u32,
    /// Messages to broadcast lists per minute of one user; 0: no limit. Each becomes as many direct messages as the list is long.
    pub user_broadcasts_per_min: u32,
    /// How many of them at once.
    pub user_broadcasts_burst: u32,
    /// Conversations of one user: groups, and the direct ones that the user began.
    pub conversations_per_user_max: u32,
    /// Messages of one user that wait for their time.
    pub scheduled_per_user_max: u32,
    /// Devices of one user: sessions that are kept.
    pub devices_per_user_max: u32,
    /// Shared subscriptions to logs (`$share/…`) of one user, whose positions are kept.
    pub shared_subscriptions_per_user_max: u32,
    /// Events that wait in the private queue of one device.
    pub device_queue_max: u32,
    /// Those of one sender among them.
    pub device_queue_per_sender_max: u32,
    /// Bytes of their data.
    pub device_queue_bytes_max: u32,
    /// Days that such an event waits, at most.
    pub device_event_days: u32,
    /// `…/log` subscriptions of one connection; at most 128.
    pub log_subscriptions_per_connection_max: u32,
    /// Replies and refusals that may wait for one connection.
    pub rpc_pending_max: u32,
    /// Entries in one page of history.
    pub history_limit_max: u32,
    /// Entries that one conversation hands out before it is the next one's turn.
    pub turn_entries: u32,
    /// A client that asks for it (CONNECT user property `replay=window`) is handed out the newest so many entries of a
    /// conversation if it has missed more.
    pub replay_max: u32,
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
    /// A user whose last connection ends is online for so long, in milliseconds: a reconnect shows nothing.
    pub presence_grace_ms: u32,
    /// Least time between two changes of one user that his watchers are told, in milliseconds.
    pub presence_interval_ms: u32,
    /// Users whom one connection may watch.
    pub presence_watched_per_connection_max: u32,
    /// Connections that may watch one user.
    pub presence_watchers_per_user_max: u32,
    /// Exceptions in one setting of privacy.
    pub privacy_except_max: u32,
    /// Handles that a user may give himself in 30 days; 0: none, those who run the server give them.
    pub handle_changes_per_month: u32,
    /// Searches per minute of one user; 0: no limit.
    pub user_searches_per_min: u32,
    /// How many of them at once.
    pub user_searches_burst: u32,
    /// Contacts of one user.
    pub contacts_per_user_max: u32,
    /// Users whom one user may block.
    pub blocked_per_user_max: u32,
    /// Least time between two hints that a user types in a conversation, in milliseconds.
    pub typing_interval_ms: u32,
    /// Such a hint ends after so long without a repeat, in milliseconds.
    pub typing_expiry_ms: u32,
    /// Hints at once, of all users; further ones are not told.
    pub typing_hints_max: u32,
    /// Messages, calls and subscriptions per second of one device; 0: no limit.
    pub device_messages_per_s: u32,
    /// How many a device that has rested may send at once.
    pub device_messages_burst: u32,
    /// Messages, calls and subscriptions per second of one user; 0: no limit.
    pub user_messages_per_s: u32,
    /// How many a user who has rested may send at once.
    pub user_messages_burst: u32,
    /// Messages, calls and subscriptions per second of one address (IPv6: of one /64); 0: no limit.
    pub address_messages_per_s: u32,
    /// How many an address that has rested may send at once.
    pub address_messages_burst: u32,
    /// Messages and actions per second in one conversation; 0: no limit.
    pub conversation_messages_per_s: u32,
    /// How many of them at once after a rest.
    pub conversation_messages_burst: u32,
    /// Groups made and calls that add members, per minute of one user; 0: no limit. Others cannot refuse to be added.
    pub user_invitations_per_min: u32,
    /// How many of them at once.
    pub user_invitations_burst: u32,
    /// Looks at codes of invitations, joinings and requests to join, per minute of one user; 0: no limit.
    pub user_joins_per_min: u32,
    /// How many of them at once.
    pub user_joins_burst: u32,
    /// Visitors made for support desks, per minute of one user; 0: no limit.
    pub user_visitors_per_min: u32,
    /// How many of them at once.
    pub user_visitors_burst: u32,
    /// Requests to join that may wait in one conversation.
    pub join_requests_max: u32,
    /// Conversations, and names of users, kept in memory beside those in use.
    pub conversation_cache_max: u32,
    /// Newest entries of a conversation kept in memory for live delivery.
    pub ring_entries_max: u32,
    /// Bytes of their bodies.
    pub ring_bytes_max: u32,
    /// Bytes of the newest entries of all conversations; then those that stood still for the longest time make room.
    pub ring_bytes_total_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes_max: 65_536,
            json_depth_max: 32,
            edit_window_s: 86_400,
            delete_window_s: 0,
            retention_days: 0,
            retention_messages: 0,
            retention_clock_ahead_h: 72,
            audit_days: 400,
            audit_lines_max: 100_000,
            group_members_max: 1_024,
            channel_readers_max: 1_000_000,
            channel_inbox_max: 5_000,
            broadcast_recipients_max: 256,
            user_broadcasts_per_min: 10,
            user_broadcasts_burst: 30,
            conversations_per_user_max: 10_000,
            scheduled_per_user_max: 100,
            devices_per_user_max: 32,
            shared_subscriptions_per_user_max: 256,
            device_queue_max: 256,
            device_queue_per_sender_max: 64,
            device_queue_bytes_max: 1_048_576,
            device_event_days: 30,
            log_subscriptions_per_connection_max: 64,
            rpc_pending_max: 64,
            history_limit_max: 500,
            turn_entries: 64,
            replay_max: 2_000,
            cursor_days: 90,
            receipt_interval_ms: 250,
            receipt_interval_max_ms: 5_000,
            receipt_moves_max: 256,
            receipt_counts_max: 5_000,
            presence_grace_ms: 10_000,
            presence_interval_ms: 1_000,
            presence_watched_per_connection_max: 256,
            presence_watchers_per_user_max: 5_000,
            privacy_except_max: 256,
            handle_changes_per_month: 2,
            user_searches_per_min: 20,
            user_searches_burst: 20,
            contacts_per_user_max: 10_000,
            blocked_per_user_max: 10_000,
            typing_interval_ms: 3_000,
            typing_expiry_ms: 6_000,
            typing_hints_max: 100_000,
            device_messages_per_s: 20_000,
            device_messages_burst: 100_000,
            user_messages_per_s: 20_000,
            user_messages_burst: 100_000,
            address_messages_per_s: 0,
            address_messages_burst: 0,
            conversation_messages_per_s: 0,
            conversation_messages_burst: 0,
            user_invitations_per_min: 30,
            user_invitations_burst: 200,
            user_joins_per_min: 10,
            user_joins_burst: 50,
            user_visitors_per_min: 60,
            user_visitors_burst: 600,
            join_requests_max: 256,
            conversation_cache_max: 10_000,
            ring_entries_max: 64,
            ring_bytes_max: 131_072,
            ring_bytes_total_max: 134_217_728,
        }
    }
}

/// An option has a value with which the chat cannot work.
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
        const ANY: u32 = u32::MAX;
        let bounds = [
            // As much as the store takes.
            ("body_bytes_max", self.body_bytes_max, 1, 131_072),
            // The parser recurses: deeper is a question of the stack.
            ("json_depth_max", self.json_depth_max, 1, 128),
            ("group_members_max", self.group_members_max, 2, ANY),
            (
                "conversations_per_user_max",
                self.conversations_per_user_max,
                1,
                ANY,
            ),
            // They are counted one by one.
            (
                "scheduled_per_user_max",
                self.scheduled_per_user_max,
                0,
                10_000,
            ),
            // Status and list of those to whom it goes are one page.
            (
                "broadcast_recipients_max",
                self.broadcast_recipients_max,
                0,
                1_024,
            ),
            ("devices_per_user_max", self.devices_per_user_max, 1, ANY),
            // They are counted one by one.
            (
                "shared_subscriptions_per_user_max",
                self.shared_subscriptions_per_user_max,
                0,
                10_000,
            ),
            // They are counted one by one.
            ("device_queue_max", self.device_queue_max, 0, 10_000),
            ("device_event_days", self.device_event_days, 1, 365),
            (
                "log_subscriptions_per_connection_max",
                self.log_subscriptions_per_connection_max,
                0,
                128,
            ),
            ("rpc_pending_max", self.rpc_pending_max, 1, 65_535),
            ("history_limit_max", self.history_limit_max, 1, 100_000),
            // They are counted by looking at them.
            ("join_requests_max", self.join_requests_max, 0, 10_000),
            ("turn_entries", self.turn_entries, 1, 65_535),
            ("replay_max", self.replay_max, 1, ANY),
            ("cursor_days", self.cursor_days, 1, 36_500),
            ("receipt_interval_ms", self.receipt_interval_ms, 1, 60_000),
            (
                "receipt_interval_max_ms",
                self.receipt_interval_max_ms,
                self.receipt_interval_ms,
                600_000,
            ),
            ("presence_grace_ms", self.presence_grace_ms, 0, 3_600_000),
            ("presence_interval_ms", self.presence_interval_ms, 0, 60_000),
            // A profile is one row.
            ("privacy_except_max", self.privacy_except_max, 0, 1_024),
            ("typing_interval_ms", self.typing_interval_ms, 0, 60_000),
            ("typing_expiry_ms", self.typing_expiry_ms, 1, 600_000),
            (
                "conversation_cache_max",
                self.conversation_cache_max,
                1,
                ANY,
            ),
            ("ring_entries_max", self.ring_entries_max, 1, ANY),
            ("ring_bytes_max", self.ring_bytes_max, 1, ANY),
            ("ring_bytes_total_max", self.ring_bytes_total_max, 1, ANY),
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
