//! What was decoded, written and decoded again is the same, and as long as `encoded_len` said.
#![no_main]

use broker::codec::decode::Decoder;
use broker::codec::encode::{encode, encoded_len};
use broker::codec::packet::{Packet, Version};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let mut decoder = decoder(*choice);
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(packet)) = decoder.decode(&mut input) {
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => decoder.version().expect("CONNECT comes first"),
        };
        let mut written = BytesMut::new();
        encode(&packet, version, &mut written);
        assert_eq!(written.len(), encoded_len(&packet, version));
        let mut again = match choice % 5 {
            3 | 4 => Decoder::for_client(version, u32::MAX),
            _ => Decoder::with_version(version, u32::MAX),
        };
        assert_eq!(again.decode(&mut written), Ok(Some(packet)));
        assert!(written.is_empty());
    }
});

fn decoder(choice: u8) -> Decoder {
    match choice % 5 {
        0 => Decoder::new(1 << 20),
        1 => Decoder::with_version(Version::V311, 1 << 20),
        2 => Decoder::with_version(Version::V5, 1 << 20),
        3 => Decoder::for_client(Version::V311, 1 << 20),
        _ => Decoder::for_client(Version::V5, 1 << 20),
    }
}
