//! temp
#[derive(Clone, Debug)]
pub struct Config {
    pub body_bytes_max: u32,
    pub group_members_max: u32,
    pub conversations_per_user_max: u32,
    pub devices_per_user_max: u32,
    pub turn_entries: u32,
    pub receipt_interval_ms: u32,
    pub receipt_interval_max_ms: u32,
    pub receipt_moves_max: u32,
    pub receipt_counts_max: u32,
    pub history_limit_max: u32,
    pub json_depth_max: u32,
    pub device_messages_per_s: u32,
    pub device_messages_burst: u32,
    pub user_messages_per_s: u32,
    pub user_messages_burst: u32,
    pub conversation_cache_max: u32,
    pub ring_entries_max: u32,
    pub ring_bytes_max: u32,
    pub log_subscriptions_per_connection_max: u32,
    pub rpc_pending_max: u32,
}
