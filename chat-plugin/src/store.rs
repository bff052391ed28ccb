//! Where conversations, users and devices live: a trait in verbs of the domain, and its backends.
//!
//! Every method is one round trip that a database can do natively. What returns `Ok` for a write is durable, except where
//! [`Durability::Relaxed`] says otherwise. After an I/O error a store is poisoned: it refuses every further write.
//!
//! [`open`] chooses the backend: [`embedded::EmbeddedStore`] over one of the engines. `docs/storage.md` draws the rows.

pub mod clock;
pub mod embedded;
mod metrics;
mod options;
#[cfg(test)]
mod suite;
mod tables;

use std::sync::Arc;

use async_trait::async_trait;
pub use broker::store::Health;
use broker::store::kv::EngineError;
#[cfg(any(feature = "fjall", feature = "sled"))]
use broker::store::offline::OfflineError;
use proto::ids::{ConversationId, DeviceId, Handle, InvitationId, MessageId, Seq, UserId};
use tokio_util::sync::CancellationToken;

use crate::domain::account::{Changes, Preferences, Subject};
use crate::domain::audit::{AuditKeep, AuditLine, AuditLog};
use crate::domain::contact::{Contact, ContactChange, ContactCounts, ContactList, Decided};
use crate::domain::conversation::Conversation;
use crate::domain::device::{Device, Inflight, SharedSubscription};
use crate::domain::entry::{Draft, Entry, Outcome};
use crate::domain::held::{Held, Holding};
use crate::domain::joining::{Ban, Invitation, JoinRequest, Requested};
use crate::domain::member::{Marks, Member, Stretch};
use crate::domain::overlay::{HiddenBy, Pin, Reactions, Report, ReportKey};
use crate::domain::presence::{PresenceChange, Standing};
use crate::domain::profile::Profile;
use crate::domain::purge::{Limits, Overdue, Purge, Purged};
use crate::domain::queue::{DeviceEvent, Queuing, ToDevice};
use crate::domain::scheduled::{Scheduled, Scheduling};
use crate::domain::support::CaseState;
use crate::domain::user::{Token, User};

pub use self::metrics::StoreMetrics;
#[cfg(any(feature = "fjall", feature = "sled"))]
pub use self::options::engine_of;
pub use self::options::{EngineKind, StoreOptions, open, open_with_clock};

/// What the service needs of a store.
#[async_trait]
pub trait ChatStore: Send + Sync + 'static {
    /// Appends each draft at the next place of its conversation: 1, 2, 3, … without gaps. Durable once it returns; a
    /// `MessageId` seen before stores nothing and returns its first place. Outcomes come in the order of the drafts.
    /// Drafts of one call, and of calls that follow each other's return, are stored in order. Waits while the queue of
    /// the store is full.
    async fn append(&self, batch: Vec<Draft>) -> Result<Vec<Outcome>, StoreError>;

    /// Where a message of this sender with this id was stored, as long as its idempotency key is kept.
    async fn place_of(
        &self,
        conversation: ConversationId,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Place>, StoreError>;

    /// Entries of one conversation, ascending by `seq`, each with what happened to it since.
    async fn page(
        &self,
        conversation: ConversationId,
        range: PageRange,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Each of these conversations, or `None` where there is none.
    async fn conversations(
        &self,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<Conversation>>, StoreError>;

    /// All members of a conversation, former ones included, with their marks; at most `limit` after `after` in the order
    /// of user ids.
    async fn members(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(Member, Marks)>, StoreError>;

    /// Members of a channel or broadcast list who are one of many ([`crate::domain::member::Role::is_one_of_many`]), former
    /// ones included, in the order of their ids, at most `limit` after `after`. [`ChatStore::members`] has the others.
    async fn readers(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, StoreError>;

    /// Those of `users` who are or were such members, with their marks.
    async fn readers_among(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
    ) -> Result<Vec<(Member, Marks)>, StoreError>;

    /// How many such members there are now. O(1).
    async fn reader_count(&self, conversation: ConversationId) -> Result<u64, StoreError>;

    /// Channels that `user` reads and that have gone on since his devices were told of them by an account sync, among at most
    /// `limit` of his behind `after`. Reads rows for each that is looked at: what is said there notes nothing for its readers.
    async fn channels_behind(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Behind, StoreError>;

    /// Moves the account version of `user` to these conversations: the next sync tells of them. Durable.
    async fn note_changed(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<(), StoreError>;

    /// Of each broadcast list behind `after` the first entry that is not in all direct conversations yet: of at most `limit`
    /// lists.
    async fn broadcasts(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<Broadcast>, StoreError>;

    /// Notes how far an entry of a broadcast list has come; `None`: everywhere. Durable.
    async fn broadcast_to(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
    ) -> Result<(), StoreError>;

    /// In whose direct conversations a message of a broadcast list is, and where, as is noted with each that is stored: in the
    /// order of the users, at most `limit` after `after`.
    async fn copies(
        &self,
        list: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, Seq)>, StoreError>;

    /// Conversations in which a user is or was a member, in the order of their ids, at most `limit` after `after`.
    async fn conversations_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Conversations in which a user is a member now, in the order of their ids, at most `limit` after `after`.
    async fn memberships_of(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// How many conversations count against the limit of a user: those in which the user is a member now, but not the
    /// direct ones that the other one began. O(1).
    async fn conversation_count(&self, user: UserId) -> Result<u64, StoreError>;

    /// How many countable entries a conversation has up to `seq`, how many of them are the user's own, and how many of the
    /// others are gone for all or hidden from the user. O(log n).
    async fn count_up_to(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Counts, StoreError>;

    /// Hides an entry from one user, for ever. Says whether it was to be seen before.
    async fn hide(
        &self,
        conversation: ConversationId,
        seq: Seq,
        user: UserId,
        ts_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Which of these entries are hidden from one user, and by what.
    async fn hidden(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, HiddenBy)>, StoreError>;

    /// Who reacted to a message, and with what: at most `limit` after `after` in the order of user ids.
    async fn reactions(
        &self,
        conversation: ConversationId,
        seq: Seq,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Reactions, StoreError>;

    /// With what one user reacted to each of these messages, if at all.
    async fn reacted(
        &self,
        conversation: ConversationId,
        user: UserId,
        seqs: Vec<Seq>,
    ) -> Result<Vec<(Seq, Vec<Box<str>>)>, StoreError>;

    /// The pinned messages of a conversation, ascending by `seq`.
    async fn pins(&self, conversation: ConversationId) -> Result<Vec<Pin>, StoreError>;

    /// Messages of others in a stretch of the log that mention `user`, or all, and are neither gone nor hidden from the
    /// user: the newest first, at most `limit`.
    async fn mentions(
        &self,
        conversation: ConversationId,
        user: UserId,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Seq>, StoreError>;

    /// Lets a message wait for its time, one of at most `max` of its user; once for each message id of the user. Durable.
    async fn schedule(&self, scheduled: Scheduled, max: usize) -> Result<Scheduling, StoreError>;

    /// Changes a scheduled message, or cancels it, if it is still as it was. Says whether it was. Durable.
    async fn reschedule(
        &self,
        before: Scheduled,
        after: Option<Scheduled>,
    ) -> Result<bool, StoreError>;

    /// Scheduled messages of a user, in the order of their message ids, at most `limit` after `after`.
    async fn scheduled(
        &self,
        user: UserId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, StoreError>;

    /// The scheduled message with this message id.
    async fn scheduled_as(
        &self,
        user: UserId,
        mid: &MessageId,
    ) -> Result<Option<Scheduled>, StoreError>;

    /// Scheduled messages whose time has come, the oldest first, at most `limit`, and at most 16 of one user. They go with the
    /// draft that is their sending ([`Draft::scheduled`]), or with any other that stores this message.
    async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Scheduled>, StoreError>;

    /// Makes entries gone whose time is over, the oldest first; at most some hundred at once. Says how many were.
    async fn expire(&self, now_ms: u64) -> Result<usize, StoreError>;

    /// One step of a purge: makes at most some hundred entries gone, and says where the next one begins.
    async fn purge(&self, conversation: ConversationId, purge: Purge)
    -> Result<Purged, StoreError>;

    /// Places of entries that have announced a purge which is not done yet: at most `limit` behind `after`.
    async fn purges_under_way(
        &self,
        after: Option<(ConversationId, Seq)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError>;

    /// Conversations in which something is over these limits, or over stricter ones of their own. Looks at some hundred behind
    /// `after`; without `limits` only at those that have their own. One that cannot be read is told to the log, and left out.
    async fn overdue(
        &self,
        limits: Limits,
        after: Option<ConversationId>,
    ) -> Result<Overdue, StoreError>;

    /// Up to when the wall clock has been trusted, in ms since 1970; `None`: never yet.
    async fn trusted_ms(&self) -> Result<Option<u64>, StoreError>;

    /// Trusts the wall clock up to this time.
    async fn trust(&self, now_ms: u64) -> Result<(), StoreError>;

    /// What a user told of himself goes: profile, the text of his presence, what waits to be sent, how he calls others, what his
    /// tokens are for, the words of reports, what the audit log says of him but his id; of one who was removed all that belonged to
    /// him. Says how many reports there were.
    async fn forget(&self, user: UserId) -> Result<usize, StoreError>;

    /// Puts a message aside for a moderator to decide on, for this reason: once for each message id of its sender, at most
    /// 1,000 in a conversation and 100 of one sender, for 14 days. Its exchange, if it came in one, is settled with that: its
    /// place is zero. Durable. It goes with the draft that lets it into the log ([`Draft::was_held`]), or with any other
    /// that stores this message; one with another digest is a conflict. One that was rejected is held as before for who sends
    /// it again, and for nobody else.
    async fn hold(&self, draft: Draft, reason: String) -> Result<Holding, StoreError>;

    /// Messages that are held in a conversation, in the order of senders and message ids: at most so many behind `after`, and
    /// at most so many bytes of bodies, but one; and whether there are more.
    async fn held(
        &self,
        conversation: ConversationId,
        after: Option<(UserId, MessageId)>,
        size: (usize, usize),
    ) -> Result<(Vec<Held>, bool), StoreError>;

    /// One of them.
    async fn held_message(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
    ) -> Result<Option<Held>, StoreError>;

    /// Ends the holding of a message that a moderator has rejected. Says whether it was held. Until 14 days after it was sent it
    /// is known: what comes again under its message id gets the answer of before, and nothing is stored.
    async fn reject_held(
        &self,
        conversation: ConversationId,
        from: UserId,
        mid: &MessageId,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;

    /// Messages of one user that are there, as they are now: looks at so many behind `after`, gone ones included, and takes at
    /// most so many bytes of bodies, but one; ascending.
    async fn written(
        &self,
        conversation: ConversationId,
        user: UserId,
        after: Seq,
        size: (usize, usize),
    ) -> Result<Written, StoreError>;

    /// Gives back space while others read and write: then no file holds what was removed before, or is gone. May take
    /// minutes. `false`: the engine cannot, or was held up.
    ///
    /// # Errors
    /// [`StoreError::NotNow`] if it is stopped, is going on already, or has no room.
    async fn reclaim(&self, stop: &CancellationToken) -> Result<bool, StoreError>;

    /// Counts the rows by which repeated messages are known, week by week: looks at so many behind a key.
    async fn ids(&self, after: Option<Vec<u8>>, limit: usize) -> Result<IdPage, StoreError>;

    /// Drops those of weeks before this one, some thousand behind a key; never those of the present week. With 0 none: it only
    /// tells which week it is. Durable when it returns.
    async fn drop_ids(&self, before: u16, after: Option<Vec<u8>>)
    -> Result<DroppedIds, StoreError>;

    /// Stores a report, once for each message id of its writer; a later one of the same message takes the place of his earlier
    /// one. There are at most 100 of one user, and 10,000 in all: then the oldest go, his own first. `false`: something else has
    /// this message id.
    async fn report(&self, report: Report) -> Result<bool, StoreError>;

    /// Reports, oldest first, at most `limit` after `after`.
    async fn reports(
        &self,
        after: Option<&ReportKey>,
        limit: usize,
    ) -> Result<Vec<Report>, StoreError>;

    /// One of them.
    async fn reported(&self, key: &ReportKey) -> Result<Option<Report>, StoreError>;

    /// Notes that the moderators of its conversation have settled a report. Says whether there was one that they had not.
    async fn settle_report(
        &self,
        key: &ReportKey,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;

    /// Lets go of a report. Says whether there was one.
    async fn close_report(&self, key: &ReportKey) -> Result<bool, StoreError>;

    /// Makes an invitation with a code of this hash, or gives the one with this id another code. `false`: there are as many
    /// as there may be.
    async fn put_invitation(
        &self,
        invitation: Invitation,
        hash: [u8; 16],
    ) -> Result<bool, StoreError>;

    /// The invitation of which this is the hash of a code, whether or not it can still be used.
    async fn invited(&self, hash: [u8; 16]) -> Result<Option<Invitation>, StoreError>;

    /// The invitations of a conversation: at most [`crate::domain::joining::INVITATIONS_MAX`].
    async fn invitations(
        &self,
        conversation: ConversationId,
    ) -> Result<Vec<Invitation>, StoreError>;

    /// Removes an invitation with its codes. Says whether there was one.
    async fn revoke_invitation(
        &self,
        conversation: ConversationId,
        id: InvitationId,
    ) -> Result<bool, StoreError>;

    /// Takes a request to join; one that waits already stays as it is.
    async fn ask_to_join(&self, asked: AskToJoin) -> Result<Requested, StoreError>;

    /// Ends a request to join; the conversation has changed for those in `tell`. Says whether there was one.
    async fn drop_join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
        tell: Vec<UserId>,
        line: Option<Box<AuditLine>>,
    ) -> Result<bool, StoreError>;

    /// The request to join of one user.
    async fn join_request(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<JoinRequest>, StoreError>;

    /// Requests to join, in the order of the users, at most `limit` after `after`.
    async fn join_requests(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<JoinRequest>, StoreError>;

    /// Support cases of a desk that stand there, and since when, in this order, at most `limit` after `after`.
    async fn cases(
        &self,
        desk: ConversationId,
        state: CaseState,
        after: Option<(u64, ConversationId)>,
        limit: usize,
    ) -> Result<Vec<(u64, ConversationId)>, StoreError>;

    /// Groups that have support cases, in the order of their ids, at most `limit` after `after`.
    async fn desks(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// The ban of one user. No draft by which that user would join is stored while there is one.
    async fn ban(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Option<Ban>, StoreError>;

    /// Banned users, in the order of their ids, at most `limit` after `after`.
    async fn bans(
        &self,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Ban>, StoreError>;

    /// The last own countable entry of `user` at or before `seq`. O(log n).
    async fn last_own(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Option<Seq>, StoreError>;

    /// How far `other` may be told that `user` has got, who was at the first place and is at the second one: not to where the
    /// last messages of `other` are such as `user` never sees, as he had blocked him. What is costly to find out is not told:
    /// then it is the first place.
    async fn told_mark(
        &self,
        conversation: ConversationId,
        user: UserId,
        other: UserId,
        from: Seq,
        to: Seq,
    ) -> Result<Seq, StoreError>;

    /// Moves cursors and marks: monotone, merged by maximum (the unread flag: last one wins). Relaxed moves are seen by
    /// reads at once, are coalesced, and become durable within 250 ms or at `flush`, whichever comes first.
    async fn advance(&self, moves: Vec<Move>, durability: Durability) -> Result<(), StoreError>;

    /// Cursors of a device: of one conversation, or of all.
    async fn cursors(
        &self,
        device: DeviceId,
        conversation: Option<ConversationId>,
    ) -> Result<Vec<(ConversationId, Seq)>, StoreError>;

    /// What changed for `user` after the account version `since`, in the order of the changes, at most `limit`. Version 0 with nothing: [`ChatStore::hand_out`] was never called for this user.
    async fn changes(&self, user: UserId, since: u64, limit: usize) -> Result<Changes, StoreError>;

    /// The devices of `user` are told of these conversations as they are when this returns, or later: the next change of
    /// each moves the account version. Returns the version. Durable.
    async fn hand_out(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<u64, StoreError>;

    /// What a user has decided about each of these conversations.
    async fn preferences(
        &self,
        user: UserId,
        conversations: Vec<ConversationId>,
    ) -> Result<Vec<Preferences>, StoreError>;

    /// Replaces what a user has decided about a conversation. Durable.
    async fn set_preferences(
        &self,
        user: UserId,
        conversation: ConversationId,
        preferences: Preferences,
    ) -> Result<(), StoreError>;

    /// When marks of these users moved over an entry, for all to see; kept for 30 days: of all that was read, and in direct
    /// conversations of what was delivered.
    async fn moved_over(
        &self,
        conversation: ConversationId,
        users: Vec<UserId>,
        seq: Seq,
    ) -> Result<Vec<(UserId, MovedOver)>, StoreError>;

    /// Conversations in which receipts for `user` moved at or after `since_ms`, at most `limit`, newest first.
    async fn receipts_due(
        &self,
        user: UserId,
        since_ms: u64,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// One device.
    async fn device(&self, user: UserId, device: DeviceId) -> Result<Option<Device>, StoreError>;

    /// All devices of a user.
    async fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError>;

    /// Stores a device (and, if given, its unacknowledged deliveries, replacing the old ones).
    async fn put_device(
        &self,
        device: Device,
        inflight: Option<Vec<Inflight>>,
        durability: Durability,
    ) -> Result<(), StoreError>;

    /// Unacknowledged deliveries of a device, in order of the first sending; relaxed, they are removed by reading.
    async fn take_inflight(&self, device: DeviceId) -> Result<Vec<Inflight>, StoreError>;

    /// Removes a device with its cursors, in-flight references, QoS 2 exchanges and private queue.
    async fn remove_device(&self, user: UserId, device: DeviceId) -> Result<(), StoreError>;

    /// Stores a shared subscription, or that it is still held: one of at most `max` of its user. `false`: there are as many.
    async fn put_shared(&self, shared: SharedSubscription, max: usize) -> Result<bool, StoreError>;

    /// The shared subscriptions of a user.
    async fn shared(&self, user: UserId) -> Result<Vec<SharedSubscription>, StoreError>;

    /// Puts something into the private queue of a device, once for each message id of its sender. Durable.
    async fn queue_event(&self, sent: ToDevice) -> Result<Queuing, StoreError>;

    /// What waits in the queue of a device after `after`, ascending, and whether there is more: at most so many and so many
    /// bytes of data, but one; without what is over at `now_ms`.
    async fn device_events(
        &self,
        device: DeviceId,
        after: u64,
        size: (usize, usize),
        now_ms: u64,
    ) -> Result<(Vec<DeviceEvent>, bool), StoreError>;

    /// The device has these: they go. Relaxed, seen by reads when it returns.
    async fn end_device_events(&self, device: DeviceId, places: Vec<u64>)
    -> Result<(), StoreError>;

    /// Are both members of one conversation now, channels and broadcast lists aside?
    async fn share_conversation(&self, one: UserId, other: UserId) -> Result<bool, StoreError>;

    /// Removes a shared subscription with its position.
    async fn remove_shared(&self, user: UserId, id: DeviceId) -> Result<(), StoreError>;

    /// What the QoS 2 exchange of a device under this packet identifier came to, if it has not ended.
    async fn exchange(
        &self,
        device: DeviceId,
        packet_id: u16,
    ) -> Result<Option<Exchange>, StoreError>;

    /// Ends all QoS 2 exchanges of a device: their rows are gone, durably.
    async fn end_exchanges(&self, device: DeviceId) -> Result<(), StoreError>;

    /// Ends a QoS 2 exchange: its row is gone, durably. Says whether there was one.
    async fn end_exchange(&self, device: DeviceId, packet_id: u16) -> Result<bool, StoreError>;

    /// Makes a user.
    ///
    /// # Errors
    /// [`StoreError::HandleTaken`] if the handle belongs to somebody, or belonged within the last 90 days.
    async fn create_user(&self, user: User) -> Result<(), StoreError>;

    /// Replaces a user's row; the handle must not change. A row with `removed_ms` frees the handle (after 90 days), the
    /// tokens and the devices.
    async fn update_user(&self, user: User) -> Result<(), StoreError>;

    /// Gives a user another handle, if he still has `from`; says whether he had. The old one names nobody from then on, and
    /// rests like that of a removed user; only he may take it back.
    ///
    /// # Errors
    /// [`StoreError::HandleTaken`] as in [`ChatStore::create_user`].
    async fn change_handle(
        &self,
        user: UserId,
        from: Handle,
        to: Handle,
        now_ms: u64,
    ) -> Result<bool, StoreError>;

    /// Users (or else public conversations) that are found by a word that begins with `prefix`, in the order of the words, at
    /// most `limit`. They follow users, profiles and settings in the same commit.
    async fn search(
        &self,
        prefix: String,
        people: bool,
        limit: usize,
    ) -> Result<Vec<Subject>, StoreError>;

    /// One user.
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The user of a handle, removed ones excluded.
    async fn user_by_handle(&self, handle: &Handle) -> Result<Option<User>, StoreError>;

    /// Who has this handle, or had it last, also if he is removed.
    async fn last_of_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError>;

    /// Users in the order of their ids, at most `limit` after `after`, removed ones included.
    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<Vec<User>, StoreError>;

    /// What a user decided about himself; the defaults where nothing was stored.
    async fn profile(&self, user: UserId) -> Result<Profile, StoreError>;

    /// Replaces a profile, if it is still as it was. Says whether it was.
    async fn replace_profile(
        &self,
        user: UserId,
        before: Profile,
        after: Profile,
    ) -> Result<bool, StoreError>;

    /// What `user` has decided about `other`.
    async fn contact(&self, user: UserId, other: UserId) -> Result<Contact, StoreError>;

    /// Those in a list of `user`, in the order of their ids, at most `limit` after `after`.
    async fn contacts(
        &self,
        user: UserId,
        list: ContactList,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Contact>, StoreError>;

    /// How long the lists of `user` are. O(1).
    async fn contact_counts(&self, user: UserId) -> Result<ContactCounts, StoreError>;

    /// Changes what `user` has decided about `other`, unless a list would become longer than `max`; durable, and told by the
    /// next account version. What `other` writes in their direct conversation while he is blocked is stored, and hidden from
    /// `user` in the same commit.
    async fn change_contact(
        &self,
        user: UserId,
        other: UserId,
        change: ContactChange,
        max: ContactCounts,
        now_ms: u64,
    ) -> Result<Decided, StoreError>;

    /// How a user wants to be seen, and when he was; the defaults where nothing was stored.
    async fn presence(&self, user: UserId) -> Result<Standing, StoreError>;

    /// Changes what is at rest of the presence of users, as [`Standing::apply`] says: relaxed, seen by reads when it returns.
    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError>;

    /// Stores a token.
    async fn put_token(&self, token: Token) -> Result<(), StoreError>;

    /// The token of a hash.
    async fn token(&self, hash: [u8; 32]) -> Result<Option<Token>, StoreError>;

    /// All tokens of a user.
    async fn tokens(&self, user: UserId) -> Result<Vec<Token>, StoreError>;

    /// Removes a token by its public id. Says whether there was one.
    async fn remove_token(&self, user: UserId, id: &str) -> Result<bool, StoreError>;

    /// Tells of everything committed from now on, in the order of the commits. Called once, before the first append.
    /// The store waits while the receiver is behind by its bound; whoever reads it must not wait for a write meanwhile.
    fn feed(&self) -> tokio::sync::mpsc::Receiver<Committed>;

    /// How the store is.
    fn health(&self) -> Health;

    /// What the store measures.
    fn metrics(&self) -> Arc<StoreMetrics>;

    /// Waits until every relaxed write so far is durable.
    async fn flush(&self) -> Result<(), StoreError>;

    /// Drops idempotency keys and receipt rows whose time is over, and QoS 2 exchanges that began before `oldest_ms`: their
    /// client is not waited for any longer; and lines of the audit log. Compacts if the engine wants to. Called every hour.
    async fn maintain(
        &self,
        now_ms: u64,
        oldest_ms: u64,
        audit: AuditKeep,
    ) -> Result<(), StoreError>;

    /// Writes a line of the audit log, or this one in the place of the one with that number; durable. Says its number. Lines of
    /// what is stored otherwise go with it ([`Draft::audit`], [`ChatStore::reject_held`] …).
    async fn audit(&self, line: AuditLine, number: Option<u64>) -> Result<u64, StoreError>;

    /// Lines of one of the logs with their numbers, the newest first, at most `limit` before `before`.
    async fn audited(
        &self,
        log: AuditLog,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditLine)>, StoreError>;

    /// Flushes, writes the commit watermark, and closes. Nothing works afterwards.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Which entries [`ChatStore::page`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    /// First place wanted.
    pub from: Seq,
    /// Last place wanted.
    pub to: Seq,
    /// Take the newest `limit` of the range instead of the oldest.
    pub newest: bool,
    /// At most so many entries.
    pub limit: usize,
    /// At most so many bytes of bodies, but one entry at least.
    pub bytes: usize,
    /// Of what happened to them, what is to be shown: all ([`Seq::MAX`]), or only edits up to this place.
    pub as_of: Seq,
}

/// Result of [`ChatStore::written`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The messages.
    pub entries: Vec<Entry>,
    /// How many were looked at.
    pub looked_at: usize,
    /// The last one that was looked at; `None`: there are no more.
    pub next: Option<Seq>,
}

/// What [`ChatStore::channels_behind`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Those that have gone on.
    pub found: Vec<ConversationId>,
    /// How many were looked at.
    pub looked_at: usize,
    /// The last one that was looked at, if there may be more behind it.
    pub next: Option<ConversationId>,
}

/// An entry of a broadcast list on its way to the direct conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The list.
    pub list: ConversationId,
    /// The entry.
    pub seq: Seq,
    /// The last one whom it has reached.
    pub after: Option<UserId>,
}

/// What [`ChatStore::ask_to_join`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskToJoin {
    /// Who asks, and where.
    pub request: JoinRequest,
    /// Hash of the code on which it rests, one use of which it costs.
    pub code: Option<[u8; 16]>,
    /// Requests of one conversation.
    pub limit: usize,
    /// For whom the conversation has changed.
    pub tell: Vec<UserId>,
}

/// Result of [`ChatStore::place_of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place.
    pub seq: Seq,
    /// Its time, in ms since 1970.
    pub ts_ms: u64,
    /// Digest of what was stored.
    pub digest: [u8; 16],
}

/// Result of [`ChatStore::exchange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Where the message was stored.
    pub conversation: ConversationId,
    /// Its place there.
    pub place: Place,
}

/// Result of [`ChatStore::moved_over`]: when, in ms since 1970, if it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedOver {
    /// It was delivered.
    pub delivered_ms: Option<u64>,
    /// It was read.
    pub read_ms: Option<u64>,
}

/// Result of [`ChatStore::count_up_to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Countable entries.
    pub all: u64,
    /// Those of the user.
    pub own: u64,
    /// Those of others that are gone for all or hidden from the user.
    pub excluded: u64,
}

impl Counts {
    /// Those that the user has not seen, if these are the counts up to here and `read` those up to the read mark.
    pub fn unread_since(self, read: Self) -> u64 {
        let passed = |to: u64, from: u64| to.saturating_sub(from);
        passed(self.all, read.all)
            .saturating_sub(passed(self.own, read.own))
            .saturating_sub(passed(self.excluded, read.excluded))
    }
}

/// A cursor or mark that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The device has everything up to `seq`.
    Cursor {
        /// Which device.
        device: DeviceId,
        /// In which conversation.
        conversation: ConversationId,
        /// How far.
        seq: Seq,
    },
    /// Marks of a user: those of the old and new that are higher; `unread_flag` as given, if given.
    Marks {
        /// In which conversation.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// Some device has everything up to here.
        delivered: Seq,
        /// Read, for all to see.
        read: Seq,
        /// Read, for the own devices.
        private_read: Seq,
        /// Shown as unread.
        unread_flag: Option<bool>,
        /// Time of the move.
        ts_ms: u64,
    },
    /// Receipts for this sender moved.
    ReceiptDue {
        /// The sender.
        user: UserId,
        /// In which conversation.
        conversation: ConversationId,
        /// When.
        ts_ms: u64,
    },
}

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns.
    Durable,
    /// Soon: losing it means only that something is repeated.
    Relaxed,
}

/// Rows by which repeated messages are known. Weeks are those of the server's uptime, from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdPage {
    /// Week, rows, and bytes of keys and values; ascending.
    pub weeks: Vec<(u16, u64, u64)>,
    /// The last row that was looked at; `None`: there are no more.
    pub next: Option<Vec<u8>>,
}

/// What has been dropped of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedIds {
    /// The present week, which stays.
    pub week: u16,
    /// Rows.
    pub rows: u64,
    /// Where the next step begins; `None`: that was all.
    pub next: Option<Vec<u8>>,
}

/// What was committed in one conversation, for live delivery: a new entry, or earlier ones that have changed, or both.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Where.
    pub conversation: ConversationId,
    /// The head.
    pub head: Seq,
    /// The entry at the head. `None`: it is not new, or (a store shared between nodes) has to be read.
    pub entry: Option<Arc<Entry>>,
    /// Earlier entries as they are now: whatever was made of them before must not be handed out any more.
    pub changed: Vec<Arc<Entry>>,
    /// Members, roles or settings changed with it: what was cached of them is old.
    pub members_changed: bool,
    /// Who has blocked the sender of the entry, and never sees it.
    pub hidden_from: Option<UserId>,
    /// Who came into a channel, went or became another, as they are now: what was cached of them is old. With neither an
    /// entry nor changed ones that is all.
    pub readers: Vec<Member>,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The write may or may not have happened; nothing more is accepted. Ask again after a restart.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store takes no writes (disk budget used up).
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// What was read makes no sense.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Another process has the data directory.
    #[error("the data directory is in use by another process")]
    Locked,
    /// Written by a newer mqchat.
    #[error("the store has schema {found}, this mqchat knows up to {known}")]
    NewerSchema {
        /// In the store.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The engine is behind the commit watermark: acknowledged data is missing.
    #[error(
        "the store ends at commit {found}, but commit {known} was acknowledged: data is missing (--accept-loss starts anyway)"
    )]
    Behind {
        /// Last commit in the engine.
        found: u64,
        /// Last commit known to have been acknowledged.
        known: u64,
    },
    /// The handle belongs to somebody, or did within the last 90 days.
    #[error("the handle is taken")]
    HandleTaken,
    /// The body of an entry is larger than the store keeps.
    #[error("a body of {bytes} bytes, the store keeps at most {max}")]
    TooLarge {
        /// Bytes of the body.
        bytes: usize,
        /// Most bytes of a body.
        max: usize,
    },
    /// A file that is not the store's cannot be written or read, or is no dump.
    #[error("{0}")]
    File(String),
    /// A store is to be made where one is.
    #[error("there is a store already")]
    Exists,
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// It was not done, or not to its end; nothing is lost by trying again later.
    #[error("{0}")]
    NotNow(String),
}

impl StoreError {
    /// Is it about what was to be read or written, and not about all writing?
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::ReadOnly(_))
    }
}

#[cfg(any(feature = "fjall", feature = "sled"))]
impl From<OfflineError> for StoreError {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::File(why) => Self::File(why),
            OfflineError::Exists => Self::Exists,
            OfflineError::Engine(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Io(reason) => Self::Unavailable(reason),
            EngineError::ReadOnly(reason) => Self::ReadOnly(reason),
            EngineError::NotNow(reason) => Self::NotNow(reason),
            EngineError::Locked => Self::Locked,
            EngineError::NotFound => Self::NotFound,
            EngineError::NewerSchema { found, known } => Self::NewerSchema { found, known },
            EngineError::Behind { found, known } => Self::Behind { found, known },
            EngineError::Corrupt(reason) => Self::Corrupt(reason),
            other => Self::Corrupt(other.to_string()),
        }
    }
}
