//! Where the fields of a packet go: to the output, or into a sum of their lengths.

use bytes::{BufMut, BytesMut};

use crate::codec::varint::varint_len;

/// Takes the fields of a packet (MQTT 5.0 §1.5) in their order.
pub(super) trait Sink {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn varint(&mut self, value: u32);
    fn slice(&mut self, bytes: &[u8]);

    /// Binary Data (§1.5.6), cut to the 65,535 bytes that its length can tell.
    fn binary(&mut self, bytes: &[u8]) {
        let (length, bytes) = match u16::try_from(bytes.len()) {
            Ok(length) => (length, bytes),
            Err(_) => (
                u16::MAX,
                bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes),
            ),
        };
        self.u16(length);
        self.slice(bytes);
    }

    /// A UTF-8 Encoded String (§1.5.4), cut to the whole characters in 65,535 bytes.
    fn text(&mut self, text: &str) {
        let end = text.floor_char_boundary(usize::from(u16::MAX));
        self.binary(text.get(..end).unwrap_or(text).as_bytes());
    }
}

impl Sink for BytesMut {
    fn u8(&mut self, value: u8) {
        self.put_u8(value);
    }

    fn u16(&mut self, value: u16) {
        self.put_u16(value);
    }

    fn u32(&mut self, value: u32) {
        self.put_u32(value);
    }

    fn varint(&mut self, mut value: u32) {
        while value > 0x7F {
            self.put_u8((value & 0x7F) as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8((value & 0x7F) as u8);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Debug, Default)]
pub(super) struct Counter(usize);

impl Counter {
    pub(super) const fn bytes(&self) -> usize {
        self.0
    }
}

impl Sink for Counter {
    fn u8(&mut self, _: u8) {
        self.0 += 1;
    }

    fn u16(&mut self, _: u16) {
        self.0 += 2;
    }

    fn u32(&mut self, _: u32) {
        self.0 += 4;
    }

    fn varint(&mut self, value: u32) {
        self.0 += varint_len(value);
    }

    fn slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}
