//! WebSocket frames (RFC 6455 §5), without I/O.

/// Reads the frames of a client: strips heads and masks, keeps control frames apart.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// A message goes on: its next frame is a continuation.
    is_fragmented: bool,
    /// Payload of the last ping that was not answered yet.
    ping: Option<Vec<u8>>,
    end: Option<End>,
}

/// Why no data follow any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed, with this code.
    Closed(Option<Code>),
    /// The client did what it may not.
    Violation(Violation),
}

/// What a client did that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// [MQTT-6.0.0-1].
    #[error("text frame")]
    Text,
    /// No extension was agreed on (§5.2).
    #[error("reserved bits are set")]
    ReservedBits,
    #[error("opcode {0} is unknown")]
    Opcode(u8),
    /// §5.1.
    #[error("frame without mask")]
    NoMask,
    /// §5.2.
    #[error("length in more bytes than needed, or above 2⁶³")]
    Length,
    /// §5.5.
    #[error("control frame in fragments, or longer than 125 bytes")]
    Control,
    /// §5.4.
    #[error("continuation of nothing, or a new message within another")]
    Fragments,
    /// §5.5.1, §7.4.
    #[error("close frame with half a code, or one that may not be sent")]
    CloseCode,
    /// §5.5.1.
    #[error("close frame with a reason that is not UTF-8")]
    CloseReason,
}

impl Violation {
    /// The code that tells the client.
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Text => Code(1003),
            Self::CloseReason => Code(1007),
            _ => Code(1002),
        }
    }
}

/// Why a connection is closed (§7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(u16);

impl Code {
    pub(super) const NORMAL: Self = Self(1000);
    pub(super) const GOING_AWAY: Self = Self(1001);

    /// May it be sent?
    const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

#[derive(Debug)]
enum State {
    /// A head of which this much has come.
    Head {
        bytes: [u8; HEAD_BYTES_MAX],
        len: u8,
    },
    /// Data of which this much is still to come.
    Data { left: u64, mask: Mask },
    /// The payload of a control frame of which this much is still to come.
    Control {
        opcode: u8,
        left: u8,
        mask: Mask,
        payload: Vec<u8>,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Head {
            bytes: [0; HEAD_BYTES_MAX],
            len: 0,
        }
    }
}

impl Reader {
    /// Why nothing more comes, if so.
    pub(super) const fn end(&self) -> Option<End> {
        self.end
    }

    /// Is there a ping that is to be answered?
    pub(super) const fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// The ping that is to be answered: the last one is enough (§5.5.3).
    pub(super) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Takes what has come. Returns how many bytes of data now stand at the front of it.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> usize {
        let (mut position, mut data) = (0, 0);
        while self.end.is_none() && position < bytes.len() {
            if let State::Data { left, mask } = &mut self.state {
                let rest = bytes.len() - position;
                let len = usize::try_from(*left).map_or(rest, |left| left.min(rest));
                bytes.copy_within(position..position + len, data);
                if let Some(taken) = bytes.get_mut(data..data + len) {
                    mask.remove(taken);
                }
                *left -= len as u64;
                position += len;
                data += len;
                if *left == 0 {
                    self.state = State::default();
                }
            } else if let Some(byte) = bytes.get(position) {
                position += 1;
                if let Err(violation) = self.take(*byte) {
                    self.end = Some(End::Violation(violation));
                }
            }
        }
        data
    }

    /// Takes one byte of a head or of a control frame.
    fn take(&mut self, byte: u8) -> Result<(), Violation> {
        match &mut self.state {
            State::Head { bytes, len } => {
                if let Some(place) = bytes.get_mut(usize::from(*len)) {
                    *place = byte;
                }
                *len += 1;
                let (bytes, len) = (*bytes, *len);
                self.take_head(bytes, len)
            }
            State::Control {
                opcode,
                left,
                mask,
                payload,
            } => {
                let mut byte = [byte];
                mask.remove(&mut byte);
                payload.extend_from_slice(&byte);
                *left -= 1;
                if *left > 0 {
                    return Ok(());
                }
                let (opcode, payload) = (*opcode, std::mem::take(payload));
                self.end_control(opcode, payload)
            }
            State::Data { .. } => Ok(()),
        }
    }

    fn take_head(&mut self, bytes: [u8; HEAD_BYTES_MAX], len: u8) -> Result<(), Violation> {
        let [first, second, long @ .., _, _, _, _] = bytes;
        let opcode = first & 0x0F;
        // What is wrong is found with the byte that tells.
        if len == 1 {
            return self.check_first(first);
        }
        if len == 2 {
            check_second(opcode, second)?;
        }
        let (mut long_len, mut payload) = (0, u64::from(second & 0x7F));
        if payload == 126 {
            let [high, low, ..] = long;
            (long_len, payload) = (2, u16::from_be_bytes([high, low]).into());
        } else if payload == 127 {
            (long_len, payload) = (8, u64::from_be_bytes(long));
        }
        if len == 2 + long_len && is_badly_encoded(long_len, payload) {
            return Err(Violation::Length);
        }
        if len < 2 + long_len + MASK_BYTES {
            return Ok(());
        }
        let mask = bytes.get(usize::from(2 + long_len)..);
        let mask = Mask::new(*mask.and_then(|mask| mask.first_chunk()).unwrap_or(&[0; 4]));
        self.begin(first, payload, mask)
    }

    fn check_first(&self, first: u8) -> Result<(), Violation> {
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        match opcode {
            CONTINUATION | BINARY if self.is_fragmented == (opcode == CONTINUATION) => Ok(()),
            CONTINUATION | BINARY => Err(Violation::Fragments),
            TEXT => Err(Violation::Text),
            CLOSE | PING | PONG if is_final => Ok(()),
            CLOSE | PING | PONG => Err(Violation::Control),
            other => Err(Violation::Opcode(other)),
        }
    }

    /// The head is complete.
    fn begin(&mut self, first: u8, payload: u64, mask: Mask) -> Result<(), Violation> {
        let opcode = first & 0x0F;
        self.state = State::default();
        if !is_control(opcode) {
            self.is_fragmented = first & 0x80 == 0;
            if payload > 0 {
                self.state = State::Data {
                    left: payload,
                    mask,
                };
            }
            return Ok(());
        }
        match u8::try_from(payload) {
            Ok(0) => self.end_control(opcode, Vec::new()),
            Ok(left) => {
                self.state = State::Control {
                    opcode,
                    left,
                    mask,
                    payload: Vec::with_capacity(left.into()),
                };
                Ok(())
            }
            Err(_) => Err(Violation::Control),
        }
    }

    fn end_control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<(), Violation> {
        self.state = State::default();
        match opcode {
            PING => self.ping = Some(payload),
            CLOSE => self.end = Some(End::Closed(parse_close(&payload)?)),
            // A pong that nobody asked for means nothing (§5.5.3).
            _ => {}
        }
        Ok(())
    }
}

fn check_second(opcode: u8, second: u8) -> Result<(), Violation> {
    if second & 0x80 == 0 {
        return Err(Violation::NoMask);
    }
    if is_control(opcode) && second & 0x7F > CONTROL_BYTES_MAX {
        return Err(Violation::Control);
    }
    Ok(())
}

const fn is_badly_encoded(long_len: u8, payload: u64) -> bool {
    match long_len {
        0 => false,
        2 => payload < 126,
        _ => payload <= 0xFFFF || payload >> 63 != 0,
    }
}

const fn is_control(opcode: u8) -> bool {
    opcode & 0x08 != 0
}

fn parse_close(payload: &[u8]) -> Result<Option<Code>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let is_empty = payload.is_empty();
        return is_empty.then_some(None).ok_or(Violation::CloseCode);
    };
    let code = Code(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Violation::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::CloseReason),
    }
}

/// The mask of a frame (§5.3), turned to the place where the next byte stands.
#[derive(Clone, Copy, Debug)]
struct Mask([u8; 4]);

impl Mask {
    const fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    fn remove(&mut self, bytes: &mut [u8]) {
        let (chunks, rest) = bytes.as_chunks_mut::<4>();
        let key = u32::from_ne_bytes(self.0);
        for chunk in chunks {
            *chunk = (u32::from_ne_bytes(*chunk) ^ key).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.0) {
            *byte ^= key;
        }
        self.0.rotate_left(rest.len());
    }
}

/// The head of a frame of ours, as far as it is not written yet.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: [u8; 4],
    from: u8,
    to: u8,
}

impl Head {
    /// A whole message of `len` bytes, at most 65,535.
    pub(super) fn binary(len: usize) -> Self {
        let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        match len {
            0..126 => Self {
                bytes: [0x80 | BINARY, low, 0, 0],
                from: 0,
                to: 2,
            },
            _ => Self {
                bytes: [0x80 | BINARY, 126, high, low],
                from: 0,
                to: 4,
            },
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.from == self.to
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        let place = usize::from(self.from)..usize::from(self.to);
        self.bytes.get(place).unwrap_or_default()
    }

    /// So many bytes of it and of what follows it are written; returns how many of what follows.
    pub(super) fn advance(&mut self, written: usize) -> usize {
        let left = usize::from(self.to - self.from);
        match u8::try_from(written) {
            Ok(some) if written < left => self.from += some,
            _ => self.from = self.to,
        }
        written.saturating_sub(left)
    }
}

/// A pong with the payload of its ping.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    control(PONG, payload)
}

/// A close frame.
pub(super) fn close(code: Option<Code>) -> Vec<u8> {
    match code {
        Some(code) => control(CLOSE, &code.0.to_be_bytes()),
        None => control(CLOSE, &[]),
    }
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap_or(CONTROL_BYTES_MAX);
    let mut frame = vec![0x80 | opcode, len];
    frame.extend(payload.iter().take(len.into()));
    frame
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const MASK_BYTES: u8 = 4;
const CONTROL_BYTES_MAX: u8 = 125;
/// Two bytes, eight of a long length, four of the mask.
const HEAD_BYTES_MAX: usize = 14;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A frame of a client.
    pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            len @ 126..=0xFFFF => {
                frame.push(0xFE);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(0xFF);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b));
        frame
    }

    /// The data in frames that come in parts of a size.
    fn read(reader: &mut Reader, frames: &[u8], part: usize) -> Vec<u8> {
        let mut data = Vec::new();
        for part in frames.chunks(part) {
            let mut part = part.to_vec();
            let len = reader.read(&mut part);
            data.extend(&part[..len]);
        }
        data
    }

    #[test]
    fn the_example_of_the_specification() {
        // §5.7, as a binary frame.
        let frame = [
            0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(read(&mut Reader::default(), &frame, 100), b"Hello");
    }

    #[test]
    fn what_is_not_allowed_ends_reading_with_its_code() {
        use Violation as V;
        let long = |len: u64| [&[0x82, 0xFF][..], &len.to_be_bytes()].concat();
        for (frames, violation, code) in [
            (masked(0x81, b"a"), V::Text, 1003),
            (masked(0x01, b"a"), V::Text, 1003),
            (masked(0xC2, b"a"), V::ReservedBits, 1002),
            (masked(0xA2, b"a"), V::ReservedBits, 1002),
            (masked(0x83, b"a"), V::Opcode(3), 1002),
            (masked(0x8B, b"a"), V::Opcode(11), 1002),
            (vec![0x82, 0x01, b'a'], V::NoMask, 1002),
            (vec![0x89, 0x00], V::NoMask, 1002),
            (vec![0x82, 0xFE, 0, 125], V::Length, 1002),
            (long(0xFFFF), V::Length, 1002),
            (long(1 << 63), V::Length, 1002),
            (masked(0x09, b""), V::Control, 1002),
            (masked(0x89, &[0; 126]), V::Control, 1002),
            (masked(0x80, b"a"), V::Fragments, 1002),
            (
                [masked(0x02, b"a"), masked(0x82, b"b")].concat(),
                V::Fragments,
                1002,
            ),
            (masked(0x88, &[3]), V::CloseCode, 1002),
            (masked(0x88, &999_u16.to_be_bytes()), V::CloseCode, 1002),
            (masked(0x88, &1005_u16.to_be_bytes()), V::CloseCode, 1002),
            (masked(0x88, &[0x03, 0xE8, 0xFF]), V::CloseReason, 1007),
        ] {
            for part in [1, 100] {
                let mut reader = Reader::default();
                read(&mut reader, &frames, part);
                assert_eq!(reader.end(), Some(End::Violation(violation)));
                assert_eq!(violation.code(), Code(code));
            }
        }
    }

    #[test]
    fn the_last_ping_is_the_one_to_answer() {
        let mut reader = Reader::default();
        let frames = [masked(0x89, b"1"), masked(0x8A, b"x"), masked(0x89, b"2")];
        assert_eq!(read(&mut reader, &frames.concat(), 3), b"");
        assert_eq!(reader.take_ping().as_deref(), Some(&b"2"[..]));
        assert_eq!(reader.take_ping(), None);
    }

    #[test]
    fn nothing_counts_after_close() {
        let mut reader = Reader::default();
        let frames = [masked(0x88, b""), masked(0x82, b"late"), masked(0x81, b"")];
        assert_eq!(read(&mut reader, &frames.concat(), 100), b"");
        assert_eq!(reader.end(), Some(End::Closed(None)));
    }

    proptest! {
        #[test]
        fn data_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..400), 1..200_usize, any::<bool>()), 1..6
            ),
            part in 1..100_usize,
        ) {
            let (mut frames, mut expected) = (Vec::new(), Vec::new());
            for (message, fragment, ping) in messages {
                let last = message.chunks(fragment).count().max(1) - 1;
                if message.is_empty() {
                    frames.extend(masked(0x82, b""));
                }
                for (number, chunk) in message.chunks(fragment).enumerate() {
                    let opcode = if number == 0 { 2 } else { 0 };
                    frames.extend(masked(opcode | if number == last { 0x80 } else { 0 }, chunk));
                    if ping {
                        frames.extend(masked(0x89, b"ping"));
                    }
                }
                expected.extend(message);
            }
            let mut reader = Reader::default();
            prop_assert_eq!(read(&mut reader, &frames, part), expected);
            prop_assert_eq!(reader.end(), None);
        }

        #[test]
        fn any_bytes_give_no_more_data_than_came(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            part in 1..50_usize,
        ) {
            let mut reader = Reader::default();
            prop_assert!(read(&mut reader, &bytes, part).len() <= bytes.len());
        }
    }
}
