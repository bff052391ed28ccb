//! The form of CONNECT, and what CONNACK says (MQTT 5.0 §3.1, §3.2; 3.1.1 §3.1, §3.2).

use broker::codec::packet::{Connect, Packet, Qos, Version};
use broker::codec::reason::ReasonCode;
use bytes::Bytes;

use super::client::{
    Client, V5, V311, connect, connect_head, connect_persistent, frame, no_properties, qos0, qos1,
    text,
};
use super::world::World;

/// A CONNECT of these flags and payload.
fn raw_connect(version: Version, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    frame(0x10, &[&connect_head(version, flags), &payload.concat()])
}

/// A malformed CONNECT is answered by CONNACK in 5.0 and by nothing in 3.1.1; the connection is closed.
async fn malformed(world: &World, version: Version, bytes: &[u8]) {
    let mut client = world.open(version).await;
    client.send_bytes(bytes).await;
    if version == V5 {
        match client.receive().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::MalformedPacket),
            other => panic!("CONNACK expected, not {other:?}"),
        }
    }
    client.expect_closed().await;
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2]: another protocol name or version is told, and the connection closed.
/// 3.1.1 [MQTT-3.1.2-1], [MQTT-3.1.2-2].
#[tokio::test]
async fn another_protocol_is_refused() {
    let world = World::start();
    for (name, level, answer) in [
        ("MQTX", 5, &[0x20, 3, 0, 0x84, 0][..]),
        ("mqtt", 5, &[0x20, 3, 0, 0x84, 0]),
        ("", 5, &[0x20, 3, 0, 0x84, 0]),
        ("MQTT", 6, &[0x20, 3, 0, 0x84, 0]),
        ("MQTT", 255, &[0x20, 3, 0, 0x84, 0]),
        ("MQTX", 4, &[0x20, 2, 0, 1]),
        ("MQTT", 2, &[0x20, 2, 0, 1]),
    ] {
        let mut client = world.open(V5).await;
        let packet = frame(0x10, &[&text(name), &[level, 2, 0, 0, 0, 0, 1, b'a']]);
        client.send_bytes(&packet).await;
        let connack = without_text(client.receive_raw().await);
        assert_eq!(connack, answer, "{name} {level}");
        client.expect_closed().await;
    }
}

/// [MQTT-3.1.2-3], [MQTT-3.1.4-1]: the reserved flag is checked. 3.1.1 [MQTT-3.1.2-3], [MQTT-3.1.4-1].
#[tokio::test]
async fn the_reserved_connect_flag_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        malformed(&world, version, &raw_connect(version, 0b11, &[b"\0\x01a"])).await;
    }
}

/// [MQTT-3.1.2-11]: no Will QoS, [MQTT-3.1.2-13]: no Will Retain without a will, [MQTT-3.1.2-12]: no Will QoS 3.
/// 3.1.1 [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-14], [MQTT-3.1.2-15], [MQTT-3.1.2-22].
#[tokio::test]
async fn connect_flags_that_contradict_each_other_close_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        for flags in [0b0000_1010, 0b0001_0010, 0b0001_1010, 0b0010_0010] {
            malformed(&world, version, &raw_connect(version, flags, &[b"\0\x01a"])).await;
        }
        let none = no_properties(version);
        let will: &[&[u8]] = &[b"\0\x01a", none, b"\0\x01w", b"\0\x01x"];
        malformed(&world, version, &raw_connect(version, 0b0001_1110, will)).await;
    }
    // A password without a user name: 3.1.1 only.
    let password: &[&[u8]] = &[b"\0\x01a", b"\0\x01p"];
    malformed(&world, V311, &raw_connect(V311, 0b0100_0010, password)).await;
    let mut client = world.open(V5).await;
    client
        .send_bytes(&raw_connect(V5, 0b0100_0010, password))
        .await;
    assert!(
        matches!(client.receive().await, Packet::ConnAck(ack) if ack.reason == ReasonCode::Success)
    );
}

/// [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19], [MQTT-3.1.3-3]: what the flags announce is there.
/// 3.1.1 [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.3-3].
#[tokio::test]
async fn a_field_of_connect_that_is_missing_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        let cases: &[(u8, &[&[u8]])] = &[
            (0b0000_0010, &[]),                             // no Client Identifier
            (0b0000_0110, &[b"\0\x01a"]),                   // no will
            (0b0000_0110, &[b"\0\x01a", none, b"\0\x01w"]), // no Will Payload
            (0b1000_0010, &[b"\0\x01a"]),                   // no User Name
            (0b1100_0010, &[b"\0\x01a", b"\0\x01u"]),       // no Password
        ];
        for (flags, payload) in cases {
            malformed(&world, version, &raw_connect(version, *flags, payload)).await;
        }
    }
}

/// [MQTT-3.1.2-16], [MQTT-3.1.2-18]: what no flag announces is not there. 3.1.1 [MQTT-3.1.2-11], [MQTT-3.1.2-18],
/// 3.1.1 [MQTT-3.1.2-20].
#[tokio::test]
async fn a_field_of_connect_that_no_flag_announces_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let cases: &[(u8, &[&[u8]])] = &[
            (0b0000_0010, &[b"\0\x01a", b"\0\x01u"]),
            (0b1000_0010, &[b"\0\x01a", b"\0\x01u", b"\0\x01p"]),
            (
                0b0000_0010,
                &[b"\0\x01a", no_properties(version), b"\0\x01w", b"\0\x01x"],
            ),
        ];
        for (flags, payload) in cases {
            malformed(&world, version, &raw_connect(version, *flags, payload)).await;
        }
    }
}

/// [MQTT-3.1.3-1]: Client Identifier, will, User Name, Password, in this order. 3.1.1 [MQTT-3.1.3-1].
#[tokio::test]
async fn the_fields_of_connect_come_in_their_order() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("w", Qos::AtMostOnce)]).await;
    for version in [V5, V311] {
        let none = no_properties(version);
        for (user, reason) in [
            ("alice", ReasonCode::Success),
            ("nobody", ReasonCode::BadUserNameOrPassword),
        ] {
            let user = text(user);
            let fields: &[&[u8]] = &[
                b"\0\x01a",
                none,
                b"\0\x01w",
                b"\0\x04will",
                &user,
                b"\0\x01p",
            ];
            let mut client = world.open(version).await;
            client
                .send_bytes(&raw_connect(version, 0b1100_0110, fields))
                .await;
            match client.receive().await {
                Packet::ConnAck(ack) => assert_eq!(ack.reason, reason),
                other => panic!("{other:?}"),
            }
            client.vanish();
        }
        // The will of the one who was let in.
        assert_eq!(watcher.receive_publish().await.payload, "will");
    }
    watcher.expect_quiet().await;
}

/// [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]: the texts of CONNECT are UTF-8.
/// 3.1.1 [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11].
#[tokio::test]
async fn ill_formed_text_in_connect_closes_the_connection() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        for bad in [&b"\0"[..], b"\xED\xA0\x80", b"\xFF"] {
            let bad = text(bad);
            let cases: &[(u8, &[&[u8]])] = &[
                (0b0000_0010, &[&bad]),
                (0b0000_0110, &[b"\0\x01a", none, &bad, b"\0\x01x"]),
                (0b1000_0010, &[b"\0\x01a", &bad]),
            ];
            for (flags, payload) in cases {
                malformed(&world, version, &raw_connect(version, *flags, payload)).await;
            }
        }
    }
}

/// [MQTT-3.1.3-5]: Client Identifiers of 1 to 23 letters and digits are allowed; ours may be any text.
/// [MQTT-3.1.3-2]: they identify the session. 3.1.1 [MQTT-3.1.3-2], [MQTT-3.1.3-5].
#[tokio::test]
async fn client_identifiers_of_all_kinds_name_sessions_of_their_own() {
    let world = World::start();
    let ids = [
        "a",
        "A",
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ",
        "a/b",
        "+",
        "#",
        "$share/x/y",
        "with a space",
        "é\u{FEFF}",
        "x".repeat(1_000).leak(),
    ];
    for version in [V5, V311] {
        for present in [false, true] {
            for client_id in ids {
                let (client, ack) = world.connect_persistent(version, client_id).await;
                assert_eq!(ack.session_present, present, "{client_id}");
                client.disconnect().await;
            }
        }
        for client_id in ids {
            world.connect(version, client_id).await.disconnect().await;
        }
    }
}

async fn refused_by_name(world: &World, version: Version) -> (Client, Connect) {
    let mut refused = connect_persistent(version, "a");
    refused.user_name = Some("nobody".into());
    (world.open(version).await, refused)
}

/// [MQTT-3.2.2-6], [MQTT-3.2.2-7], [MQTT-3.2.2-8], [MQTT-3.1.4-2], [MQTT-4.13.2-1]: a refusal has a Reason Code of CONNACK
/// and Session Present 0, and is followed by the close.
/// 3.1.1 [MQTT-3.2.2-4], [MQTT-3.2.2-5].
#[tokio::test]
async fn a_refusal_is_told_without_a_session_and_closes_the_connection() {
    let world = World::start();
    for (version, bytes) in [(V5, &[0x20, 3, 0, 0x86, 0][..]), (V311, &[0x20, 2, 0, 4])] {
        let (mut client, mut asked) = refused_by_name(&world, version).await;
        // There is a session of that name, of somebody else.
        world
            .connect_persistent(version, "a")
            .await
            .0
            .disconnect()
            .await;
        asked.properties.session_expiry_interval = None;
        client.send(&Packet::Connect(Box::new(asked))).await;
        assert_eq!(without_text(client.receive_raw().await), bytes);
        client.expect_closed().await;
    }
}

/// A CONNACK without its only property, if that is a Reason String.
fn without_text(mut connack: Vec<u8>) -> Vec<u8> {
    if connack.get(5) == Some(&0x1F) {
        connack.truncate(5);
        (connack[1], connack[4]) = (3, 0);
    }
    connack
}

/// [MQTT-3.1.4-6]: nothing behind a refused CONNECT is processed. 3.1.1 [MQTT-3.1.4-5].
#[tokio::test]
async fn what_follows_a_refused_connect_is_not_processed() {
    let world = World::start();
    let mut watcher = world.connect(V5, "watcher").await;
    watcher.subscribe(&[("t", Qos::AtMostOnce)]).await;
    for version in [V5, V311] {
        let (mut client, asked) = refused_by_name(&world, version).await;
        client
            .send_all(&[
                Packet::Connect(Box::new(asked)),
                qos0("t", "x"),
                qos1("t", 1, "x"),
            ])
            .await;
        assert!(matches!(client.receive().await, Packet::ConnAck(_)));
        client.expect_closed().await;
        watcher.expect_quiet().await;
    }
    assert_eq!(world.metrics.publishes_received.value(), 0);
}

/// [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.2.2-1], [MQTT-3.1.4-5]: CONNACK comes first, also before what waits, and once;
/// its reserved flags are 0.
/// 3.1.1 [MQTT-3.2.0-1], [MQTT-3.1.4-4].
#[tokio::test]
async fn connack_comes_first_and_once() {
    let world = World::start();
    for version in [V5, V311] {
        let (mut client, _) = world.connect_persistent(version, "a").await;
        client.subscribe(&[("t", Qos::AtLeastOnce)]).await;
        client.disconnect().await;
        world.connect(version, "b").await.publish_qos1("t", 1).await;
        let mut client = world.open(version).await;
        client
            .send_all(&[
                Packet::Connect(Box::new(connect_persistent(version, "a"))),
                Packet::PingReq,
                Packet::PingReq,
            ])
            .await;
        let connack = client.receive_raw().await;
        assert_eq!((connack[0], &connack[2..4]), (0x20, &[1, 0][..]));
        let mut rest = [
            client.receive_raw().await[0],
            client.receive_raw().await[0],
            client.receive_raw().await[0],
        ];
        rest.sort_unstable();
        assert_eq!(rest, [0x32, 0xD0, 0xD0]);
        client.expect_quiet().await;
        world.connect(version, "a").await;
    }
}

/// [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.2-6], [MQTT-3.1.4-4], [MQTT-3.2.2-2], [MQTT-3.2.2-3]: Clean Start discards,
/// otherwise a session is resumed if there is one, and Session Present tells.
/// 3.1.1 [MQTT-3.1.2-4], [MQTT-3.1.2-6], [MQTT-3.1.4-3], [MQTT-3.2.2-1], [MQTT-3.2.2-2], [MQTT-3.2.2-3].
#[tokio::test]
async fn session_present_tells_whether_a_session_is_resumed() {
    let world = World::start();
    for (version, client_id) in [(V5, "five"), (V311, "three")] {
        let keep = connect_persistent(version, client_id);
        let mut clean = keep.clone();
        clean.clean_start = true;
        // In 3.1.1 a clean session ends with its connection; in 5.0 ours has an expiry.
        let kept_after_clean = version == V5;
        for (asked, present) in [
            (&keep, false),
            (&keep, true),
            (&clean, false),
            (&keep, kept_after_clean),
            (&clean, false),
            (&clean, false),
        ] {
            let (mut client, ack) = world.connect_with(asked.clone()).await;
            assert_eq!(ack.session_present, present);
            if asked.clean_start {
                // Nothing of an earlier session is left.
                client.send(&qos0("t", "x")).await;
                client.expect_quiet().await;
            }
            client.subscribe(&[("t", Qos::AtMostOnce)]).await;
            client.disconnect().await;
        }
    }
}

/// [MQTT-3.1.2-28]: without being asked for, there is no Response Information.
/// [MQTT-4.12.0-6]: without a method, no AUTH and no Authentication Method.
/// [MQTT-3.2.2-22]: without a Server Keep Alive, the client's holds.
#[tokio::test]
async fn connack_has_nothing_that_was_not_asked_for() {
    let world = World::start();
    for wanted in [None, Some(false)] {
        let mut asked = connect(V5, "a");
        asked.properties.request_response_information = wanted;
        let (_client, ack) = world.connect_with(asked).await;
        assert_eq!(ack.properties.response_information, None);
        assert_eq!(ack.properties.authentication_method, None);
        assert_eq!(ack.properties.authentication_data, None);
        assert_eq!(ack.properties.server_keep_alive, None);
        assert_eq!(ack.properties.assigned_client_identifier, None);
    }
}

/// [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.1.2-24]: CONNACK keeps to the client's Maximum Packet Size, or does not come.
#[tokio::test]
async fn connack_keeps_to_the_maximum_packet_size() {
    let world = World::start();
    for (user, max, comes) in [
        ("alice", 1_u32, false),
        ("alice", 4, false),
        ("alice", 100, true),
        ("nobody", 1, false),
        ("nobody", 4, false),
        ("nobody", 5, true),
        ("nobody", 100, true),
    ] {
        let mut asked = connect(V5, "a");
        asked.user_name = Some(user.into());
        asked.password = Some(Bytes::new());
        asked.properties.maximum_packet_size = Some(max);
        let mut client = world.open(V5).await;
        client.send(&Packet::Connect(Box::new(asked))).await;
        if comes {
            let connack = client.receive_raw().await;
            assert_eq!(connack[0], 0x20);
            assert!(connack.len() <= max as usize);
        } else {
            client.expect_closed().await;
        }
    }
}

/// [MQTT-3.14.0-1]: who was not let in gets no DISCONNECT. 3.1.1 [MQTT-3.2.2-6]: and in 3.1.1, where no return code fits,
/// nothing at all.
#[tokio::test]
async fn before_connack_there_is_no_disconnect() {
    let world = World::start();
    for bytes in [&b"\xC0\0"[..], b"\x30\x04\0\x01tx", b"\xE0\0", b"\0\0"] {
        let mut client = world.open(V5).await;
        client.send_bytes(bytes).await;
        client.expect_closed().await;
    }
    for version in [V5, V311] {
        let trailing: &[&[u8]] = &[b"\0\x01a", b"\0"];
        malformed(&world, version, &raw_connect(version, 0b10, trailing)).await;
    }
}

/// [MQTT-3.1.2-27]: a client that allows no Topic Alias gets none.
#[tokio::test]
async fn without_a_topic_alias_maximum_the_server_sends_no_alias() {
    let world = World::start();
    for maximum in [None, Some(0)] {
        let mut asked = connect(V5, "a");
        asked.properties.topic_alias_maximum = maximum;
        let (mut client, _) = world.connect_with(asked).await;
        client.subscribe(&[("t", Qos::AtMostOnce)]).await;
        for _ in 0..3 {
            client.send(&qos0("t", "x")).await;
            let got = client.receive_publish().await;
            assert_eq!((&*got.topic, got.properties.topic_alias), ("t", None));
        }
    }
}
