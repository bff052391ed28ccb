//! How the broker stops.

use broker::codec::packet::Packet;
use broker::codec::reason::ReasonCode;
use broker::hooks::PublishAnswer;

use super::client::{V5, V311, connect, puback, qos1};
use super::world::{Event, OnPublish, World};

#[tokio::test]
async fn what_was_admitted_is_answered_before_the_goodbye() {
    let mut world = World::start();
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V5, "a").await;
    let mut idle = world.connect(V5, "idle").await;
    let mut old = world.connect(V311, "old").await;
    client
        .send_all(&[qos1("plug/t", 1, "x"), qos1("plug/t", 2, "x")])
        .await;
    world.plugin.published(2).await;
    world.shutdown.cancel();
    idle.expect_disconnect(ReasonCode::ServerShuttingDown).await;
    old.expect_closed().await;
    for ticket in world.plugin.tickets() {
        ticket.answer(PublishAnswer::SUCCESS);
    }
    assert_eq!(client.receive().await, puback(1));
    assert_eq!(client.receive().await, puback(2));
    client
        .expect_disconnect(ReasonCode::ServerShuttingDown)
        .await;
    drop((client, idle, old));
    world.stopped().await;
    let mut ends = 0;
    world
        .plugin
        .wait(|event| match event {
            Event::Disconnected(_) => {
                ends += 1;
                None
            }
            Event::Shutdown => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(ends, 3);
}

#[tokio::test]
async fn what_is_never_answered_is_given_up_without_an_ack() {
    let mut world = World::with(|config| config.drain_timeout_ms = 50);
    world.plugin.on_publish(OnPublish::Keep);
    let mut client = world.connect(V5, "a").await;
    client.send(&qos1("plug/t", 1, "x")).await;
    world.plugin.published(1).await;
    world.shutdown.cancel();
    client
        .expect_disconnect(ReasonCode::ServerShuttingDown)
        .await;
    drop(client);
    world.stopped().await;
}

#[tokio::test]
async fn nobody_is_let_in_while_it_stops() {
    let mut world = World::start();
    let mut slow = connect(V5, "slow");
    slow.user_name = Some("slow".into());
    let mut waiting = world.open(V5).await;
    waiting.send(&Packet::Connect(Box::new(slow))).await;
    let silent = world.open(V5).await;
    while world.plugin.waiting_authentications() == 0 {
        tokio::task::yield_now().await;
    }
    world.shutdown.cancel();
    match waiting.receive().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::ServerUnavailable),
        other => panic!("{other:?}"),
    }
    drop((waiting, silent));
    world.stopped().await;
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn a_session_is_kept_until_the_end() {
    let mut world = World::start();
    let (mut client, _) = world.connect_persistent(V5, "a").await;
    world.shutdown.cancel();
    client
        .expect_disconnect(ReasonCode::ServerShuttingDown)
        .await;
    drop(client);
    let end = world.plugin.disconnected().await;
    assert_eq!((end.discarded, end.session_expiry), (false, 60));
    world.stopped().await;
}
