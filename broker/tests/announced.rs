//! A length that has only been announced costs nothing: memory goes with what has arrived.
//!
//! One test, in a binary of its own: it counts what the whole process allocates.

#![allow(
    dead_code,
    reason = "most helpers of the conformance tests are not used here"
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic like tests"
)]

#[path = "conformance/client.rs"]
mod client;
#[path = "conformance/world.rs"]
mod world;

use std::alloc::System;

use broker::codec::decode::Decoder;
use broker::codec::packet::Version;
use bytes::BytesMut;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::client::V5;
use self::world::World;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[tokio::test]
async fn what_is_only_announced_reserves_nothing() {
    decoding_reserves_nothing();
    connections_hold_what_has_arrived().await;
}

/// The decoder, at every announced length, while the packet dribbles in.
fn decoding_reserves_nothing() {
    let lengths: [&[u8]; 4] = [
        &[0xFF, 0x7F],
        &[0xFF, 0xFF, 0x7F],
        &[0x80, 0x80, 0x80, 0x01],
        &[0xFF, 0xFF, 0xFF, 0x7F],
    ];
    for length in lengths {
        for first in [0x10, 0x30, 0x32, 0x82, 0xA2, 0xE0] {
            let mut decoder = match first {
                0x10 => Decoder::new(u32::MAX),
                _ => Decoder::with_version(Version::V5, u32::MAX),
            };
            let mut input = BytesMut::with_capacity(4_096);
            input.extend_from_slice(&[first]);
            input.extend_from_slice(length);
            let region = Region::new(ALLOCATOR);
            for _ in 0..1_000 {
                input.extend_from_slice(&[0]);
                assert_eq!(decoder.decode(&mut input), Ok(None));
            }
            // The threads of the test harness may allocate a little meanwhile; the least that is announced is 16,383.
            let bytes = region.change().bytes_allocated;
            assert!(
                bytes < 8_192,
                "{bytes} bytes for a packet that has not come"
            );
        }
    }
}

/// A broker with many connections that announce what it just accepts, and send a little of it.
async fn connections_hold_what_has_arrived() {
    const CONNECTIONS: usize = 100;
    const ANNOUNCED: usize = 250_000;
    const ARRIVED: usize = 5_000;
    let world = World::with(|config| config.packet_bytes_max = 256 * 1024);
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let client_id: &'static str = format!("c{number}").leak();
        clients.push(world.connect(V5, client_id).await);
    }
    let before = world.metrics.bytes_received.value();
    let region = Region::new(ALLOCATOR);
    for client in &mut clients {
        // PUBLISH of 250,000 bytes: 0x90 0xA1 0x0F.
        client.send_bytes(&[0x30, 0x90, 0xA1, 0x0F]).await;
        client.send_bytes(&[0; ARRIVED]).await;
    }
    let sent = (CONNECTIONS * (ARRIVED + 4)) as u64;
    while world.metrics.bytes_received.value() < before + sent {
        tokio::task::yield_now().await;
    }
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    // Twice what has arrived, for growth by doubling, and 2 KB for the rest of a connection; announced were 25 MB.
    let bound = CONNECTIONS * (2 * ARRIVED + 2_000);
    assert!(bound < CONNECTIONS * ANNOUNCED / 10);
    assert!(held < bound, "{held} bytes held, {bound} expected");
    assert!(
        held > CONNECTIONS * ARRIVED / 2,
        "{held}: what has arrived is held"
    );
}
