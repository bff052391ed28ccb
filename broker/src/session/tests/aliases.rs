//! Topic aliases of messages to the client.

use super::*;

#[test]
fn topics_have_aliases_from_the_first_message_on_and_not_when_they_are_sent_again() {
    let mut pair = Pair::connected(Version::V5);
    pair.deliver(1, Qos::AtLeastOnce);
    pair.deliver(2, Qos::AtMostOnce);
    let heads = |pair: &mut Pair| {
        let sent = pair.take_sent().into_iter();
        sent.filter_map(|packet| match packet {
            Packet::Publish(publish) => {
                Some((publish.topic.to_string(), publish.properties.topic_alias))
            }
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(
        heads(&mut pair),
        [("t".to_owned(), Some(1)), (String::new(), Some(1))]
    );
    pair.disconnect();
    pair.connect();
    assert_eq!(heads(&mut pair), [("t".to_owned(), None)]);
    pair.deliver(3, Qos::AtMostOnce);
    assert_eq!(heads(&mut pair), [("t".to_owned(), Some(1))]);
}

#[test]
fn a_packet_that_only_its_alias_makes_too_large_has_none() {
    let mut pair = Pair::connected(Version::V5);
    let queued = Publish {
        payload: Bytes::from_static(&[0; 4]),
        ..publish("t", Qos::AtMostOnce, None, 1)
    };
    let bytes = publish_len(&queued, &PublishHead::of(&queued), Version::V5);
    pair.session().terms.packet_bytes_max = u32::try_from(bytes).ok();
    pair.deliver(1, Qos::AtMostOnce);
    let Packet::Publish(sent) = pair.to_client.pop_front().unwrap() else {
        panic!("PUBLISH expected")
    };
    assert_eq!((&*sent.topic, sent.properties.topic_alias), ("t", None));
}
