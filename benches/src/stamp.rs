//! What a message carries to be recognised: run, stream, number and time of sending, as text that survives chat.

use std::ops::Range;

use broker::codec::encode::{PublishHead, encode_publish};
use broker::codec::packet::{PacketId, Publish, Qos, Version};
use broker::codec::properties::PublishProperties;
use bytes::{Bytes, BytesMut};

/// Length of a stamp, and so of the shortest payload.
pub(crate) const STAMP_BYTES: usize = MARK.len() + RUN + STREAM + NUMBER + TIME;

const MARK: &[u8; 4] = b"mqb~";
const RUN: usize = 8;
const STREAM: usize = 4;
const NUMBER: usize = 8;
const TIME: usize = 16;

/// Who sent which message when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Of which run of this program.
    pub(crate) run: u32,
    /// Of which publisher.
    pub(crate) stream: u16,
    /// From 0, without gaps.
    pub(crate) number: u32,
    /// Nanoseconds since the beginning of the run; in an open loop the intended time.
    pub(crate) sent_at: u64,
}

impl Stamp {
    /// As a payload of so many bytes.
    pub(crate) fn payload(self, bytes: usize) -> Bytes {
        let mut payload = vec![b'x'; bytes.max(STAMP_BYTES)];
        if let Some(field) = payload.get_mut(..STAMP_BYTES) {
            self.write(field);
        }
        payload.into()
    }

    fn write(self, out: &mut [u8]) {
        let fields = [
            (u64::from(self.run), RUN),
            (u64::from(self.stream), STREAM),
            (u64::from(self.number), NUMBER),
            (self.sent_at, TIME),
        ];
        let (mark, mut rest) = out.split_at_mut(MARK.len());
        mark.copy_from_slice(MARK);
        for (value, digits) in fields {
            let (field, others) = rest.split_at_mut(digits);
            write_hex(value, field);
            rest = others;
        }
    }

    /// Finds the stamp in a delivered payload; `hint` is where the last one was, since all are at the same place.
    pub(crate) fn find(payload: &[u8], hint: &mut usize) -> Option<Self> {
        let is_mark = |at: usize| payload.get(at..at + MARK.len()) == Some(&MARK[..]);
        if !is_mark(*hint) {
            *hint = (0..payload.len()).find(|at| is_mark(*at))?;
        }
        let rest = payload.get(*hint + MARK.len()..*hint + STAMP_BYTES)?;
        let (run, rest) = rest.split_at(RUN);
        let (stream, rest) = rest.split_at(STREAM);
        let (number, time) = rest.split_at(NUMBER);
        Some(Self {
            run: u32::try_from(read_hex(run)?).ok()?,
            stream: u16::try_from(read_hex(stream)?).ok()?,
            number: u32::try_from(read_hex(number)?).ok()?,
            sent_at: read_hex(time)?,
        })
    }
}

fn write_hex(value: u64, field: &mut [u8]) {
    for (index, place) in field.iter_mut().rev().enumerate() {
        let digit = (value >> (4 * index) & 0xF) as u8;
        *place = digit + if digit < 10 { b'0' } else { b'a' - 10 };
    }
}

fn read_hex(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// A PUBLISH as bytes, encoded once; only identifier and stamp change from one message to the next.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: BytesMut,
    packet_id: Option<Range<usize>>,
    stamp: usize,
}

impl Template {
    /// `payload_bytes` is at least [`STAMP_BYTES`].
    pub(crate) fn new(topic: &str, qos: Qos, payload_bytes: usize, version: Version) -> Self {
        let packet_id = (qos > Qos::AtMostOnce).then(|| PacketId::new(1)).flatten();
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id,
            payload: Bytes::from(vec![b'x'; payload_bytes]),
            properties: PublishProperties::default().into(),
        };
        let mut bytes = BytesMut::new();
        encode_publish(&publish, &PublishHead::of(&publish), version, &mut bytes);
        let stamp = bytes.len() - payload_bytes;
        let properties = usize::from(version == Version::V5);
        let packet_id = packet_id.map(|_| stamp - properties - 2..stamp - properties);
        Self {
            bytes,
            packet_id,
            stamp,
        }
    }

    /// Size of the packet.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one message to `out`.
    pub(crate) fn write(&mut self, packet_id: u16, stamp: Stamp, out: &mut BytesMut) {
        if let Some(range) = self.packet_id.clone()
            && let Some(field) = self.bytes.get_mut(range)
        {
            field.copy_from_slice(&packet_id.to_be_bytes());
        }
        if let Some(field) = self.bytes.get_mut(self.stamp..self.stamp + STAMP_BYTES) {
            stamp.write(field);
        }
        out.extend_from_slice(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use broker::codec::decode::Decoder;
    use broker::codec::packet::Packet;

    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0xDEAD_BEEF,
        stream: 513,
        number: 70_000,
        sent_at: 123_456_789_012,
    };

    #[test]
    fn a_stamp_is_found_in_text_around_it() {
        let mut payload = b"bench-p1: ".to_vec();
        let start = payload.len();
        payload.resize(start + STAMP_BYTES + 5, b'x');
        STAMP.write(&mut payload[start..]);
        let mut hint = 0;
        assert_eq!(Stamp::find(&payload, &mut hint), Some(STAMP));
        assert_eq!(hint, start);
        assert_eq!(Stamp::find(&payload, &mut hint), Some(STAMP));
        assert_eq!(Stamp::find(&payload[start..], &mut hint), Some(STAMP));
        assert_eq!(Stamp::find(&payload[..20], &mut hint), None);
        assert_eq!(Stamp::find(b"alice: hello", &mut hint), None);
    }

    #[test]
    fn a_template_is_a_publish_with_identifier_and_stamp() {
        for version in [Version::V311, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut template = Template::new("a/b", qos, 200, version);
                let mut out = BytesMut::new();
                template.write(77, STAMP, &mut out);
                assert_eq!(template.len(), out.len());
                let mut decoder = Decoder::with_version(version, 1_000);
                let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut out) else {
                    panic!("no PUBLISH")
                };
                let expected = (qos > Qos::AtMostOnce).then_some(77);
                assert_eq!(publish.packet_id.map(PacketId::get), expected);
                assert_eq!((publish.qos, &*publish.topic), (qos, "a/b"));
                assert_eq!(publish.payload.len(), 200);
                assert_eq!(Stamp::find(&publish.payload, &mut 0), Some(STAMP));
            }
        }
    }
}
