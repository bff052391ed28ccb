//! Rows beside those of devices: shared subscriptions, and private queues.

use bytes::Bytes;
use proto::ids::{DeviceId, UserId};

use super::super::keys;
use super::{FORMAT, Read, Reader, TIME_MAX, long, text, time};
use crate::domain::device::SharedSubscription;
use crate::domain::queue::DeviceEvent;

pub(in super::super) fn write_shared(shared: &SharedSubscription) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::cid(shared.conversation));
    time(&mut out, shared.seen_ms);
    text(&mut out, &shared.filter);
    out
}

pub(in super::super) fn read_shared(
    user: UserId,
    id: DeviceId,
    value: &[u8],
) -> Read<SharedSubscription> {
    let mut reader = Reader::new("shared", value)?;
    let shared = SharedSubscription {
        id,
        user,
        conversation: reader.cid()?,
        seen_ms: reader.time()?,
        filter: reader.text()?.to_owned(),
    };
    reader.end()?;
    Ok(shared)
}

/// When an event, or its data, is over.
pub(in super::super) fn read_expires(value: &[u8]) -> Read<u64> {
    Reader::new("device_event", value)?.time()
}

/// What stands at place 0 of a queue: the last place that was given.
pub(in super::super) fn write_last(dseq: u64) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, TIME_MAX); // it is never over
    long(&mut out, dseq);
    out
}

pub(in super::super) fn read_last(value: &[u8]) -> Read<u64> {
    let mut reader = Reader::new("device_event", value)?;
    reader.time()?;
    let dseq = reader.long()?;
    reader.end()?;
    Ok(dseq)
}

/// An event without its data, and how many bytes that has.
pub(in super::super) fn write_event(event: &DeviceEvent) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, event.expires_ms);
    time(&mut out, event.ts_ms);
    out.extend_from_slice(event.from.as_bytes());
    out.extend_from_slice(event.device.as_bytes());
    long(&mut out, event.data.len() as u64);
    text(&mut out, &event.kind);
    out
}

pub(in super::super) fn read_event(dseq: u64, value: &[u8]) -> Read<(DeviceEvent, u64)> {
    let mut reader = Reader::new("device_event", value)?;
    let expires_ms = reader.time()?;
    let ts_ms = reader.time()?;
    let from = reader.user()?;
    let device = DeviceId::from_bytes(reader.array()?);
    let bytes = reader.long()?;
    let kind = reader.text()?.to_owned();
    reader.end()?;
    let event = DeviceEvent {
        dseq,
        from,
        device,
        ts_ms,
        expires_ms,
        kind,
        data: Bytes::new(),
    };
    Ok((event, bytes))
}

pub(in super::super) fn write_data(event: &DeviceEvent) -> Vec<u8> {
    let mut out = vec![FORMAT];
    time(&mut out, event.expires_ms);
    out.extend_from_slice(&event.data);
    out
}

pub(in super::super) fn read_data(value: &[u8]) -> Read<Bytes> {
    let mut reader = Reader::new("device_data", value)?;
    reader.time()?;
    Ok(Bytes::copy_from_slice(reader.rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::{ConversationId, ConversationKind};

    #[test]
    fn rows_come_back() {
        let (user, id) = (UserId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
        let shared = SharedSubscription {
            id,
            user,
            conversation: ConversationId::from_parts(ConversationKind::Group, [3; 16]),
            filter: "$share/bots/chat/c/x/log".to_owned(),
            seen_ms: 7,
        };
        assert_eq!(read_shared(user, id, &write_shared(&shared)), Ok(shared));
        let event = DeviceEvent {
            dseq: 9,
            from: user,
            device: id,
            ts_ms: 4,
            expires_ms: 5,
            kind: "welcome".to_owned(),
            data: Bytes::from_static(b"\x00\xFF"),
        };
        let without = DeviceEvent {
            data: Bytes::new(),
            ..event.clone()
        };
        assert_eq!(read_event(9, &write_event(&event)), Ok((without, 2)));
        assert_eq!(read_data(&write_data(&event)), Ok(event.data.clone()));
        for value in [write_event(&event), write_data(&event)] {
            assert_eq!(read_expires(&value), Ok(5));
        }
        assert_eq!(read_last(&write_last(9)), Ok(9));
        assert_eq!(read_expires(&write_last(9)), Ok(TIME_MAX));
        for cut in 0..write_event(&event).len() {
            assert!(read_event(9, &write_event(&event)[..cut]).is_err());
        }
    }
}
