//! What a client asks, and how it ends.

use super::*;

#[test]
fn silence_beyond_the_keep_alive_ends_the_connection() {
    let mut pair = Pair::connected(Version::V5);
    let begin = pair.now;
    let session = pair.session();
    assert_eq!(
        session.next_timeout(),
        Some(begin + Duration::from_secs(15))
    );
    let almost = begin + Duration::from_millis(14_999);
    assert_eq!(session.handle_timeout(almost, true), Ok(()));
    session
        .handle_packet(almost, Packet::PingReq, &mut Vec::new())
        .unwrap();
    let later = begin + Duration::from_secs(15);
    assert_eq!(session.handle_timeout(later, true), Ok(()));
    let end = almost + Duration::from_secs(15);
    assert_eq!(session.handle_timeout(end, false), Ok(()));
    assert_eq!(
        session.handle_timeout(end + Duration::from_secs(15), true),
        Err(ProtocolError::KeepAliveTimeout)
    );
}

#[test]
fn what_only_servers_send_is_refused() {
    let connack = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }));
    for packet in [connack, Packet::PingResp] {
        let mut pair = Pair::connected(Version::V5);
        pair.send(packet);
        assert_eq!(pair.error, Some(ProtocolError::ServerPacket));
    }
}

#[test]
fn goodbye_tells_about_the_will_and_the_expiry() {
    for (reason, publish_will) in [
        (ReasonCode::Success, false),
        (ReasonCode::DisconnectWithWillMessage, true),
    ] {
        let mut pair = Pair::connected(Version::V5);
        pair.send(Packet::Disconnect(Disconnect {
            reason,
            properties: DisconnectProperties {
                session_expiry_interval: Some(7),
                ..DisconnectProperties::default()
            },
        }));
        assert_eq!(pair.goodbye, Some(publish_will));
        assert_eq!(pair.session.take().unwrap().end().session_expiry, 7);
    }
}

#[test]
fn subscribe_is_answered_once_both_parts_are() {
    let mut pair = Pair::connected(Version::V5);
    let wanted = |text: &'static str| SubscribeFilter {
        filter: TopicFilter::parse(text.into()).unwrap(),
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    };
    let mut out = Vec::new();
    let now = pair.now;
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: id(9),
        properties: SubscribeProperties::default(),
        filters: vec![wanted("a"), wanted("plug/b"), wanted("c")],
    });
    let session = pair.session();
    session.handle_packet(now, subscribe, &mut out).unwrap();
    let [Action::SubscribePlugin(theirs), Action::Subscribe(ours)] = &out[..] else {
        panic!("{out:?}")
    };
    let (theirs, ours) = (theirs.number, ours.number);
    let mut out = Vec::new();
    let granted = Answer::Reasons(vec![ReasonCode::GrantedQos1]);
    session.handle_answer(theirs, granted, &mut out).unwrap();
    assert!(out.is_empty() && !session.is_settled());
    // One Reason Code is missing: the filter counts as refused.
    let short = Answer::Reasons(vec![ReasonCode::Success]);
    session.handle_answer(ours, short, &mut out).unwrap();
    let [Action::Send(packet)] = &out[..] else {
        panic!("{out:?}")
    };
    let Packet::SubAck(ack) = &**packet else {
        panic!("{packet:?}")
    };
    assert_eq!(
        ack.reasons,
        [
            ReasonCode::Success,
            ReasonCode::GrantedQos1,
            ReasonCode::UnspecifiedError
        ]
    );
    assert!(session.is_settled());
}
