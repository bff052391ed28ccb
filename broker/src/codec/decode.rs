//! Bytes → packets.
//!
//! 1. The fixed header is judged as soon as it is there: type, flags, who sends it, size.
//! 2. When the whole packet has arrived, it is split off the input; texts and payloads of a PUBLISH refer to the input,
//!    nothing is copied. Nothing is reserved for what is only announced.
//! 3. Each field is checked against the rules that need no Session, then the next packet may follow.

mod body;
mod connect;
mod properties;
mod reader;

use bytes::{Buf, Bytes, BytesMut};

pub use super::error::DecodeError;
use super::packet::{Ack, Packet, PacketId, PacketType, Version};
use super::varint::read_varint;
use reader::Reader;

/// Takes packets off the bytes of one Network Connection, in one direction.
#[derive(Clone, Debug)]
pub struct Decoder {
    packet_bytes_max: u32,
    sender: Sender,
    version: Option<Version>,
    mqtt31: Mqtt31,
}

/// MQTT 3.1, the version before 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mqtt31 {
    Refused,
    Accepted,
    /// This connection speaks it.
    Spoken,
}

/// Which side the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// What each field of a packet is judged by.
#[derive(Clone, Copy, Debug)]
struct Context {
    packet_type: PacketType,
    sender: Sender,
    version: Version,
}

impl Decoder {
    /// For a server: the first packet must be CONNECT, which sets the version of those after it. Packets of more than
    /// `packet_bytes_max` bytes, fixed header included, are refused.
    pub const fn new(packet_bytes_max: u32) -> Self {
        Self {
            packet_bytes_max,
            sender: Sender::Client,
            version: None,
            mqtt31: Mqtt31::Refused,
        }
    }

    /// For a server that has read CONNECT elsewhere.
    pub const fn with_version(version: Version, packet_bytes_max: u32) -> Self {
        Self {
            packet_bytes_max,
            sender: Sender::Client,
            version: Some(version),
            mqtt31: Mqtt31::Refused,
        }
    }

    /// For a client that has sent a CONNECT of `version`: takes what a server sends.
    pub const fn for_client(version: Version, packet_bytes_max: u32) -> Self {
        Self {
            packet_bytes_max,
            sender: Sender::Server,
            version: Some(version),
            mqtt31: Mqtt31::Refused,
        }
    }

    /// Accepts MQTT 3.1 (`MQIsdp`, level 3) as well, to be read as 3.1.1; its one difference in form is that DUP may be set
    /// where 3.1.1 has fixed flags.
    #[must_use]
    pub const fn accepting_mqtt31(mut self) -> Self {
        self.mqtt31 = Mqtt31::Accepted;
        self
    }

    /// The CONNECT was one of MQTT 3.1.
    pub const fn speaks_mqtt31(&self) -> bool {
        matches!(self.mqtt31, Mqtt31::Spoken)
    }

    /// The version of this connection; `None` before CONNECT. Known also when CONNECT was refused after its protocol
    /// level, so that CONNACK can say so.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Changes the limit for packets that have not been taken yet, for example after authentication.
    pub const fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// Takes the next packet off `input`; `None` if not all of it has arrived, `input` is then left as it was.
    ///
    /// A PUBLISH refers to the memory of `input`; CONNECT, SUBSCRIBE and UNSUBSCRIBE, whose texts are kept for long, have
    /// memory of their own.
    ///
    /// # Errors
    /// The rule that the peer broke. The connection cannot go on: `input` is in no defined state.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some((first, rest)) = input.split_first() else {
            return Ok(None);
        };
        let (packet_type, flags) = (self.check_type(first >> 4)?, first & 0x0F);
        check_flags(packet_type, self.without_dup(packet_type, flags))?;
        let Some((remaining, length_bytes)) = read_varint(rest)? else {
            return Ok(None);
        };
        let header = 1 + length_bytes;
        let bytes = u64::from(remaining) + header as u64;
        if bytes > u64::from(self.packet_bytes_max) {
            return Err(DecodeError::PacketTooLarge {
                bytes,
                limit: self.packet_bytes_max,
            });
        }
        let Some(body) = rest
            .get(length_bytes..)
            .filter(|body| body.len() as u64 >= u64::from(remaining))
        else {
            return Ok(None);
        };
        if let Some(ack) = short_ack(packet_type, remaining, body) {
            input.advance(header + 2);
            return ack.map(Some);
        }
        let mut packet = input.split_to(header + remaining as usize);
        packet.advance(header);
        let body = match packet_type {
            PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe => {
                Bytes::copy_from_slice(&packet)
            }
            _ => packet.freeze(),
        };
        self.decode_body(packet_type, flags, Reader::new(body))
            .map(Some)
    }

    /// The flags, without DUP where only 3.1 has one.
    fn without_dup(&self, packet_type: PacketType, flags: u8) -> u8 {
        match packet_type {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe
                if self.speaks_mqtt31() =>
            {
                flags & !0b1000
            }
            _ => flags,
        }
    }

    /// May this packet come from that side, now?
    fn check_type(&self, number: u8) -> Result<PacketType, DecodeError> {
        let packet_type = PacketType::new(number).ok_or(DecodeError::UnknownPacketType(number))?;
        let Some(version) = self.version else {
            return match packet_type {
                PacketType::Connect => Ok(packet_type),
                other => Err(DecodeError::ConnectExpected(other)),
            };
        };
        if packet_type == PacketType::Auth && version == Version::V311 {
            return Err(DecodeError::UnknownPacketType(number));
        }
        let from = match packet_type {
            PacketType::Connect
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq => Some(Sender::Client),
            PacketType::Disconnect if version == Version::V311 => Some(Sender::Client),
            PacketType::ConnAck
            | PacketType::SubAck
            | PacketType::UnsubAck
            | PacketType::PingResp => Some(Sender::Server),
            _ => None,
        };
        if from.is_some_and(|from| from != self.sender) {
            return Err(DecodeError::WrongSender(packet_type));
        }
        Ok(packet_type)
    }

    fn decode_body(
        &mut self,
        packet_type: PacketType,
        flags: u8,
        mut body: Reader,
    ) -> Result<Packet, DecodeError> {
        if packet_type == PacketType::Connect {
            let (version, mqtt31) = connect::protocol_version(&mut body, self.mqtt31)?;
            self.mqtt31 = mqtt31;
            self.version.get_or_insert(version);
            let connect = connect::connect(version, &mut body)?;
            body.finish()?;
            return Ok(Packet::Connect(Box::new(connect)));
        }
        let context = Context {
            packet_type,
            sender: self.sender,
            version: self
                .version
                .ok_or(DecodeError::ConnectExpected(packet_type))?,
        };
        let packet = body::packet(context, flags, &mut body)?;
        body.finish()?;
        Ok(packet)
    }
}

/// The flags of all packets but PUBLISH are fixed [MQTT-2.1.3-1]; those of PUBLISH are judged with the packet.
fn check_flags(packet_type: PacketType, flags: u8) -> Result<(), DecodeError> {
    let prescribed = match packet_type {
        PacketType::Publish => return body::publish_flags(flags).map(|_| ()),
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags != prescribed {
        return Err(DecodeError::FixedHeaderFlags { packet_type, flags });
    }
    Ok(())
}

/// Most acks are four bytes long: they need neither a slice of the input nor a reader.
fn short_ack(
    packet_type: PacketType,
    remaining: u32,
    body: &[u8],
) -> Option<Result<Packet, DecodeError>> {
    let wrap = match packet_type {
        PacketType::PubAck => Packet::PubAck,
        PacketType::PubRec => Packet::PubRec,
        PacketType::PubRel => Packet::PubRel,
        PacketType::PubComp => Packet::PubComp,
        _ => return None,
    };
    let [high, low, ..] = *body else { return None };
    (remaining == 2).then(|| {
        PacketId::new(u16::from_be_bytes([high, low]))
            .map(|packet_id| wrap(Ack::success(packet_id)))
            .ok_or(DecodeError::PacketIdZero)
    })
}
