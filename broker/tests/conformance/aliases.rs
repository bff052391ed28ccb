//! Topic Aliases from the server (MQTT 5.0 §3.3.2.3.4); those from the client are in `publish`.

use broker::codec::packet::{ConnAck, Qos, Version};

use super::client::{Client, V5, connect, connect_persistent, qos0, qos1};
use super::world::World;

async fn subscribed(world: &World, topic_alias_maximum: Option<u16>) -> (Client, ConnAck) {
    let mut asked = connect(V5, "a");
    asked.properties.topic_alias_maximum = topic_alias_maximum;
    let (mut client, ack) = world.connect_with(asked).await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    (client, ack)
}

async fn topic(client: &mut Client) -> (String, Option<u16>) {
    let publish = client.receive_publish().await;
    (publish.topic.to_string(), publish.properties.topic_alias)
}

#[tokio::test]
async fn the_server_uses_an_alias_from_the_first_message_on() {
    let world = World::start();
    let (mut client, _) = subscribed(&world, Some(1)).await;
    let mut sender = world.connect(Version::V311, "sender").await;
    for number in ["1", "2", "3"] {
        sender.send(&qos0("t/1", number)).await;
    }
    assert_eq!(topic(&mut client).await, ("t/1".to_owned(), Some(1)));
    assert_eq!(topic(&mut client).await, (String::new(), Some(1)));
    assert_eq!(topic(&mut client).await, (String::new(), Some(1)));
    // Another topic takes the alias over.
    sender.send(&qos0("t/2", "4")).await;
    sender.send(&qos0("t/1", "5")).await;
    assert_eq!(topic(&mut client).await, ("t/2".to_owned(), Some(1)));
    assert_eq!(topic(&mut client).await, ("t/1".to_owned(), Some(1)));
}

/// [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11].
#[tokio::test]
async fn the_server_uses_no_alias_that_the_client_did_not_allow() {
    let world = World::with(|config| config.topic_alias_out_max = 2);
    for (maximum, expected) in [
        (None, [None; 3]),
        (Some(1), [Some(1); 3]),
        (Some(9), [Some(1), Some(2), Some(1)]),
    ] {
        let (mut client, _) = subscribed(&world, maximum).await;
        let mut sender = world.connect(V5, "sender").await;
        for (name, alias) in ["t/1", "t/2", "t/3"].into_iter().zip(expected) {
            sender.send(&qos0(name, "x")).await;
            assert_eq!(topic(&mut client).await, (name.to_owned(), alias));
        }
    }
}

/// [MQTT-3.3.2-7]: aliases end with their connection.
#[tokio::test]
async fn a_message_that_is_sent_again_has_its_topic_and_no_alias() {
    let world = World::start();
    let mut asked = connect_persistent(V5, "a");
    asked.properties.topic_alias_maximum = Some(1);
    let (mut client, _) = world.connect_with(asked.clone()).await;
    client.subscribe(&[("t/1", Qos::AtLeastOnce)]).await;
    let mut sender = world.connect(V5, "sender").await;
    sender
        .send_all(&[qos1("t/1", 1, "1"), qos1("t/1", 2, "2")])
        .await;
    assert_eq!(topic(&mut client).await, ("t/1".to_owned(), Some(1)));
    assert_eq!(topic(&mut client).await, (String::new(), Some(1)));
    client.vanish();
    let (mut client, _) = world.connect_with(asked).await;
    for _ in 0..2 {
        assert_eq!(topic(&mut client).await, ("t/1".to_owned(), None));
    }
    sender.send(&qos0("t/1", "3")).await;
    assert_eq!(topic(&mut client).await, ("t/1".to_owned(), Some(1)));
}
