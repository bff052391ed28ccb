//! Packets as templates: hex, with lengths that are counted instead of written.
//!
//! `10: 0004 4D515454 05 02 0000 [21 000A] <>` has a first byte, then the body. `[…]` is a section with its length before it
//! (MQTT 5.0 §2.2.2), `<>` a text or binary data with its length of two bytes before it. Spaces mean nothing.

/// The packet, with `text` wherever the template has `<>`.
pub(crate) fn packet(template: &str, text: &[u8]) -> Vec<u8> {
    let (first, body) = template.split_once(':').expect("first byte and body");
    framed(hex(first.trim()), &fields(body, text))
}

/// A packet of this first byte and body.
pub(crate) fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(varint(body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a packet that has arrived whole.
pub(crate) fn body(packet: &[u8]) -> &[u8] {
    let length_bytes = packet[1..].iter().position(|byte| byte & 0x80 == 0);
    &packet[2 + length_bytes.expect("a length")..]
}

/// A Variable Byte Integer in as few bytes as it needs.
pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value % 128).expect("seven bits");
        value /= 128;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn fields(source: &str, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = source.trim_start();
    while !rest.is_empty() {
        rest = if let Some(after) = rest.strip_prefix("<>") {
            let length = u16::try_from(text.len()).expect("16 bits");
            bytes.extend(length.to_be_bytes());
            bytes.extend_from_slice(text);
            after
        } else if let Some(after) = rest.strip_prefix('[') {
            let (section, after) = after.split_once(']').expect("the end of a section");
            let section = fields(section, text);
            bytes.extend(varint(section.len()));
            bytes.extend(section);
            after
        } else {
            let (digits, after) = rest.split_at(2);
            bytes.push(hex(digits));
            after
        }
        .trim_start();
    }
    bytes
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).expect("hex")
}
