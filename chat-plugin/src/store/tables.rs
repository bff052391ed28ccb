//! The tables of the store, as `docs/storage.md` draws them. Numbers and names are those at rest.

use broker::store::kv::Table;
use broker::store::recover::META;

/// Entries.
pub(super) const MESSAGE: Table = Table::large(0x10, "message");
/// Keys of idempotency, by week.
pub(super) const IDEMPOTENCY: Table = Table::large(0x11, "idempotency");
/// Heads of conversations.
pub(super) const CONVERSATION: Table = Table::new(0x12, "conversation");
/// Settings of conversations.
pub(super) const SETTINGS: Table = Table::new(0x13, "settings");
/// Members with their intervals.
pub(super) const MEMBER: Table = Table::new(0x14, "member");
/// Watermarks of members.
pub(super) const MARKS: Table = Table::new(0x15, "marks");
/// Conversations of a user.
pub(super) const USER_CONVERSATION: Table = Table::new(0x16, "user_conversation");
/// Cumulative number of own countable entries.
pub(super) const OWN: Table = Table::new(0x17, "own");
/// Cursors of devices.
pub(super) const CURSOR: Table = Table::new(0x18, "cursor");
/// Conversations with receipts for a user.
pub(super) const RECEIPT_DUE: Table = Table::new(0x19, "receipt_due");
/// Devices.
pub(super) const DEVICE: Table = Table::new(0x1A, "device");
/// Unacknowledged deliveries of devices.
pub(super) const INFLIGHT: Table = Table::new(0x1B, "inflight");
/// QoS 2 exchanges.
pub(super) const EXCHANGE: Table = Table::new(0x1C, "exchange");
/// Users.
pub(super) const USER: Table = Table::new(0x1D, "user");
/// Users by handle.
pub(super) const HANDLE: Table = Table::new(0x1E, "handle");
/// Tokens by hash.
pub(super) const TOKEN: Table = Table::new(0x1F, "token");
/// Tokens by user.
pub(super) const USER_TOKEN: Table = Table::new(0x20, "user_token");
/// What happened to entries since.
pub(super) const OVERLAY: Table = Table::new(0x21, "overlay");
/// Reactions by user.
pub(super) const REACTION: Table = Table::new(0x22, "reaction");
/// Pinned messages.
pub(super) const PIN: Table = Table::new(0x23, "pin");
/// Entries hidden from one user.
pub(super) const HIDDEN: Table = Table::new(0x24, "hidden");
/// Counts of what does not count as unread.
pub(super) const EXCLUDED: Table = Table::new(0x25, "excluded");
/// Messages that mention a user.
pub(super) const MENTION: Table = Table::new(0x26, "mention");
/// Entries by the time at which they expire.
pub(super) const EXPIRY: Table = Table::new(0x27, "expiry");
/// Messages that wait for their time.
pub(super) const SCHEDULED: Table = Table::large(0x28, "scheduled");
/// Users whose devices know a conversation as it is now.
pub(super) const CLEAN: Table = Table::new(0x29, "clean");
/// Account versions.
pub(super) const ACCOUNT: Table = Table::new(0x2A, "account");
/// Conversations by the account version of their last change.
pub(super) const CHANGE: Table = Table::new(0x2B, "change");
/// What a user has decided about a conversation, and the account version of its last change.
pub(super) const CHANGED: Table = Table::new(0x2C, "changed");
/// What users have decided about others.
pub(super) const CONTACT: Table = Table::new(0x2D, "contact");
/// What users decide about themselves.
pub(super) const PROFILE: Table = Table::new(0x2E, "profile");
/// Users and conversations by the words that they are found by.
pub(super) const SEARCH: Table = Table::new(0x2F, "search");
/// Invitations of conversations.
pub(super) const INVITATION: Table = Table::new(0x30, "invitation");
/// Requests to join.
pub(super) const JOIN_REQUEST: Table = Table::new(0x31, "join_request");
/// Reports of abuse.
pub(super) const REPORT: Table = Table::new(0x32, "report");
/// How users want to be seen, and when they were seen last.
pub(super) const PRESENCE: Table = Table::new(0x34, "presence");

/// Number of conversations that count against the limit of a user.
pub(super) const CONVERSATION_COUNT: Table = Table::new(0x35, "conversation_count");

/// Users who may not come back into a conversation.
pub(super) const BAN: Table = Table::new(0x38, "ban");
/// Invitations by the hash of a code.
pub(super) const CODE: Table = Table::new(0x39, "code");
/// Support cases of a desk, by where they stand and since when.
pub(super) const CASE: Table = Table::new(0x3A, "case");
/// Purges that were announced by an entry: under way, or what came of them.
pub(super) const PURGE: Table = Table::new(0x3B, "purge");
/// Conversations with a retention of their own.
pub(super) const LIMITED: Table = Table::new(0x3D, "limited");
/// What operators and moderators have done.
pub(super) const AUDIT: Table = Table::new(0x3E, "audit");
/// Messages that a moderator has rejected, by what names them.
pub(super) const REJECTED: Table = Table::new(0x3F, "rejected");
/// Up to when the wall clock has been trusted.
pub(super) const TRUSTED: Table = Table::new(0x3C, "trusted");
/// Up to where retention has looked.
pub(super) const TRIMMED: Table = Table::new(0x36, "trimmed");
/// Scheduled messages by the time at which they are due.
pub(super) const DUE: Table = Table::new(0x50, "due");
/// Readers of channels, and those to whom broadcast lists go.
pub(super) const READER: Table = Table::new(0x60, "reader");
/// How many of them there are.
pub(super) const READER_COUNT: Table = Table::new(0x61, "reader_count");
/// Messages and deletions of broadcast lists that are on their way to the direct conversations.
pub(super) const BROADCAST: Table = Table::new(0x62, "broadcast");
/// Where the messages of broadcast lists are in the direct conversations.
pub(super) const COPY: Table = Table::new(0x63, "copy");

/// Shared subscriptions to logs.
pub(super) const SHARED: Table = Table::new(0x51, "shared");

/// What waits in the private queues of devices, without its data.
pub(super) const DEVICE_EVENT: Table = Table::new(0x52, "device_event");
/// The data of what waits in the private queues of devices.
pub(super) const DEVICE_DATA: Table = Table::large(0x53, "device_data");

/// When marks moved.
pub(super) const MOVED: Table = Table::new(0x54, "moved");

/// Messages that wait for a moderator's decision.
pub(super) const HELD: Table = Table::new(0x37, "held");
/// How many messages wait.
pub(super) const WAITING: Table = Table::new(0x55, "waiting");

/// All tables, in the order of their numbers.
pub(super) const ALL: &[Table] = &[
    META,
    MESSAGE,
    IDEMPOTENCY,
    CONVERSATION,
    SETTINGS,
    MEMBER,
    MARKS,
    USER_CONVERSATION,
    OWN,
    CURSOR,
    RECEIPT_DUE,
    DEVICE,
    INFLIGHT,
    EXCHANGE,
    USER,
    HANDLE,
    TOKEN,
    USER_TOKEN,
    OVERLAY,
    REACTION,
    PIN,
    HIDDEN,
    EXCLUDED,
    MENTION,
    EXPIRY,
    SCHEDULED,
    CLEAN,
    ACCOUNT,
    CHANGE,
    CHANGED,
    CONTACT,
    PROFILE,
    SEARCH,
    INVITATION,
    JOIN_REQUEST,
    REPORT,
    PRESENCE,
    CONVERSATION_COUNT,
    BAN,
    CODE,
    CASE,
    TRIMMED,
    PURGE,
    TRUSTED,
    LIMITED,
    AUDIT,
    REJECTED,
    DUE,
    SHARED,
    DEVICE_EVENT,
    DEVICE_DATA,
    MOVED,
    HELD,
    READER,
    READER_COUNT,
    BROADCAST,
    COPY,
    WAITING,
];
