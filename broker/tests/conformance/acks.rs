//! Acknowledgements: identifiers, Reason Codes, and what they leave out for a client that wants small packets
//! (MQTT 5.0 §3.4 to §3.7, §3.9, §3.11; 3.1.1 the same).

use broker::codec::packet::{Packet, PacketType, Qos};
use broker::codec::properties::AckProperties;
use broker::codec::reason::ReasonCode;
use broker::hooks::PublishAnswer;

use super::client::{
    Client, V5, V311, connect, frame, id, no_properties, puback, pubcomp, pubrec, pubrel, qos1,
    qos2, with_reason,
};
use super::world::{OnPublish, World};

/// [MQTT-2.2.1-5]: acknowledgements carry the identifier of what they acknowledge, [MQTT-3.3.4-1]: and their kind follows
/// from the QoS.
/// 3.1.1 [MQTT-2.3.1-6], [MQTT-3.3.4-1].
#[tokio::test]
async fn acknowledgements_carry_the_identifier_of_the_publish() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        for number in [1, 2, 255, 256, 32_768, 65_535] {
            client.send(&qos1("t", number, "x")).await;
            assert_eq!(client.receive().await, puback(number));
            client.send(&qos2("t", number, "x")).await;
            assert_eq!(client.receive().await, pubrec(number));
            client.send(&pubrel(number)).await;
            assert_eq!(client.receive().await, pubcomp(number));
        }
    }
}

/// [MQTT-2.2.1-6], [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.10.4-4], [MQTT-3.10.4-5]: SUBACK and UNSUBACK too.
/// 3.1.1 [MQTT-2.3.1-7], [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.10.4-4], [MQTT-3.10.4-5].
#[tokio::test]
async fn suback_and_unsuback_carry_the_identifier_of_the_request() {
    let world = World::start();
    for version in [V5, V311] {
        let none = no_properties(version);
        let mut client = world.connect(version, "a").await;
        for number in [1_u16, 256, 65_535] {
            let number = number.to_be_bytes();
            client
                .send_bytes(&frame(0x82, &[&number, none, b"\0\x01t\0"]))
                .await;
            assert_eq!(
                client.receive_raw().await,
                frame(0x90, &[&number, none, b"\0"])
            );
            for reason in [0x00, 0x11] {
                client
                    .send_bytes(&frame(0xA2, &[&number, none, b"\0\x01t"]))
                    .await;
                let reasons = if version == V5 {
                    vec![reason]
                } else {
                    Vec::new()
                };
                let unsuback = frame(0xB0, &[&number, none, &reasons]);
                assert_eq!(client.receive_raw().await, unsuback);
            }
        }
    }
}

fn answer(reason: ReasonCode, reason_string: Option<&'static str>, pair: bool) -> PublishAnswer {
    let pair = pair.then(|| ("name".into(), "value".into()));
    PublishAnswer {
        notice: None,
        reason,
        properties: Some(Box::new(AckProperties {
            reason_string: reason_string.map(Into::into),
            user_properties: pair.into_iter().collect(),
        })),
    }
}

async fn small(world: &World, max: u32) -> Client {
    let mut asked = connect(V5, "a");
    asked.properties.maximum_packet_size = Some(max);
    world.connect_with(asked).await.0
}

/// What comes for one publish below the plugin's root.
async fn ack(client: &mut Client, qos: Qos) -> Vec<u8> {
    match qos {
        Qos::ExactlyOnce => client.send(&qos2("plug/t", 1, "x")).await,
        _ => client.send(&qos1("plug/t", 1, "x")).await,
    }
    client.receive_raw().await
}

/// [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.1.2-24]: Reason String and User Properties of
/// PUBACK and PUBREC are left out for a client that takes no such packet.
#[tokio::test]
async fn an_acknowledgement_leaves_out_what_would_make_it_too_large() {
    let world = World::start();
    let long = "because of what was said before in many words";
    for (qos, first) in [(Qos::AtLeastOnce, 0x40), (Qos::ExactlyOnce, 0x50)] {
        for (text, pair) in [(Some(long), false), (None, true), (Some(long), true)] {
            world.plugin.on_publish(OnPublish::Answer(answer(
                ReasonCode::NotAuthorized,
                text,
                pair,
            )));
            let full = ack(&mut small(&world, 1_000).await, qos).await;
            let exact = u32::try_from(full.len()).unwrap().max(40);
            assert!(full.len() > 5);
            assert_eq!(ack(&mut small(&world, exact).await, qos).await, full);
            if full.len() > 40 {
                let short = ack(&mut small(&world, exact - 1).await, qos).await;
                assert_eq!(short, frame(first, &[b"\0\x01\x87"]));
            }
        }
    }
}

/// [MQTT-3.1.2-29]: without problem information, acknowledgements have neither.
#[tokio::test]
async fn without_problem_information_no_acknowledgement_has_properties() {
    let world = World::start();
    let mut asked = connect(V5, "a");
    asked.properties.request_problem_information = Some(false);
    let (mut client, _) = world.connect_with(asked).await;
    world.plugin.on_publish(OnPublish::Answer(answer(
        ReasonCode::QuotaExceeded,
        Some("why"),
        true,
    )));
    for (qos, first) in [(Qos::AtLeastOnce, 0x40), (Qos::ExactlyOnce, 0x50)] {
        assert_eq!(ack(&mut client, qos).await, frame(first, &[b"\0\x01\x97"]));
    }
    client
        .send_bytes(&frame(0x82, &[b"\0\x01\0\0\x09forbidden\0"]))
        .await;
    assert_eq!(client.receive_raw().await, frame(0x90, &[b"\0\x01\0\x87"]));
    client.send_bytes(&frame(0xA2, &[b"\0\x01\0\0\x01t"])).await;
    assert_eq!(client.receive_raw().await, frame(0xB0, &[b"\0\x01\0\x11"]));
}

/// [MQTT-3.4.2-1], [MQTT-3.5.2-1]: the Reason Codes of PUBACK and PUBREC are those of the specification, and reach the
/// client; the test's client reads no others.
#[tokio::test]
async fn puback_and_pubrec_carry_reason_codes_of_their_own() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    for reason in [
        ReasonCode::Success,
        ReasonCode::NoMatchingSubscribers,
        ReasonCode::UnspecifiedError,
        ReasonCode::ImplementationSpecificError,
        ReasonCode::NotAuthorized,
        ReasonCode::TopicNameInvalid,
        ReasonCode::QuotaExceeded,
        ReasonCode::PayloadFormatInvalid,
    ] {
        world.plugin.on_publish(OnPublish::Answer(PublishAnswer {
            notice: None,
            reason,
            properties: None,
        }));
        client.send(&qos1("plug/t", 1, "x")).await;
        assert_eq!(
            client.receive().await,
            Packet::PubAck(with_reason(1, reason))
        );
        client.send(&qos2("plug/t", 2, "x")).await;
        assert_eq!(
            client.receive().await,
            Packet::PubRec(with_reason(2, reason))
        );
        if !reason.is_error() {
            client.send(&pubrel(2)).await;
            assert_eq!(client.receive().await.packet_type(), PacketType::PubComp);
        }
    }
}

/// [MQTT-3.6.2-1], [MQTT-3.7.2-1]: PUBREL and PUBCOMP say success or 0x92.
/// [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3]: and never have properties.
#[tokio::test]
async fn pubrel_and_pubcomp_say_success_or_not_found_and_no_more() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    client.send(&pubrec(9)).await;
    assert_eq!(client.receive_raw().await, frame(0x62, &[b"\0\x09\x92"]));
    client.send(&pubrel(9)).await;
    assert_eq!(client.receive_raw().await, frame(0x70, &[b"\0\x09\x92"]));
    client.subscribe(&[("t", Qos::ExactlyOnce)]).await;
    client.send(&qos2("t", 3, "x")).await;
    let (mut acks, mut publishes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        match client.receive().await {
            Packet::Publish(publish) => publishes.push(publish),
            other => acks.push(other),
        }
    }
    assert_eq!(acks, [pubrec(3)]);
    let number = publishes[0].packet_id.unwrap().get();
    client.send(&pubrel(3)).await;
    assert_eq!(client.receive_raw().await, frame(0x70, &[b"\0\x03"]));
    client.send(&pubrec(number)).await;
    let number = id(number).get().to_be_bytes();
    assert_eq!(client.receive_raw().await, frame(0x62, &[&number]));
}

/// [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.11.2-1], [MQTT-3.11.2-2]: SUBACK and UNSUBACK have no User Properties, and a
/// Reason String only where something was refused, and only if it fits.
/// [MQTT-3.9.3-2], [MQTT-3.11.3-2], [MQTT-3.8.4-6], [MQTT-3.8.4-7]: but a Reason Code of their own for each filter.
#[tokio::test]
async fn suback_and_unsuback_are_reason_codes_and_a_reason_string_that_fits() {
    let world = World::start();
    let text = b"\x1f\0\x18filter 4: not authorized";
    let (none, with_text) = (&b"\0"[..], [b"\x1b", &text[..]].concat());
    let filters: &[&[u8]] = &[
        b"\0\x01a\0",
        b"\0\x01b\x01",
        b"\0\x01c\x02",
        b"\0\x09forbidden\x02",
    ];
    let mut client = world.connect(V5, "a").await;
    for (max, properties) in [(35, none), (36, &*with_text)] {
        client = small(&world, max).await;
        client
            .send_bytes(&frame(0x82, &[b"\0\x01\0", &filters.concat()]))
            .await;
        assert_eq!(
            client.receive_raw().await,
            frame(0x90, &[b"\0\x01", properties, b"\x00\x01\x02\x87"])
        );
    }
    client
        .send_bytes(&frame(0xA2, &[b"\0\x02\0", b"\0\x01a\0\x01x\0\x01b"]))
        .await;
    assert_eq!(
        client.receive_raw().await,
        frame(0xB0, &[b"\0\x02", b"\0", b"\x00\x11\x00"])
    );
}

#[tokio::test]
async fn connack_says_why_somebody_is_refused_where_it_is_wanted_and_fits() {
    let world = World::start();
    let why = Some("bad user name or password");
    for (wanted, max, expected) in [
        (None, None, why),
        (Some(true), Some(33), why),
        (None, Some(32), None),
        (Some(false), None, None),
    ] {
        let mut asked = connect(V5, "a");
        asked.user_name = Some("nobody".into());
        asked.properties.request_problem_information = wanted;
        asked.properties.maximum_packet_size = max;
        let ack = world.open(V5).await.connect(asked).await;
        assert_eq!(ack.reason, ReasonCode::BadUserNameOrPassword);
        assert_eq!(ack.properties.reason_string.as_deref(), expected, "{max:?}");
    }
}

#[tokio::test]
async fn a_suback_names_a_few_refused_filters_and_counts_the_others() {
    let world = World::start();
    let mut client = world.connect(V5, "a").await;
    let filters = b"\0\x09forbidden\0".repeat(6);
    client
        .send_bytes(&frame(0x82, &[b"\0\x01\0", &filters]))
        .await;
    let Packet::SubAck(ack) = client.receive().await else {
        panic!("SUBACK expected");
    };
    assert_eq!(
        ack.properties.reason_string.as_deref(),
        Some(
            "filter 1: not authorized, filter 2: not authorized, filter 3: not authorized, \
             filter 4: not authorized, and 2 more"
        )
    );
}

/// [MQTT-3.1.2-24]: a SUBACK or UNSUBACK that the client does not take is not sent; the client is told, and closed.
#[tokio::test]
async fn a_suback_that_is_too_large_ends_the_connection() {
    let world = World::start();
    for (first, filter) in [(0x82, &b"\0\x01t\0"[..]), (0xA2, b"\0\x01t")] {
        let mut client = small(&world, 40).await;
        let filters = filter.repeat(60);
        let length = u8::try_from(filters.len() + 3 - 128).unwrap() | 0x80;
        let mut packet = vec![first, length, 1, 0, 1, 0];
        packet.extend(filters);
        client.send_bytes(&packet).await;
        let got = client.receive_raw().await;
        assert_eq!((got[0], got[2]), (0xE0, 0x95), "{got:?}");
        assert!(got.len() <= 40);
        client.expect_closed().await;
    }
}

/// 3.1.1 [MQTT-3.9.3-2], [MQTT-3.8.4-5]: 0, 1, 2 or 0x80 for each filter.
#[tokio::test]
async fn suback_of_3_1_1_has_its_four_codes() {
    let world = World::start();
    let mut client = world.connect(V311, "a").await;
    let filters: &[&[u8]] = &[
        b"\0\x01a\0",
        b"\0\x09forbidden\x02",
        b"\0\x01b\x01",
        b"\0\x01c\x02",
    ];
    client
        .send_bytes(&frame(0x82, &[b"\0\x01", &filters.concat()]))
        .await;
    assert_eq!(
        client.receive_raw().await,
        frame(0x90, &[b"\0\x01", b"\x00\x80\x01\x02"])
    );
}

/// 3.1.1 [MQTT-3.3.5-2]: a publish that is not authorized is acknowledged like any other.
#[tokio::test]
async fn a_refused_publish_of_3_1_1_is_acknowledged() {
    let world = World::start();
    let mut client = world.connect(V311, "a").await;
    client.send(&qos1("forbidden", 1, "x")).await;
    assert_eq!(client.receive_raw().await, frame(0x40, &[b"\0\x01"]));
    client.send(&qos2("forbidden", 2, "x")).await;
    assert_eq!(client.receive_raw().await, frame(0x50, &[b"\0\x02"]));
}

/// [MQTT-3.12.4-1]: PINGREQ is answered. 3.1.1 [MQTT-3.12.4-1].
#[tokio::test]
async fn pingreq_is_answered() {
    let world = World::start();
    for version in [V5, V311] {
        let mut client = world.connect(version, "a").await;
        client.send_bytes(b"\xC0\0\xC0\0\xC0\0").await;
        for _ in 0..3 {
            assert_eq!(client.receive_raw().await, [0xD0, 0]);
        }
    }
}
