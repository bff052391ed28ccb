//! Fields of a packet (MQTT 5.0 §1.5), read one after the other.

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use super::DecodeError;
use crate::codec::packet::PacketId;
use crate::codec::topic::{TopicFilter, check_topic_name};
use crate::codec::varint::read_varint;

/// What is left of a packet or of its property section.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) const fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.rest.try_get_u16().map_err(|_| DecodeError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.try_get_u32().map_err(|_| DecodeError::Truncated)
    }

    /// A Variable Byte Integer; the packet is complete, so that one cut short is an error.
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, bytes) = read_varint(&self.rest)?.ok_or(DecodeError::Truncated)?;
        self.rest.advance(bytes);
        Ok(value)
    }

    /// The next `bytes` bytes, without copying them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Bytes, DecodeError> {
        if bytes > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(bytes))
    }

    /// Everything that is left.
    pub(super) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Binary Data (§1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let bytes = self.u16()?;
        self.take(usize::from(bytes))
    }

    /// A UTF-8 Encoded String (§1.5.4): well-formed [MQTT-1.5.4-1], without U+0000 [MQTT-1.5.4-2].
    pub(super) fn text(&mut self) -> Result<ByteString, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::NullCharacter);
        }
        ByteString::try_from(bytes).map_err(|_| DecodeError::Utf8)
    }

    /// A Topic Name: not empty, no wildcard [MQTT-3.3.2-2].
    pub(super) fn topic_name(&mut self) -> Result<ByteString, DecodeError> {
        let text = self.text()?;
        check_topic_name(&text).map_err(DecodeError::TopicName)?;
        Ok(text)
    }

    pub(super) fn topic_filter(&mut self) -> Result<TopicFilter, DecodeError> {
        TopicFilter::parse(self.text()?).map_err(DecodeError::TopicFilter)
    }

    /// Never 0 [MQTT-2.2.1-3].
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// Nothing may follow the last field.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::TrailingBytes(bytes)),
        }
    }
}
