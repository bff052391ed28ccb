//! Rows of devices: what they subscribe to, what is in flight, shared subscriptions, private queues.

use bytes::Bytes;
use proto::ids::{ConversationId, DeviceId, Seq, UserId};

use super::super::keys;
use super::{FORMAT, Read, Reader, TIME_MAX, long, text, time};
use crate::domain::device::{Device, Inflight, SharedSubscription, Subscription};
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

/// The result of a QoS 2 exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Exchanged {
    pub(in super::super) conversation: ConversationId,
    pub(in super::super) seq: Seq,
    pub(in super::super) ts_ms: u64,
    /// Of what was published.
    pub(in super::super) digest: [u8; 16],
}

pub(in super::super) fn write_device(device: &Device) -> Vec<u8> {
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
const INFLIGHT_MAX: usize = 2_048;

pub(in super::super) fn write_inflight(inflight: &[Inflight]) -> Vec<u8> {
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

pub(in super::super) fn write_exchanged(exchanged: &Exchanged) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend_from_slice(&keys::cid(exchanged.conversation));
    long(&mut out, exchanged.seq.get());
    time(&mut out, exchanged.ts_ms);
    out.extend_from_slice(&exchanged.digest);
    out
}

pub(in super::super) fn read_device(user: UserId, id: DeviceId, value: &[u8]) -> Read<Device> {
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

pub(in super::super) fn read_inflight(value: &[u8]) -> Read<Vec<Inflight>> {
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

pub(in super::super) fn read_exchanged(value: &[u8]) -> Read<Exchanged> {
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
