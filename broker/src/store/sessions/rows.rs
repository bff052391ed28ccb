//! Keys and values, as `docs/storage.md` draws them. Writing cannot fail; reading distrusts every byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use bytestring::ByteString;

use crate::codec::decode::Decoder;
use crate::codec::encode::{PACKET_BYTES_MAX, PublishHead, encode_publish};
use crate::codec::packet::{Packet, PacketId, Publish, Qos, Version};
use crate::codec::topic::TopicFilter;
use crate::journal::{MessageRow, QueueRow, SessionRow, SubscriptionRow, WillRow};
use crate::session::queue::Stored;
use crate::store::kv::{EngineError, Table};
use crate::store::recover::META;

pub(super) const SESSION: Table = Table::new(0x10, "session");
pub(super) const WILL: Table = Table::new(0x11, "will");
pub(super) const SUBSCRIPTION: Table = Table::new(0x12, "subscription");
pub(super) const MESSAGE: Table = Table::large(0x13, "message");
pub(super) const QUEUE: Table = Table::large(0x14, "queue");
pub(super) const RETAINED: Table = Table::new(0x15, "retained");
pub(super) const EXCHANGE: Table = Table::new(0x16, "exchange");

/// All tables, in the order of their numbers.
pub(super) const TABLES: &[Table] = &[
    META,
    SESSION,
    WILL,
    SUBSCRIPTION,
    MESSAGE,
    QUEUE,
    RETAINED,
    EXCHANGE,
];

/// Between the clock of the process and that of the wall, which what is at rest goes by. Read once, at the start: a wall
/// clock that jumps changes nothing while the broker runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    at: Instant,
    ms: u64,
}

impl Wall {
    /// At this moment the wall clock shows `ms` since 1970.
    pub(super) const fn new(at: Instant, ms: u64) -> Self {
        Self { at, ms }
    }

    /// When it was read.
    pub(super) const fn moment(self) -> Instant {
        self.at
    }

    pub(super) fn ms_of(self, moment: Instant) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(self.at) {
            Some(later) => self.ms.saturating_add(ms(later)),
            None => self.ms.saturating_sub(ms(self.at.duration_since(moment))),
        }
    }

    /// The present for what is past. `None`: so late that it never comes.
    pub(super) fn moment_of(self, ms: u64) -> Option<Instant> {
        let later = Duration::from_millis(ms.saturating_sub(self.ms));
        self.at.checked_add(later)
    }
}

/// The format byte of everything written today.
pub(super) const FORMAT: u8 = 1;
/// Largest time that has room in 6 bytes.
const TIME_MAX: u64 = (1 << 48) - 1;

// -- keys

/// `session[8]` or `message[8]`.
pub(super) const fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// `session[8] number[8]`: tables subscription and queue.
pub(super) fn pair(session: u64, number: u64) -> [u8; 16] {
    (u128::from(session) << 64 | u128::from(number)).to_be_bytes()
}

/// `session[8] packet_id[2]`.
pub(super) fn exchange(session: u64, packet_id: PacketId) -> [u8; 10] {
    let (number, id) = (session.to_be_bytes(), packet_id.get().to_be_bytes());
    let mut key = [0; 10];
    let bytes = number.into_iter().chain(id);
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

// -- values

pub(super) fn write_session(out: &mut Vec<u8>, row: &SessionRow, wall: Wall) {
    let found = SessionFound {
        expiry: row.expiry,
        away_ms: row.away_since.map_or(0, |at| wall.ms_of(at)),
        user: Arc::clone(&row.user),
        name: Arc::clone(&row.name),
        client_id: row.client_id.clone(),
    };
    write_session_found(out, &found);
}

pub(super) fn write_session_found(out: &mut Vec<u8>, found: &SessionFound) {
    out.push(FORMAT);
    out.extend_from_slice(&found.expiry.to_be_bytes());
    time(out, found.away_ms);
    text(out, &found.user);
    text(out, &found.client_id);
    text(out, &found.name);
}

pub(super) fn write_will(out: &mut Vec<u8>, row: &WillRow, wall: Wall) {
    let due_ms = row.due.map_or(0, |at| wall.ms_of(at));
    will(out, due_ms, row.delay, &row.publish);
}

pub(super) fn write_will_found(out: &mut Vec<u8>, found: &WillFound) {
    will(out, found.due_ms, found.delay, &found.publish);
}

fn will(out: &mut Vec<u8>, due_ms: u64, delay: u32, publish: &Publish) {
    out.push(FORMAT);
    time(out, due_ms);
    out.extend_from_slice(&delay.to_be_bytes());
    packet(out, publish);
}

pub(super) fn write_subscription(out: &mut Vec<u8>, row: &SubscriptionRow) {
    out.push(FORMAT);
    out.push(row.qos as u8 | u8::from(row.no_local) << 2 | u8::from(row.retain_as_published) << 3);
    // No subscription has the identifier 0.
    out.extend_from_slice(&row.identifier.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(row.filter.as_str().as_bytes());
}

pub(super) fn write_message(out: &mut Vec<u8>, row: &MessageRow, wall: Wall) {
    out.push(FORMAT);
    write_body(out, row, wall);
}

/// A message without its format: that is the one of the row that it is within.
pub(super) fn write_body(out: &mut Vec<u8>, row: &MessageRow, wall: Wall) {
    time(out, row.expires_at.map_or(0, |at| wall.ms_of(at)));
    packet(out, &row.publish);
}

/// With `body` the message itself follows, as [`write_body`] writes it.
pub(super) fn write_queue(out: &mut Vec<u8>, row: &QueueRow, body: bool) {
    out.push(FORMAT);
    out.extend_from_slice(&row.at.message.to_be_bytes());
    let flags = u8::from(row.retain) << 2 | u8::from(row.released) << 3 | u8::from(body) << 4;
    out.push(row.qos as u8 | flags);
    let packet_id = row.packet_id.map_or(0, PacketId::get);
    out.extend_from_slice(&packet_id.to_be_bytes());
    let count = u16::try_from(row.subscription_identifiers.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for identifier in row.subscription_identifiers.iter().take(count.into()) {
        out.extend_from_slice(&identifier.to_be_bytes());
    }
    text(out, row.share.as_deref().unwrap_or_default());
}

/// Whose it is; nothing, if nobody's.
pub(super) fn write_retained(out: &mut Vec<u8>, owner: Option<&str>) {
    out.push(FORMAT);
    out.extend_from_slice(owner.unwrap_or_default().as_bytes());
}

fn time(out: &mut Vec<u8>, ms: u64) {
    let [_, _, low @ ..] = ms.min(TIME_MAX).to_be_bytes();
    out.extend_from_slice(&low);
}

/// Texts longer than 65,535 bytes cannot come from MQTT; should one come from elsewhere, it is longer in the length, too.
fn text(out: &mut Vec<u8>, text: &str) {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A PUBLISH as MQTT 5.0 writes it.
fn packet(out: &mut Vec<u8>, publish: &Publish) {
    let head = PublishHead {
        dup: false,
        qos: publish.qos,
        retain: publish.retain,
        // Of no meaning; it has to be there.
        packet_id: PacketId::new(1).filter(|_| publish.qos > Qos::AtMostOnce),
        ..PublishHead::default()
    };
    let mut bytes = BytesMut::new();
    encode_publish(publish, &head, Version::V5, &mut bytes);
    out.extend_from_slice(&bytes);
}

// -- reading

pub(super) struct SessionFound {
    pub(super) expiry: u32,
    /// 0: connected.
    pub(super) away_ms: u64,
    pub(super) user: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) client_id: ByteString,
}

pub(super) struct WillFound {
    /// 0: the client was connected.
    pub(super) due_ms: u64,
    pub(super) delay: u32,
    pub(super) publish: Publish,
}

pub(super) fn read_session(value: &[u8]) -> Result<SessionFound, EngineError> {
    let mut reader = Reader::new(SESSION, value)?;
    let (expiry, away_ms) = (reader.word()?, reader.time()?);
    let (user, client_id): (Arc<str>, _) = (reader.text()?.into(), reader.text()?.into());
    let name = if reader.rest.is_empty() {
        // Written before there were names here.
        Arc::clone(&user)
    } else {
        reader.text()?.into()
    };
    Ok(SessionFound {
        expiry,
        away_ms,
        user,
        name,
        client_id,
    })
}

pub(super) fn read_will(value: &[u8]) -> Result<WillFound, EngineError> {
    let mut reader = Reader::new(WILL, value)?;
    Ok(WillFound {
        due_ms: reader.time()?,
        delay: reader.word()?,
        publish: reader.packet()?,
    })
}

pub(super) fn read_subscription(
    session: u64,
    number: u64,
    value: &[u8],
) -> Result<SubscriptionRow, EngineError> {
    let mut reader = Reader::new(SUBSCRIPTION, value)?;
    let [flags] = reader.array()?;
    let identifier = Some(reader.word()?).filter(|identifier| *identifier > 0);
    let filter = TopicFilter::parse(reader.rest()?.into()).map_err(|_| reader.bad())?;
    Ok(SubscriptionRow {
        session,
        number,
        filter,
        qos: Qos::new(flags & 3).ok_or_else(|| reader.bad())?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        identifier,
    })
}

/// The message, and when it expires; 0: never.
pub(super) fn read_message(value: &[u8]) -> Result<(Publish, u64), EngineError> {
    Reader::new(MESSAGE, value)?.body()
}

/// A message that was within a row of a queue.
pub(super) fn read_body(bytes: &[u8]) -> Result<(Publish, u64), EngineError> {
    let (table, rest) = (QUEUE, bytes);
    Reader { table, rest }.body()
}

/// The row, and the bytes of its message if that is within it.
pub(super) fn read_queue(
    session: u64,
    place: u64,
    value: &[u8],
) -> Result<(QueueRow, Option<&[u8]>), EngineError> {
    let mut reader = Reader::new(QUEUE, value)?;
    let message = u64::from_be_bytes(reader.array()?);
    let [flags] = reader.array()?;
    let packet_id = PacketId::new(u16::from_be_bytes(reader.array()?));
    let count = u16::from_be_bytes(reader.array()?);
    let subscription_identifiers = (0..count)
        .map(|_| reader.word())
        .collect::<Result<_, _>>()?;
    let share = Some(reader.text()?).filter(|share| !share.is_empty());
    let body = (flags & 16 != 0).then_some(reader.rest);
    if body.is_none() && !reader.rest.is_empty() {
        return Err(reader.bad());
    }
    let row = QueueRow {
        session,
        at: Stored { place, message },
        qos: Qos::new(flags & 3).ok_or_else(|| reader.bad())?,
        retain: flags & 4 != 0,
        released: flags & 8 != 0,
        subscription_identifiers,
        share: share.map(Into::into),
        packet_id,
    };
    Ok((row, body))
}

/// Whose retained message it is.
pub(super) fn read_retained(value: &[u8]) -> Result<Option<Arc<str>>, EngineError> {
    let owner = Reader::new(RETAINED, value)?.rest()?;
    Ok((!owner.is_empty()).then(|| owner.into()))
}

/// The number of a message that a row of a queue refers to.
pub(super) fn read_reference(value: &[u8]) -> Result<u64, EngineError> {
    Ok(u64::from_be_bytes(Reader::new(QUEUE, value)?.array()?))
}

/// One number of a key, or two.
pub(super) fn read_key<const N: usize>(table: Table, key: &[u8]) -> Result<[u64; N], EngineError> {
    let mut reader = Reader { table, rest: key };
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = u64::from_be_bytes(reader.array()?);
    }
    Ok(numbers)
}

pub(super) fn read_exchange(key: &[u8]) -> Result<(u64, PacketId), EngineError> {
    let mut reader = Reader {
        table: EXCHANGE,
        rest: key,
    };
    let session = u64::from_be_bytes(reader.array()?);
    let packet_id = PacketId::new(u16::from_be_bytes(reader.array()?));
    Ok((session, packet_id.ok_or_else(|| reader.bad())?))
}

struct Reader<'a> {
    table: Table,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(table: Table, value: &'a [u8]) -> Result<Self, EngineError> {
        let mut reader = Self { table, rest: value };
        match reader.array()? {
            [FORMAT] => Ok(reader),
            _ => Err(reader.bad()),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EngineError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.bad())?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn word(&mut self) -> Result<u32, EngineError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn time(&mut self) -> Result<u64, EngineError> {
        let bytes: [u8; 6] = self.array()?;
        Ok(bytes.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Result<&'a str, EngineError> {
        let len = self.word()? as usize;
        let (text, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.bad())?;
        self.rest = rest;
        str::from_utf8(text).map_err(|_| self.bad())
    }

    fn rest(&mut self) -> Result<&'a str, EngineError> {
        str::from_utf8(std::mem::take(&mut self.rest)).map_err(|_| self.bad())
    }

    fn body(&mut self) -> Result<(Publish, u64), EngineError> {
        let expires_ms = self.time()?;
        Ok((self.packet()?, expires_ms))
    }

    fn packet(&mut self) -> Result<Publish, EngineError> {
        let limit = u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX);
        let mut bytes = BytesMut::from(std::mem::take(&mut self.rest));
        match Decoder::with_version(Version::V5, limit).decode(&mut bytes) {
            Ok(Some(Packet::Publish(mut publish))) if bytes.is_empty() => {
                publish.packet_id = None;
                Ok(publish)
            }
            _ => Err(self.bad()),
        }
    }

    fn bad(&self) -> EngineError {
        EngineError::Corrupt(format!("a bad row in the table {}", self.table.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::codec::properties::PublishProperties;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn publish(qos: Qos, topic: String, payload: Vec<u8>) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: true,
            topic: topic.into(),
            packet_id: None,
            payload: Bytes::from(payload),
            properties: PublishProperties {
                message_expiry_interval: Some(7),
                content_type: Some("text".into()),
                user_properties: vec![("a".into(), "b".into())],
                ..PublishProperties::default()
            }
            .into(),
        }
    }

    #[test]
    fn a_session_comes_back_and_one_without_a_name_has_that_of_its_key() {
        let found = SessionFound {
            expiry: 7,
            away_ms: 9,
            user: "key".into(),
            name: "name".into(),
            client_id: "id".into(),
        };
        let mut value = Vec::new();
        write_session_found(&mut value, &found);
        let name = |value: &[u8]| read_session(value).unwrap().name;
        assert_eq!(&*name(&value), "name");
        value.truncate(value.len() - 4 - "name".len());
        assert_eq!(&*name(&value), "key");
    }

    proptest! {
        #[test]
        fn a_message_comes_back(qos in 0u8..3, topic in "[a-z/]{1,30}", payload: Vec<u8>) {
            let publish = publish(Qos::new(qos).unwrap(), topic, payload);
            let wall = Wall::new(clock::now(), 1_000);
            let row = MessageRow {
                number: 1,
                publish: Arc::new(publish.clone()),
                expires_at: wall.moment_of(5_000),
            };
            let mut value = Vec::new();
            write_message(&mut value, &row, wall);
            prop_assert_eq!(read_message(&value), Ok((publish, 5_000)));
        }

        #[test]
        fn a_row_of_a_queue_comes_back(
            message: u64, qos in 0u8..3, retain: bool, released: bool,
            packet_id: u16, subscription_identifiers: Vec<u32>, share in "[a-z]{0,9}",
            body: Vec<u8>,
        ) {
            let row = QueueRow {
                session: 1,
                at: Stored { place: 2, message },
                qos: Qos::new(qos).unwrap(),
                retain,
                subscription_identifiers,
                share: Some(share).filter(|it| !it.is_empty()).map(|it| it.as_str().into()),
                packet_id: PacketId::new(packet_id),
                released,
            };
            let mut value = Vec::new();
            write_queue(&mut value, &row, false);
            prop_assert_eq!(read_queue(1, 2, &value), Ok((row.clone(), None)));
            value.clear();
            write_queue(&mut value, &row, true);
            value.extend_from_slice(&body);
            prop_assert_eq!(read_queue(1, 2, &value), Ok((row, Some(&body[..]))));
        }

        #[test]
        fn no_bytes_panic(value: Vec<u8>) {
            let _ = (read_session(&value).is_ok(), read_will(&value).is_ok());
            let _ = (read_message(&value).is_ok(), read_queue(1, 1, &value).is_ok());
            let _ = read_body(&value).is_ok();
            let _ = (read_subscription(1, 1, &value).is_ok(), read_exchange(&value).is_ok());
        }
    }

    #[test]
    fn the_wall_clock_is_read_both_ways() {
        let now = clock::now();
        let wall = Wall::new(now, 10_000);
        let later = now + Duration::from_secs(3);
        assert_eq!(wall.ms_of(later), 13_000);
        assert_eq!(wall.moment_of(13_000), Some(later));
        assert_eq!(Wall::new(later, 10_000).ms_of(now), 7_000);
        assert_eq!(wall.moment_of(1), Some(now), "what is past is due now");
    }
}
