//! Values of rows, as `docs/storage.md` draws them. Writing cannot fail; reading distrusts every byte.

pub(super) mod audit;
pub(super) mod devices;
pub(super) mod joining;

use bytes::Bytes;
use proto::error::ErrorName;
use proto::ids::{ConversationId, DeviceId, Handle, MessageId, Seq, UserId};
use proto::payload::{PresenceChoice, PresenceState};

use super::keys;
use super::writer::waiting::Tally;
use crate::domain::account::{Preferences, Subject};
use crate::domain::contact::{Contact, ContactCounts};
use crate::domain::conversation::Settings;
use crate::domain::device::{Device, Inflight, Subscription};
use crate::domain::entry::{BodyFormat, Entry, EntryKind, Mentioned};
use crate::domain::held::Held;
use crate::domain::member::{Interval, Marks, Member, Role};
use crate::domain::overlay::{GoneReason, HiddenBy, Overlay, Pin, Report};
use crate::domain::presence::Standing;
use crate::domain::profile::Profile;
use crate::domain::purge::Range;
use crate::domain::rights::{Mask, Rights};
use crate::domain::scheduled::Scheduled;
use crate::domain::user::{ScramKeys, Token, User};
use crate::store::StoreError;

/// Whom a mention of all means, in the place of a user.
pub(super) const EVERYBODY: UserId = UserId::from_bytes([0xFF; 16]);
/// The format byte of everything written today.
const FORMAT: u8 = 1;
/// Largest time that has room in 6 bytes.
pub(super) const TIME_MAX: u64 = (1 << 48) - 1;

/// The part of a conversation that changes with every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) mseq: u64,
    pub(super) ts_ms: u64,
    pub(super) version: u32,
}

/// Where a message with some key of idempotency was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    pub(super) seq: Seq,
    pub(super) ts_ms: u64,
    pub(super) digest: [u8; 16],
}

/// The result of a QoS 2 exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchanged {
    pub(super) conversation: ConversationId,
    pub(super) seq: Seq,
    pub(super) ts_ms: u64,
    /// Of what was published.
    pub(super) digest: [u8; 16],
}

/// Who has a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HandleRow {
    pub(super) user: UserId,
    /// When it was freed; 0: in use.
    pub(super) freed_ms: u64,
}

/// What a user has decided about a conversation, and the account version of its last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// 0: none yet.
    pub(super) version: u64,
    pub(super) preferences: Preferences,
    /// Of a channel that the user reads: up to here his devices have been told of it.
    pub(super) told: Seq,
}

// -- writing

fn time(out: &mut Vec<u8>, ms: u64) {
    let [_, _, low @ ..] = ms.min(TIME_MAX).to_be_bytes();
    out.extend_from_slice(&low);
}

fn long(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Texts longer than 65,535 bytes cannot come from MQTT; should one come from elsewhere, its end is cut off.
fn text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes().get(..end).unwrap_or_default();
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.reserve(MESSAGE_FIXED_BYTES + 64 + entry.body.len());
    let flags = [
        (entry.opaque, flag::OPAQUE),
        (entry.gone.is_some(), flag::GONE),
        (entry.target.is_some(), flag::TARGET),
        (entry.thread.is_some(), flag::THREAD),
        (entry.expires_ms.is_some(), flag::EXPIRES),
        (!entry.mentions.is_empty(), flag::MENTIONS),
        (entry.source.is_some(), flag::SOURCE),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    out.extend_from_slice(&[FORMAT, entry.kind.to_byte(), entry.format.to_byte(), flags]);
    time(out, entry.ts_ms);
    long(out, entry.mseq);
    out.extend_from_slice(entry.from.as_bytes());
    out.extend_from_slice(entry.device.as_bytes());
    let mid = entry.mid.as_str().as_bytes();
    out.push(u8::try_from(mid.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(mid);
    out.extend(entry.gone.map(reason_byte));
    for place in [entry.target, entry.thread].into_iter().flatten() {
        long(out, place.get());
    }
    if let Some(ms) = entry.expires_ms {
        time(out, ms);
    }
    if !entry.mentions.is_empty() {
        write_mentions(out, &entry.mentions);
    }
    match entry.source {
        Some((list, seq)) => {
            out.extend_from_slice(&keys::cid(list));
            long(out, seq.get());
        }
        None => out.extend_from_slice(&entry.body),
    }
}

fn write_mentions(out: &mut Vec<u8>, mentions: &Mentioned) {
    let all = mentions.all.then_some(&EVERYBODY);
    let users = all.into_iter().chain(&mentions.users);
    let users = users.take(usize::from(u8::MAX));
    let place = out.len();
    out.push(0);
    let mut count = 0;
    for user in users {
        out.extend_from_slice(user.as_bytes());
        count += 1;
    }
    if let Some(byte) = out.get_mut(place) {
        *byte = count;
    }
}

/// Bits of the flags of a message: what follows its `mid`.
mod flag {
    pub(super) const OPAQUE: u8 = 1;
    pub(super) const GONE: u8 = 2;
    pub(super) const TARGET: u8 = 4;
    pub(super) const THREAD: u8 = 8;
    pub(super) const EXPIRES: u8 = 16;
    pub(super) const MENTIONS: u8 = 32;
    pub(super) const SOURCE: u8 = 64;
}

/// Only what is gone for all is so at rest.
fn reason_byte(reason: GoneReason) -> u8 {
    match reason {
        GoneReason::Expired => 2,
        GoneReason::Purged => 3,
        _ => 1,
    }
}

pub(super) fn write_overlay(overlay: &Overlay) -> Vec<u8> {
    let mut out = vec![FORMAT, u8::from(overlay.pinned)];
    let edits = u16::try_from(overlay.edits.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&edits.to_be_bytes());
    for edit in overlay.edits.iter().take(usize::from(edits)) {
        long(&mut out, edit.get());
    }
    time(&mut out, overlay.edited_ms);
    let reactions = u16::try_from(overlay.reactions.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&reactions.to_be_bytes());
    for (emoji, count) in overlay.reactions.iter().take(usize::from(reactions)) {
        text(&mut out, emoji);
        out.extend_from_slice(&count.to_be_bytes());
    }
    out
}

/// The emoji of one user on one message.
pub(super) fn write_emoji(emoji: &[Box<str>]) -> Vec<u8> {
    let count = u8::try_from(emoji.len()).unwrap_or(u8::MAX);
    let mut out = vec![FORMAT, count];
    for one in emoji.iter().take(usize::from(count)) {
        text(&mut out, one);
    }
    out
}

pub(super) fn write_scheduled(scheduled: &Scheduled) -> Vec<u8> {
    let flags = [
        scheduled.opaque,
        scheduled.refused.is_some(),
        scheduled.reply_to.is_some(),
        scheduled.thread.is_some(),
        scheduled.ttl_s.is_some(),
    ];
    let flags = flags
        .into_iter()
        .rev()
        .fold(0, |all, flag| all << 1 | u8::from(flag));
    let mut out = Vec::with_capacity(128 + scheduled.body.len());
    out.extend_from_slice(&[FORMAT, flags, scheduled.format.to_byte()]);
    time(&mut out, scheduled.at_ms);
    time(&mut out, scheduled.due_ms);
    out.extend_from_slice(scheduled.device.as_bytes());
    out.extend_from_slice(&scheduled.digest);
    out.extend_from_slice(&keys::cid(scheduled.conversation));
    text(&mut out, &scheduled.target.to_string());
    if let Some((name, said)) = &scheduled.refused {
        text(&mut out, name.name());
        text(&mut out, said);
    }
    for place in [scheduled.reply_to, scheduled.thread].into_iter().flatten() {
        long(&mut out, place.get());
    }
    out.extend(scheduled.ttl_s.iter().flat_map(|ttl_s| ttl_s.to_be_bytes()));
    out.extend_from_slice(&scheduled.body);
    out
}

/// Who wrote a message: table mention.
pub(super) fn write_user_id(user: UserId) -> [u8; 17] {
    keys::join(&[&[FORMAT], user.as_bytes()])
}

pub(super) fn write_pin(by: UserId, ts_ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(by.as_bytes());
    time(&mut out, ts_ms);
    out
}

/// A count that may be negative: table excluded.
pub(super) fn write_count(count: i64) -> [u8; 9] {
    keys::join(&[&[FORMAT], &count.to_be_bytes()])
}

/// A row that says all by being there: table expiry.
pub(super) const PRESENT: &[u8] = &[FORMAT];

pub(super) fn write_report(report: &Report) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::cid(report.conversation));
    long(&mut out, report.seq.get());
    text(&mut out, &report.text);
    out
}

/// What is left of a purge under way, and the messages that went so far.
pub(super) fn write_purge(range: &Range, messages: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    long(&mut out, messages);
    long(&mut out, range.from.get());
    long(&mut out, range.to.get());
    if let Some(by) = range.by {
        out.extend_from_slice(by.as_bytes());
    }
    out
}

pub(super) fn write_held(held: &Held) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, held.entry.ts_ms);
    out.extend_from_slice(&held.digest);
    text(&mut out, &held.reason);
    write_entry(&mut out, &held.entry);
    out
}

pub(super) fn write_tally(tally: Tally) -> Vec<u8> {
    let mut out = vec![FORMAT];
    long(&mut out, tally.count);
    time(&mut out, tally.last_ms);
    out
}

pub(super) fn write_first(out: &mut Vec<u8>, first: &First) {
    out.push(FORMAT);
    long(out, first.seq.get());
    time(out, first.ts_ms);
    out.extend_from_slice(&first.digest);
}

pub(super) fn write_head(out: &mut Vec<u8>, head: &Head) {
    out.push(FORMAT);
    long(out, head.seq.get());
    long(out, head.mseq);
    time(out, head.ts_ms);
    out.extend_from_slice(&head.version.to_be_bytes());
}

pub(super) fn write_settings(settings: &Settings) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT];
    serde_json::to_writer(&mut out, settings)
        .map_err(|error| StoreError::Corrupt(format!("settings cannot be written: {error}")))?;
    Ok(out)
}

pub(super) fn write_member(member: &Member) -> Vec<u8> {
    let mut out = Vec::with_capacity(14 + 24 * member.intervals.len());
    out.extend_from_slice(&[FORMAT, member.role.to_byte()]);
    for rights in [member.mask.given, member.mask.want] {
        let bits = rights.map_or(NO_RIGHTS_SAID, Rights::to_bits);
        out.extend_from_slice(&bits.to_be_bytes());
    }
    long(&mut out, member.joined.get());
    for interval in &member.intervals {
        long(&mut out, interval.from.get());
        long(&mut out, interval.joined.get());
        long(&mut out, interval.to.get());
    }
    out
}

/// Those of the role.
const NO_RIGHTS_SAID: u16 = u16::MAX;

pub(super) fn write_marks(marks: &Marks) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    let has_hidden = marks.hidden > Seq::ZERO;
    let flags =
        u8::from(marks.unread_flag) | u8::from(has_hidden) << 1 | u8::from(marks.blocks) << 2;
    out.extend_from_slice(&[FORMAT, flags]);
    long(&mut out, marks.delivered.get());
    long(&mut out, marks.read.get());
    long(&mut out, marks.private_read.get());
    time(&mut out, marks.moved_ms);
    if has_hidden {
        long(&mut out, marks.hidden.get());
    }
    out
}

/// A row that says all by being there.
pub(super) const EMPTY: &[u8] = &[FORMAT];

pub(super) fn write_subject(about: Subject) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::subject(about));
    out
}

pub(super) fn write_contact(contact: &Contact) -> Vec<u8> {
    let flags = u8::from(contact.is_contact()) | u8::from(contact.is_blocked()) << 1;
    let mut out = vec![FORMAT, flags];
    time(&mut out, contact.added_ms.unwrap_or_default());
    time(&mut out, contact.blocked_ms.unwrap_or_default());
    text(&mut out, &contact.called);
    out
}

pub(super) fn write_contact_counts(counts: ContactCounts) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&counts.contacts.to_be_bytes());
    out.extend_from_slice(&counts.blocked.to_be_bytes());
    out
}

/// An entry that one user does not see: by his own wish, or because he has blocked its sender.
pub(super) fn write_hidden(ts_ms: u64, by_block: bool) -> Vec<u8> {
    let mut out = write_time(ts_ms);
    out.push(u8::from(by_block));
    out
}

pub(super) fn write_changed(changed: &Changed) -> Vec<u8> {
    let preferences = changed.preferences;
    let mut out = vec![FORMAT];
    long(&mut out, changed.version);
    time(&mut out, preferences.muted_until);
    let flags = u8::from(preferences.archived)
        | u8::from(preferences.pinned) << 1
        | u8::from(preferences.watch) << 2
        | u8::from(changed.told > Seq::ZERO) << 3;
    out.push(flags);
    if changed.told > Seq::ZERO {
        long(&mut out, changed.told.get());
    }
    out
}

/// A user is a member of a conversation.
pub(super) const USER_CONVERSATION: &[u8] = &[FORMAT];
/// A user was one.
pub(super) const LEFT_CONVERSATION: &[u8] = &[FORMAT, 1];

/// A number or place alone: tables own, cursor and conversation count.
pub(super) fn write_number(number: u64) -> [u8; 9] {
    keys::join(&[&[FORMAT], &number.to_be_bytes()])
}

pub(super) fn write_time(ms: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, ms);
    out
}

pub(super) fn write_device(device: &Device) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&device.session_expiry.to_be_bytes());
    let flags = u8::from(device.has_inbox)
        | u8::from(device.connected) << 1
        | u8::from(device.has_queue) << 2;
    out.push(flags);
    time(&mut out, device.receipts_ms);
    time(&mut out, device.last_seen_ms);
    long(&mut out, device.account);
    text(&mut out, &device.client_id);
    time(&mut out, device.first_seen_ms);
    text(&mut out, device.token.as_deref().unwrap_or_default());
    let count = u16::try_from(device.subscriptions.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for subscription in device.subscriptions.iter().take(usize::from(count)) {
        let flags = subscription.qos & 3
            | u8::from(subscription.no_local) << 2
            | u8::from(subscription.retain_as_published) << 3
            | u8::from(subscription.identifier.is_some()) << 4;
        out.push(flags);
        out.extend_from_slice(&subscription.identifier.unwrap_or(0).to_be_bytes());
        out.push(subscription.slot);
        time(&mut out, subscription.made_ms);
        text(&mut out, &subscription.filter);
    }
    out
}

/// Most references that a device keeps in flight.
pub(super) const INFLIGHT_MAX: usize = 2_048;

pub(super) fn write_inflight(inflight: &[Inflight]) -> Vec<u8> {
    let count = inflight.len().min(INFLIGHT_MAX);
    let mut out = Vec::with_capacity(1 + INFLIGHT_BYTES * count);
    out.push(FORMAT);
    for reference in inflight.iter().take(INFLIGHT_MAX) {
        out.extend_from_slice(&reference.packet_id.to_be_bytes());
        out.push(reference.form);
        out.extend_from_slice(&keys::cid(reference.conversation));
        long(&mut out, reference.seq.get());
    }
    out
}

pub(super) fn write_exchanged(exchanged: &Exchanged) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::cid(exchanged.conversation));
    long(&mut out, exchanged.seq.get());
    time(&mut out, exchanged.ts_ms);
    out.extend_from_slice(&exchanged.digest);
    out
}

pub(super) fn write_user(user: &User) -> Vec<u8> {
    let flags = u8::from(user.password_hash.is_some())
        | u8::from(user.removed_ms.is_some()) << 1
        | u8::from(user.scram.is_some()) << 2;
    let mut out = vec![FORMAT, flags];
    time(&mut out, user.created_ms);
    time(&mut out, user.removed_ms.unwrap_or(0));
    text(&mut out, user.handle.as_str());
    text(&mut out, &user.name);
    text(&mut out, user.password_hash.as_deref().unwrap_or_default());
    if let Some(keys) = &user.scram {
        out.extend_from_slice(&keys.salt);
        out.extend_from_slice(&keys.iterations.to_be_bytes());
        out.extend_from_slice(&keys.stored_key);
        out.extend_from_slice(&keys.server_key);
    }
    out
}

pub(super) fn write_handle(row: HandleRow) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(row.user.as_bytes());
    time(&mut out, row.freed_ms);
    out
}

pub(super) fn write_token(token: &Token) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(token.user.as_bytes());
    time(&mut out, token.created_ms);
    text(&mut out, &token.id);
    text(&mut out, &token.label);
    out
}

pub(super) fn write_profile(profile: &Profile) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![FORMAT];
    serde_json::to_writer(&mut out, profile)
        .map_err(|error| StoreError::Corrupt(format!("a profile cannot be written: {error}")))?;
    Ok(out)
}

/// The states that a user may choose, by their bytes from 1.
const CHOICES: [PresenceState; 4] = [
    PresenceState::Online,
    PresenceState::Away,
    PresenceState::Dnd,
    PresenceState::Invisible,
];

pub(super) fn write_presence(standing: &Standing) -> Vec<u8> {
    let place = CHOICES
        .iter()
        .position(|state| *state == standing.choice.state);
    let state = u8::try_from(place.unwrap_or_default() + 1).unwrap_or(1);
    let mut out = vec![FORMAT, state];
    time(&mut out, standing.seen_ms);
    text(&mut out, &standing.choice.text);
    out
}

pub(super) fn write_hash(hash: [u8; 32]) -> [u8; 33] {
    keys::join(&[&[FORMAT], &hash])
}

// -- reading

/// Reads the fields of a value from the front.
struct Reader<'a> {
    rest: &'a [u8],
    table: &'static str,
}

type Read<T> = Result<T, StoreError>;

impl<'a> Reader<'a> {
    /// Checks the format byte.
    fn new(table: &'static str, value: &'a [u8]) -> Read<Self> {
        match value.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { rest, table }),
            Some((other, _)) => Err(StoreError::Corrupt(format!(
                "a row of table {table} has the unknown format {other}"
            ))),
            None => Err(StoreError::Corrupt(format!(
                "a row of table {table} is empty"
            ))),
        }
    }

    fn bad(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("a row of table {}: {what}", self.table))
    }

    fn bytes(&mut self, len: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| self.bad("too short"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.bad("too short"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn short(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn word(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn seq(&mut self) -> Read<Seq> {
        self.long().map(Seq::new)
    }

    fn rights(&mut self) -> Read<Option<Rights>> {
        match self.short()? {
            NO_RIGHTS_SAID => Ok(None),
            bits => Rights::from_bits(bits)
                .map(Some)
                .ok_or_else(|| self.bad("unknown rights")),
        }
    }

    fn time(&mut self) -> Read<u64> {
        let low: [u8; 6] = self.array()?;
        Ok(u64::from_be_bytes(keys::join(&[&[0, 0], &low])))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Read<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.bad("not UTF-8"))
    }

    fn text(&mut self) -> Read<&'a str> {
        let len = usize::from(self.short()?);
        let bytes = self.bytes(len)?;
        self.utf8(bytes)
    }

    fn cid(&mut self) -> Read<ConversationId> {
        let bytes = self.bytes(keys::CID_BYTES)?;
        keys::read_cid(bytes).ok_or_else(|| self.bad("no conversation id"))
    }

    fn refusal(&mut self) -> Read<(ErrorName, String)> {
        let name = self.text()?;
        let name = ErrorName::ALL
            .into_iter()
            .find(|known| known.name() == name);
        let name = name.ok_or_else(|| self.bad("unknown refusal"))?;
        Ok((name, self.text()?.to_owned()))
    }

    fn mentions(&mut self) -> Read<Mentioned> {
        let users = (0..self.byte()?).map(|_| self.user());
        let mut users = users.collect::<Read<Vec<_>>>()?;
        let all = users.first() == Some(&EVERYBODY);
        if all {
            users.remove(0);
        }
        let users = users.into();
        Ok(Mentioned { all, users })
    }

    fn user(&mut self) -> Read<UserId> {
        self.array().map(UserId::from_bytes)
    }

    fn gone_reason(&mut self) -> Read<GoneReason> {
        Ok(match self.byte()? {
            1 => GoneReason::Deleted,
            2 => GoneReason::Expired,
            3 => GoneReason::Purged,
            _ => return Err(self.bad("unknown reason of being gone")),
        })
    }

    fn end(self) -> Read<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.bad("too long"))
        }
    }
}

/// Bytes of a message before the length of its `mid`.
const MESSAGE_FIXED_BYTES: usize = 50;

pub(super) fn read_entry(conversation: ConversationId, seq: Seq, value: &[u8]) -> Read<Entry> {
    let mut reader = Reader::new("message", value)?;
    let kind = reader.byte()?;
    let kind = EntryKind::from_byte(kind).ok_or_else(|| reader.bad("unknown kind"))?;
    let format = reader.byte()?;
    let format = BodyFormat::from_byte(format).ok_or_else(|| reader.bad("unknown body format"))?;
    let flags = reader.byte()?;
    let ts_ms = reader.time()?;
    let mseq = reader.long()?;
    let from = reader.user()?;
    let device = DeviceId::from_bytes(reader.array()?);
    let len = usize::from(reader.byte()?);
    let mid = reader.bytes(len)?;
    let mid: MessageId = reader
        .utf8(mid)?
        .parse()
        .map_err(|_| reader.bad("bad message id"))?;
    let has = |bit: u8| flags & bit != 0;
    let gone = has(flag::GONE).then(|| reader.gone_reason()).transpose()?;
    let target = has(flag::TARGET).then(|| reader.seq()).transpose()?;
    let thread = has(flag::THREAD).then(|| reader.seq()).transpose()?;
    let expires_ms = has(flag::EXPIRES).then(|| reader.time()).transpose()?;
    let mentions = has(flag::MENTIONS).then(|| reader.mentions()).transpose()?;
    let source = if has(flag::SOURCE) {
        Some((reader.cid()?, reader.seq()?))
    } else {
        None
    };
    Ok(Entry {
        conversation,
        seq,
        mseq,
        ts_ms,
        from,
        device,
        mid,
        kind,
        format,
        opaque: has(flag::OPAQUE),
        body: Bytes::copy_from_slice(reader.rest),
        target,
        thread,
        expires_ms,
        mentions: mentions.unwrap_or_default(),
        gone,
        source,
        overlay: None,
    })
}

pub(super) fn read_scheduled(user: UserId, mid: MessageId, value: &[u8]) -> Read<Scheduled> {
    let mut reader = Reader::new("scheduled", value)?;
    let flags = reader.byte()?;
    let has = |bit: u8| flags & 1 << bit != 0;
    let format = reader.byte()?;
    let format = BodyFormat::from_byte(format).ok_or_else(|| reader.bad("unknown body format"))?;
    let (at_ms, due_ms) = (reader.time()?, reader.time()?);
    let device = DeviceId::from_bytes(reader.array()?);
    let digest = reader.array()?;
    let conversation = reader.cid()?;
    let target = reader.text()?.parse();
    let target = target.map_err(|_| reader.bad("no target"))?;
    let refused = has(1).then(|| reader.refusal()).transpose()?;
    let reply_to = has(2).then(|| reader.seq()).transpose()?;
    let thread = has(3).then(|| reader.seq()).transpose()?;
    let ttl_s = has(4).then(|| reader.word()).transpose()?;
    Ok(Scheduled {
        user,
        device,
        mid,
        at_ms,
        due_ms,
        target,
        conversation,
        digest,
        format,
        opaque: has(0),
        body: Bytes::copy_from_slice(reader.rest),
        reply_to,
        thread,
        ttl_s,
        refused,
    })
}

pub(super) fn read_user_id(table: &'static str, value: &[u8]) -> Read<UserId> {
    let mut reader = Reader::new(table, value)?;
    let user = reader.user()?;
    reader.end()?;
    Ok(user)
}

pub(super) fn read_overlay(value: &[u8]) -> Read<Overlay> {
    let mut reader = Reader::new("overlay", value)?;
    let pinned = reader.byte()? & 1 != 0;
    let edits = (0..reader.short()?)
        .map(|_| reader.seq())
        .collect::<Read<_>>()?;
    let edited_ms = reader.time()?;
    let mut reactions = Vec::new();
    for _ in 0..reader.short()? {
        reactions.push((reader.text()?.into(), reader.word()?));
    }
    reader.end()?;
    Ok(Overlay {
        edits,
        edited_ms,
        reactions,
        pinned,
    })
}

pub(super) fn read_emoji(value: &[u8]) -> Read<Vec<Box<str>>> {
    let mut reader = Reader::new("reaction", value)?;
    let count = reader.byte()?;
    let emoji = (0..count).map(|_| reader.text().map(Box::from));
    let emoji = emoji.collect::<Read<_>>()?;
    reader.end()?;
    Ok(emoji)
}

pub(super) fn read_pin(seq: Seq, value: &[u8]) -> Read<Pin> {
    let mut reader = Reader::new("pin", value)?;
    let pin = Pin {
        seq,
        by: reader.user()?,
        ts_ms: reader.time()?,
    };
    reader.end()?;
    Ok(pin)
}

pub(super) fn read_count(value: &[u8]) -> Read<i64> {
    let mut reader = Reader::new("excluded", value)?;
    let count = reader.array().map(i64::from_be_bytes)?;
    reader.end()?;
    Ok(count)
}

/// What the key of a report says is given: when, by whom, and under which id.
pub(super) fn read_report(
    (ts_ms, by, mid): (u64, UserId, MessageId),
    value: &[u8],
) -> Read<Report> {
    let mut reader = Reader::new("report", value)?;
    let report = Report {
        ts_ms,
        by,
        mid,
        conversation: reader.cid()?,
        seq: reader.seq()?,
        text: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(report)
}

/// `mseq` of a message, without reading the rest.
pub(super) fn read_entry_mseq(value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new("message", value)?;
    reader.bytes(9)?;
    reader.long()
}

pub(super) fn read_first(value: &[u8]) -> Read<First> {
    let mut reader = Reader::new("idempotency", value)?;
    let first = First {
        seq: reader.seq()?,
        ts_ms: reader.time()?,
        digest: reader.array()?,
    };
    reader.end()?;
    Ok(first)
}

pub(super) fn read_head(value: &[u8]) -> Read<Head> {
    let mut reader = Reader::new("conversation", value)?;
    let head = Head {
        seq: reader.seq()?,
        mseq: reader.long()?,
        ts_ms: reader.time()?,
        version: reader.word()?,
    };
    reader.end()?;
    Ok(head)
}

pub(super) fn read_profile(value: &[u8]) -> Read<Profile> {
    let reader = Reader::new("profile", value)?;
    serde_json::from_slice(reader.rest).map_err(|error| reader.bad(&error.to_string()))
}

pub(super) fn read_presence(value: &[u8]) -> Read<Standing> {
    let mut reader = Reader::new("presence", value)?;
    let state = usize::from(reader.byte()?).checked_sub(1);
    let state = state.and_then(|place| CHOICES.get(place).copied());
    let state = state.ok_or_else(|| reader.bad("unknown state"))?;
    let standing = Standing {
        seen_ms: reader.time()?,
        choice: PresenceChoice {
            state,
            text: reader.text()?.to_owned(),
        },
    };
    reader.end()?;
    Ok(standing)
}

pub(super) fn read_settings(value: &[u8]) -> Read<Settings> {
    let reader = Reader::new("settings", value)?;
    serde_json::from_slice(reader.rest).map_err(|error| reader.bad(&error.to_string()))
}

pub(super) fn read_member(user: UserId, value: &[u8]) -> Read<Member> {
    let mut reader = Reader::new("member", value)?;
    let role = reader.byte()?;
    let role = Role::from_byte(role).ok_or_else(|| reader.bad("unknown role"))?;
    let mask = Mask {
        given: reader.rights()?,
        want: reader.rights()?,
    };
    let joined = reader.seq()?;
    let mut intervals = Vec::with_capacity(reader.rest.len() / 24);
    while !reader.rest.is_empty() {
        intervals.push(Interval {
            from: reader.seq()?,
            joined: reader.seq()?,
            to: reader.seq()?,
        });
    }
    Ok(Member {
        user,
        role,
        mask,
        joined,
        intervals,
    })
}

pub(super) fn read_marks(value: &[u8]) -> Read<Marks> {
    let mut reader = Reader::new("marks", value)?;
    let flags = reader.byte()?;
    let marks = Marks {
        delivered: reader.seq()?,
        read: reader.seq()?,
        private_read: reader.seq()?,
        unread_flag: flags & 1 != 0,
        moved_ms: reader.time()?,
        hidden: if flags & 2 == 0 {
            Seq::ZERO
        } else {
            reader.seq()?
        },
        blocks: flags & 4 != 0,
    };
    reader.end()?;
    Ok(marks)
}

pub(super) fn read_purge(value: &[u8]) -> Read<(Range, u64)> {
    let mut reader = Reader::new("purge", value)?;
    let messages = reader.long()?;
    let (from, to) = (reader.seq()?, reader.seq()?);
    let by = match reader.rest {
        [] => None,
        _ => Some(reader.user()?),
    };
    reader.end()?;
    Ok((Range { from, to, by }, messages))
}

pub(super) fn read_number(table: &'static str, value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new(table, value)?;
    let number = reader.long()?;
    reader.end()?;
    Ok(number)
}

pub(super) fn read_subject(value: &[u8]) -> Read<Subject> {
    let mut reader = Reader::new("change", value)?;
    let bytes = reader.bytes(keys::CID_BYTES)?;
    let about = keys::read_subject(bytes).ok_or_else(|| reader.bad("nothing that changes"))?;
    reader.end()?;
    Ok(about)
}

pub(super) fn read_contact(other: UserId, value: &[u8]) -> Read<Contact> {
    let mut reader = Reader::new("contact", value)?;
    let flags = reader.byte()?;
    let (added_ms, blocked_ms) = (reader.time()?, reader.time()?);
    let contact = Contact {
        other,
        added_ms: (flags & 1 != 0).then_some(added_ms),
        blocked_ms: (flags & 2 != 0).then_some(blocked_ms),
        called: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(contact)
}

pub(super) fn read_contact_counts(value: &[u8]) -> Read<ContactCounts> {
    let mut reader = Reader::new("contact", value)?;
    let counts = ContactCounts {
        contacts: reader.word()?,
        blocked: reader.word()?,
    };
    reader.end()?;
    Ok(counts)
}

/// By what an entry is hidden from one user.
pub(super) fn read_hidden(value: &[u8]) -> Read<HiddenBy> {
    let mut reader = Reader::new("hidden", value)?;
    let _since_ms = reader.time()?;
    let by = match reader.byte()? {
        0 => HiddenBy::Wish,
        1 => HiddenBy::Block,
        _ => return Err(reader.bad("unknown reason of being hidden")),
    };
    reader.end()?;
    Ok(by)
}

pub(super) fn read_changed(value: &[u8]) -> Read<Changed> {
    let mut reader = Reader::new("changed", value)?;
    let version = reader.long()?;
    let muted_until = reader.time()?;
    let flags = reader.byte()?;
    let told = if flags & 8 == 0 {
        Seq::ZERO
    } else {
        reader.seq()?
    };
    reader.end()?;
    Ok(Changed {
        version,
        told,
        preferences: Preferences {
            muted_until,
            archived: flags & 1 != 0,
            pinned: flags & 2 != 0,
            watch: flags & 4 != 0,
        },
    })
}

pub(super) fn read_time(table: &'static str, value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new(table, value)?;
    let ms = reader.time()?;
    reader.end()?;
    Ok(ms)
}

pub(super) fn read_device(user: UserId, id: DeviceId, value: &[u8]) -> Read<Device> {
    let mut reader = Reader::new("device", value)?;
    let session_expiry = reader.word()?;
    let flags = reader.byte()?;
    let receipts_ms = reader.time()?;
    let last_seen_ms = reader.time()?;
    let account = reader.long()?;
    let client_id = reader.text()?.to_owned();
    let first_seen_ms = reader.time()?;
    let token = Some(reader.text()?).filter(|id| !id.is_empty());
    let token = token.map(str::to_owned);
    let count = reader.short()?;
    let mut subscriptions = Vec::new();
    for _ in 0..count {
        let flags = reader.byte()?;
        let identifier = reader.word()?;
        let slot = reader.byte()?;
        let made_ms = reader.time()?;
        subscriptions.push(Subscription {
            slot,
            made_ms,
            filter: reader.text()?.to_owned(),
            qos: flags & 3,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            identifier: (flags & 16 != 0).then_some(identifier),
        });
    }
    reader.end()?;
    Ok(Device {
        id,
        user,
        client_id,
        subscriptions,
        session_expiry,
        has_inbox: flags & 1 != 0,
        connected: flags & 2 != 0,
        has_queue: flags & 4 != 0,
        receipts_ms,
        account,
        first_seen_ms,
        token,
        last_seen_ms,
    })
}

/// Bytes of one reference in flight.
const INFLIGHT_BYTES: usize = 2 + 1 + keys::CID_BYTES + 8;

pub(super) fn read_inflight(value: &[u8]) -> Read<Vec<Inflight>> {
    let mut reader = Reader::new("inflight", value)?;
    let mut inflight = Vec::with_capacity(reader.rest.len() / INFLIGHT_BYTES);
    while !reader.rest.is_empty() {
        let packet_id = reader.short()?;
        let form = reader.byte()?;
        inflight.push(Inflight {
            packet_id,
            conversation: reader.cid()?,
            seq: reader.seq()?,
            form,
        });
    }
    Ok(inflight)
}

pub(super) fn read_held(conversation: ConversationId, value: &[u8]) -> Read<Held> {
    let mut reader = Reader::new("held", value)?;
    let (_, digest) = (reader.time()?, reader.array()?);
    Ok(Held {
        digest,
        reason: reader.text()?.to_owned(),
        entry: read_entry(conversation, Seq::ZERO, reader.rest)?,
    })
}

/// What makes a message that is held this message.
pub(super) fn read_held_digest(value: &[u8]) -> Read<[u8; 16]> {
    let mut reader = Reader::new("held", value)?;
    reader.time()?;
    reader.array()
}

pub(super) fn read_tally(value: &[u8]) -> Read<Tally> {
    let mut reader = Reader::new("waiting", value)?;
    let tally = Tally {
        count: reader.long()?,
        last_ms: reader.time()?,
    };
    reader.end()?;
    Ok(tally)
}

/// When a message was held.
pub(super) fn read_held_time(value: &[u8]) -> Read<u64> {
    Reader::new("held", value)?.time()
}

pub(super) fn read_exchanged(value: &[u8]) -> Read<Exchanged> {
    let mut reader = Reader::new("exchange", value)?;
    let exchanged = Exchanged {
        conversation: reader.cid()?,
        seq: reader.seq()?,
        ts_ms: reader.time()?,
        digest: reader.array()?,
    };
    reader.end()?;
    Ok(exchanged)
}

pub(super) fn read_user(id: UserId, value: &[u8]) -> Read<User> {
    let mut reader = Reader::new("user", value)?;
    let flags = reader.byte()?;
    let created_ms = reader.time()?;
    let removed_ms = reader.time()?;
    let handle: Handle = reader
        .text()?
        .parse()
        .map_err(|_| reader.bad("bad handle"))?;
    let name = reader.text()?.to_owned();
    let password_hash = reader.text()?;
    let scram = match flags & 4 {
        0 => None,
        _ => Some(ScramKeys {
            salt: reader.array()?,
            iterations: u32::from_be_bytes(reader.array()?),
            stored_key: reader.array()?,
            server_key: reader.array()?,
        }),
    };
    let user = User {
        id,
        handle,
        name,
        password_hash: (flags & 1 != 0).then(|| password_hash.to_owned()),
        scram,
        created_ms,
        removed_ms: (flags & 2 != 0).then_some(removed_ms),
    };
    reader.end()?;
    Ok(user)
}

pub(super) fn read_handle(value: &[u8]) -> Read<HandleRow> {
    let mut reader = Reader::new("handle", value)?;
    let row = HandleRow {
        user: reader.user()?,
        freed_ms: reader.time()?,
    };
    reader.end()?;
    Ok(row)
}

pub(super) fn read_token(hash: [u8; 32], value: &[u8]) -> Read<Token> {
    let mut reader = Reader::new("token", value)?;
    let token = Token {
        hash,
        user: reader.user()?,
        created_ms: reader.time()?,
        id: reader.text()?.to_owned(),
        label: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(token)
}

pub(super) fn read_hash(value: &[u8]) -> Read<[u8; 32]> {
    let mut reader = Reader::new("user_token", value)?;
    let hash = reader.array()?;
    reader.end()?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::ids::ConversationKind;

    fn uid(byte: u8) -> UserId {
        UserId::from_bytes([byte; 16])
    }

    fn group() -> ConversationId {
        ConversationId::from_parts(ConversationKind::Group, [7; 16])
    }

    fn entry() -> Entry {
        Entry {
            conversation: group(),
            seq: Seq::new(9),
            mseq: 8,
            ts_ms: 1_700_000_000_123,
            from: uid(1),
            device: DeviceId::from_bytes([2; 16]),
            mid: "m-1".parse().unwrap(),
            kind: EntryKind::Message,
            format: BodyFormat::Text,
            opaque: true,
            body: Bytes::from_static(b"hello"),
            target: None,
            thread: None,
            expires_ms: None,
            mentions: Mentioned::default(),
            gone: None,
            source: None,
            overlay: None,
        }
    }

    fn device() -> Device {
        Device {
            id: DeviceId::from_bytes([2; 16]),
            user: uid(1),
            client_id: "phone".to_owned(),
            subscriptions: vec![Subscription {
                filter: "chat/me/in/+".to_owned(),
                qos: 1,
                no_local: true,
                retain_as_published: false,
                identifier: Some(77),
                slot: 3,
                made_ms: 9,
            }],
            session_expiry: u32::MAX,
            has_inbox: true,
            has_queue: true,
            connected: true,
            receipts_ms: 4,
            account: 6,
            first_seen_ms: 9,
            token: Some("t1".to_owned()),
            last_seen_ms: 5,
        }
    }

    #[test]
    fn rows_come_back() {
        let entry = entry();
        let mut value = Vec::new();
        write_entry(&mut value, &entry);
        assert_eq!(
            read_entry(entry.conversation, entry.seq, &value),
            Ok(entry.clone())
        );
        assert_eq!(read_entry_mseq(&value), Ok(8));

        let entry = Entry {
            target: Some(Seq::new(3)),
            thread: Some(Seq::new(2)),
            expires_ms: Some(1_800_000_000_123),
            ..entry
        };
        value.clear();
        write_entry(&mut value, &entry);
        assert_eq!(
            read_entry(entry.conversation, entry.seq, &value),
            Ok(entry.clone())
        );
        let mut gone = entry;
        gone.make_gone(GoneReason::Expired);
        value.clear();
        write_entry(&mut value, &gone);
        assert_eq!(
            read_entry(gone.conversation, gone.seq, &value),
            Ok(gone.clone())
        );
        assert_eq!(read_entry_mseq(&value), Ok(8));

        let overlay = Overlay {
            edits: vec![Seq::new(10), Seq::new(12)],
            edited_ms: 7,
            reactions: vec![("👍".into(), 3), ("❤️".into(), 1)],
            pinned: true,
        };
        assert_eq!(read_overlay(&write_overlay(&overlay)), Ok(overlay));
        let emoji: Vec<Box<str>> = vec!["👍".into(), "a".into()];
        assert_eq!(read_emoji(&write_emoji(&emoji)), Ok(emoji));
        assert_eq!(read_count(&write_count(-5)), Ok(-5));

        let device = device();
        assert_eq!(
            read_device(device.user, device.id, &write_device(&device)),
            Ok(device)
        );

        let user = User {
            id: uid(1),
            handle: "alice".parse().unwrap(),
            name: "Alice".to_owned(),
            password_hash: None,
            scram: None,
            created_ms: 1,
            removed_ms: Some(0),
        };
        let with_password = User {
            password_hash: Some("$argon2id$".to_owned()),
            scram: Some(ScramKeys {
                salt: [1; 16],
                iterations: 15_000,
                stored_key: [2; 32],
                server_key: [3; 32],
            }),
            removed_ms: None,
            ..user.clone()
        };
        for user in [user, with_password] {
            assert_eq!(read_user(user.id, &write_user(&user)), Ok(user));
        }

        let member = Member {
            user: uid(1),
            role: Role::Admin,
            mask: Mask {
                given: Some(Rights::SEND),
                want: None,
            },
            joined: Seq::new(4),
            intervals: vec![Interval {
                from: Seq::new(2),
                joined: Seq::new(4),
                to: Seq::MAX,
            }],
        };
        assert_eq!(read_member(member.user, &write_member(&member)), Ok(member));

        let marks = Marks {
            delivered: Seq::new(3),
            read: Seq::new(2),
            private_read: Seq::new(1),
            unread_flag: true,
            moved_ms: 9,
            hidden: Seq::ZERO,
            blocks: true,
        };
        assert_eq!(read_marks(&write_marks(&marks)), Ok(marks));
        let marks = Marks {
            hidden: Seq::new(8),
            ..marks
        };
        assert_eq!(read_marks(&write_marks(&marks)), Ok(marks));

        let token = Token {
            hash: [3; 32],
            id: "t1".to_owned(),
            user: uid(1),
            label: "laptop".to_owned(),
            created_ms: 7,
        };
        assert_eq!(read_token(token.hash, &write_token(&token)), Ok(token));

        let inflight = vec![Inflight {
            packet_id: 5,
            conversation: group(),
            seq: Seq::new(6),
            form: 2,
        }];
        assert_eq!(read_inflight(&write_inflight(&inflight)), Ok(inflight));
    }

    #[test]
    fn row_of_a_message_is_as_drawn() {
        let mut value = Vec::new();
        write_entry(&mut value, &entry());
        assert_eq!(value[..4], [1, 1, 1, 1], "format, kind, body format, flags");
        assert_eq!(value[4..10], 1_700_000_000_123u64.to_be_bytes()[2..]);
        assert_eq!(value[10..18], 8u64.to_be_bytes());
        assert_eq!(value[18..34], [1; 16]);
        assert_eq!(value[34..50], [2; 16]);
        assert_eq!(value[50], 3);
        assert_eq!(&value[51..], b"m-1hello");
    }

    #[test]
    fn unknown_formats_are_refused() {
        assert!(matches!(read_head(&[2]), Err(StoreError::Corrupt(_))));
        assert!(matches!(read_head(&[]), Err(StoreError::Corrupt(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic(value: Vec<u8>) {
            let id = DeviceId::from_bytes([0; 16]);
            let _ = read_entry(group(), Seq::new(1), &value);
            let _ = read_entry_mseq(&value);
            let _ = read_first(&value);
            let _ = read_head(&value);
            let _ = read_settings(&value);
            let _ = read_member(uid(1), &value);
            let _ = read_marks(&value);
            let _ = read_number("own", &value);
            let _ = read_time("due", &value);
            let _ = read_device(uid(1), id, &value);
            let _ = read_inflight(&value);
            let _ = read_exchanged(&value);
            let _ = read_user(uid(1), &value);
            let _ = read_handle(&value);
            let _ = read_token([0; 32], &value);
            let _ = read_hash(&value);
            let _ = read_overlay(&value);
            let _ = read_emoji(&value);
            let _ = read_pin(Seq::new(1), &value);
            let _ = read_count(&value);
            let _ = read_held(group(), &value);
            let _ = read_held_time(&value);
        }
    }
}
