//! No input makes the decoder panic, and input in parts gives the same as input at once.
#![no_main]

use broker::codec::decode::{DecodeError, Decoder};
use broker::codec::packet::{Packet, Version};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let decoder = decoder(*choice);
    let mut at_once = BytesMut::from(bytes);
    let expected = take_all(&mut decoder.clone(), &mut at_once);

    let (mut decoder, mut input, mut packets) = (decoder, BytesMut::new(), Vec::new());
    let mut error = None;
    for part in bytes.chunks(3) {
        input.extend_from_slice(part);
        let (more, failed) = take_all(&mut decoder, &mut input);
        packets.extend(more);
        error = failed;
        if error.is_some() {
            break;
        }
    }
    assert_eq!((packets, error), expected);
});

fn take_all(decoder: &mut Decoder, input: &mut BytesMut) -> (Vec<Packet>, Option<DecodeError>) {
    let mut packets = Vec::new();
    loop {
        match decoder.decode(input) {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(error) => {
                let _ = (error.reason_code(), error.to_string());
                return (packets, Some(error));
            }
        }
    }
}

fn decoder(choice: u8) -> Decoder {
    match choice % 5 {
        0 => Decoder::new(1 << 20),
        1 => Decoder::with_version(Version::V311, 1 << 20),
        2 => Decoder::with_version(Version::V5, 1 << 20),
        3 => Decoder::for_client(Version::V311, 1 << 20),
        _ => Decoder::for_client(Version::V5, 1 << 20),
    }
}
