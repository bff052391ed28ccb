//! The operator's rules: who may publish and subscribe to what, and what happens when they are replaced.

use broker::codec::packet::{Packet, Qos};
use broker::codec::reason::ReasonCode;
use serde_json::json;

use super::client::{
    Client, V5, V311, connect, connect_persistent, message, puback, pubcomp, pubrec, pubrel, qos1,
    qos2,
};
use super::connect::will;
use super::world::World;

/// In both versions: 0x80 in 3.1.1, this in 5.0.
async fn expect_refused(client: &mut Client, filter: &'static str, reason: ReasonCode) {
    let ack = client.subscribe(&[(filter, Qos::AtMostOnce)]).await;
    assert_eq!(ack.reasons, [reason], "{filter}");
}

#[tokio::test]
async fn a_denied_publish_is_told_in_5_0_and_lost_in_3_1_1() {
    let world = World::start();
    world.rule(&json!([{"deny": ["publish"], "topics": ["locked/#"]}]));
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("#", Qos::AtMostOnce)]).await;
    let mut new = world.connect(V5, "new").await;
    let ack = new.publish_qos1("locked/a", 1).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    new.send(&qos2("locked/a", 2, "x")).await;
    assert_eq!(new.receive_result().await, (2, ReasonCode::NotAuthorized));

    let mut old = world.connect(V311, "old").await;
    old.send(&qos1("locked/a", 1, "x")).await;
    assert_eq!(old.receive().await, puback(1));
    old.send(&qos2("locked/a", 2, "x")).await;
    assert_eq!(old.receive().await, pubrec(2));
    old.send(&pubrel(2)).await;
    assert_eq!(old.receive().await, pubcomp(2));
    assert_eq!(world.metrics.publishes_refused.value(), 4);

    old.send(&qos1("open", 3, "x")).await;
    assert_eq!(&*subscriber.receive_publish().await.topic, "open");
}

/// 5.0 §3.9.3, 3.1.1 §3.9.3.
#[tokio::test]
async fn a_denied_subscription_is_told_as_the_rule_says() {
    let world = World::start();
    world.rule(&json!([
        {"deny": ["subscribe"], "topics": ["hidden"], "reason": "unspecified"},
        {"deny": ["subscribe"], "topics": ["locked"]},
    ]));
    let mut new = world.connect(V5, "new").await;
    expect_refused(&mut new, "hidden", ReasonCode::UnspecifiedError).await;
    expect_refused(&mut new, "$share/g/hidden", ReasonCode::UnspecifiedError).await;
    expect_refused(&mut new, "locked", ReasonCode::NotAuthorized).await;
    expect_refused(&mut new, "+", ReasonCode::UnspecifiedError).await;
    expect_refused(&mut new, "#", ReasonCode::UnspecifiedError).await;
    let mut old = world.connect(V311, "old").await;
    expect_refused(&mut old, "hidden", ReasonCode::UnspecifiedError).await;
    expect_refused(&mut old, "locked", ReasonCode::UnspecifiedError).await;
    assert_eq!(world.metrics.subscriptions_refused.value(), 7);
}

#[tokio::test]
async fn an_allowing_rule_comes_before_the_plugins_word_and_limits_qos_and_retain() {
    let world = World::start();
    world.rule(&json!([{
        "allow": ["publish", "subscribe"],
        "topics": ["forbidden/ok"],
        "qos_max": 1,
        "retain": false,
    }]));
    let mut client = world.connect(V5, "a").await;
    expect_refused(&mut client, "forbidden/other", ReasonCode::NotAuthorized).await;
    let ack = client
        .subscribe(&[("forbidden/ok", Qos::ExactlyOnce)])
        .await;
    assert_eq!(ack.reasons, [ReasonCode::GrantedQos1]);

    let mut sender = world.connect(V5, "b").await;
    let ack = sender.publish_qos1("forbidden/ok", 1).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    assert_eq!(client.receive_publish().await.qos, Qos::AtLeastOnce);
    // The permit of the one before does not reach that far.
    sender.send(&qos2("forbidden/ok", 2, "x")).await;
    assert_eq!(
        sender.receive_result().await,
        (2, ReasonCode::NotAuthorized)
    );
    let mut retained = message("forbidden/ok", Qos::AtLeastOnce, 3, "x");
    retained.retain = true;
    sender.send(&Packet::Publish(retained)).await;
    assert_eq!(
        sender.receive_result().await,
        (3, ReasonCode::NotAuthorized)
    );
}

#[tokio::test]
async fn users_and_clients_are_known_by_their_names() {
    let world = World::start();
    world.rule(&json!([
        {"allow": ["publish"], "topics": ["u/%u", "c/%c"]},
        {"deny": ["publish"], "topics": ["#"]},
    ]));
    let mut client = world.connect(V5, "phone").await;
    for (number, topic, reason) in [
        (1, "u/alice", ReasonCode::Success),
        (2, "c/phone", ReasonCode::Success),
        (3, "u/bob", ReasonCode::NotAuthorized),
        (4, "c/tablet", ReasonCode::NotAuthorized),
    ] {
        assert_eq!(
            client.publish_qos1(topic, number).await.reason,
            reason,
            "{topic}"
        );
    }
    let mut trick = world.connect(V5, "a/b").await;
    let ack = trick.publish_qos1("c/a/b", 1).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn a_will_is_a_publish_when_the_client_connects_and_when_it_is_sent() {
    let world = World::start();
    world.rule(&json!([{"deny": ["publish"], "topics": ["locked"], "reason": "unspecified"}]));
    for (version, reason) in [
        (V5, ReasonCode::UnspecifiedError),
        (V311, ReasonCode::ServerUnavailable),
    ] {
        let mut asked = connect(version, "a");
        asked.will = Some(will("locked", None));
        let ack = world.open(version).await.connect(asked).await;
        assert_eq!(ack.reason, reason);
    }
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("#", Qos::AtMostOnce)]).await;
    let mut asked = connect(V5, "b");
    asked.will = Some(will("open", None));
    let (client, _) = world.connect_with(asked).await;
    world.rule(&json!([{"deny": ["publish"], "topics": ["open"]}]));
    client.vanish();
    world.plugin.disconnected().await;
    subscriber.expect_quiet().await;
}

#[tokio::test]
async fn a_delayed_will_is_judged_when_it_is_due() {
    let world = World::start();
    let mut subscriber = world.connect(V5, "subscriber").await;
    subscriber.subscribe(&[("#", Qos::AtMostOnce)]).await;
    for (client_id, topic) in [("a", "locked"), ("b", "open")] {
        let mut asked = connect_persistent(V5, client_id);
        asked.will = Some(will(topic, Some(1)));
        let (client, _) = world.connect_with(asked).await;
        client.vanish();
        world.plugin.disconnected().await;
        world.rule(&json!([{"deny": ["publish"], "topics": ["locked"], "users": ["alice"]}]));
    }
    assert_eq!(&*subscriber.receive_publish().await.topic, "open");
    assert_eq!(world.metrics.publishes_refused.value(), 1);
}

#[tokio::test]
async fn only_the_server_publishes_statistics_whatever_a_rule_says() {
    let world = World::start();
    world.rule(&json!([{"allow": ["publish"], "topics": ["$SYS/#"]}]));
    let mut client = world.connect(V5, "a").await;
    let ack = client.publish_qos1("$SYS/broker/version", 1).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn rules_do_not_touch_the_topics_of_the_plugin() {
    let world = World::start();
    world.rule(&json!([{"deny": ["publish", "subscribe"], "topics": ["plug/#", "#"]}]));
    let mut client = world.connect(V5, "a").await;
    let ack = client.publish_qos1("plug/t", 1).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    let ack = client.subscribe(&[("plug/t", Qos::AtLeastOnce)]).await;
    assert_eq!(ack.reasons, [ReasonCode::GrantedQos1]);
}

#[tokio::test]
async fn replaced_rules_count_for_the_next_publish_and_end_subscriptions() {
    let world = World::start();
    let mut subscriber = world.connect(V5, "subscriber").await;
    let filters = [("a/#", Qos::AtLeastOnce), ("b", Qos::AtLeastOnce)];
    subscriber.subscribe(&filters).await;
    let mut sender = world.connect(V5, "sender").await;
    let ack = sender.publish_qos1("a/secret", 1).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    assert_eq!(&*subscriber.receive_publish().await.topic, "a/secret");

    world.rule(&json!([
        {"deny": ["publish"], "topics": ["c"]},
        {"deny": ["subscribe"], "topics": ["a/secret"]},
    ]));
    while world.metrics.subscriptions_revoked.value() == 0 {
        tokio::task::yield_now().await;
    }
    let ack = sender.publish_qos1("c", 2).await;
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    for topic in ["a/secret", "a/open", "b"] {
        sender.publish_qos1(topic, 3).await;
    }
    let publish = subscriber.receive_publish().await;
    assert_eq!(&*publish.topic, "b", "the other subscription goes on");
    assert_eq!(world.metrics.subscriptions_revoked.value(), 1);

    world.rule(&json!([]));
    let ack = sender.publish_qos1("c", 4).await;
    assert_ne!(ack.reason, ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn replaced_rules_lower_the_qos_of_subscriptions() {
    let world = World::start();
    let mut sender = world.connect(V5, "sender").await;
    let filters = [("a", Qos::AtLeastOnce), ("$share/g/b", Qos::AtLeastOnce)];
    let (mut subscriber, _) = world.connect_persistent(V5, "subscriber").await;
    subscriber.subscribe(&filters).await;
    world.rule(&json!([
        {"allow": ["subscribe"], "topics": ["a", "b"], "qos_max": 0},
    ]));
    // Who has an answer to what it sent after the rules were replaced has been judged.
    subscriber.publish_qos1("c", 1).await;
    for topic in ["a", "b"] {
        sender.publish_qos1(topic, 2).await;
        assert_eq!(subscriber.receive_publish().await.qos, Qos::AtMostOnce);
    }
    assert_eq!(world.metrics.subscriptions_revoked.value(), 0);
}

#[tokio::test]
async fn a_session_that_resumes_finds_its_subscriptions_judged_and_nothing_secret_in_its_queue() {
    let world = World::start();
    for version in [V5, V311] {
        world.rule(&json!([]));
        let (mut client, _) = world.connect_persistent(version, "a").await;
        let filters = [("a/#", Qos::AtLeastOnce), ("b", Qos::AtLeastOnce)];
        client.subscribe(&filters).await;
        client.disconnect().await;
        world.rule(&json!([{"deny": ["subscribe"], "topics": ["a/secret"]}]));
        let mut sender = world.connect(V5, "sender").await;
        for topic in ["a/secret", "a/open", "b"] {
            sender.publish_qos1(topic, 1).await;
        }
        let before = world.metrics.messages_dropped_not_allowed.value();
        let asked = connect_persistent(version, "a");
        let (mut client, ack) = world.connect_with(asked).await;
        assert!(ack.session_present);
        // What waited and is allowed comes; what was secret, and what is published from now on, does not.
        assert_eq!(&*client.receive_publish().await.topic, "a/open");
        assert_eq!(&*client.receive_publish().await.topic, "b");
        assert_eq!(
            world.metrics.messages_dropped_not_allowed.value(),
            before + 1
        );
        sender.publish_qos1("a/open", 2).await;
        client.expect_quiet().await;
        client.send(&puback(1)).await;
        client.send(&puback(2)).await;
        client.expect_quiet().await;
        let (gone, _) = world.connect_with(connect(version, "a")).await;
        gone.disconnect().await;
    }
}

#[tokio::test]
async fn what_a_subscription_that_stays_allowed_brought_is_not_dropped_with_another() {
    let world = World::start();
    let rules = |other: &str| {
        json!([
            {"allow": ["subscribe"], "topics": ["dev/+/state", "group/+"], "exact": true},
            {other: ["subscribe"], "topics": ["other/#"]},
            {"deny": ["subscribe"], "topics": ["#"]},
        ])
    };
    world.rule(&rules("allow"));
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    let filters = ["dev/+/state", "$share/g/group/+", "other/x"];
    let filters = filters.map(|filter| (filter, Qos::AtLeastOnce));
    let ack = client.subscribe(&filters).await;
    assert_eq!(ack.reasons, [ReasonCode::GrantedQos1; 3]);
    client.disconnect().await;
    let mut sender = world.connect(V5, "sender").await;
    for topic in ["dev/1/state", "other/x", "group/2"] {
        sender.publish_qos1(topic, 1).await;
    }
    world.rule(&rules("deny"));
    let (mut client, ack) = world.connect_persistent(V5, "a").await;
    assert!(ack.session_present);
    assert_eq!(&*client.receive_publish().await.topic, "dev/1/state");
    assert_eq!(&*client.receive_publish().await.topic, "group/2");
    assert_eq!(world.metrics.messages_dropped_not_allowed.value(), 1);
}
