//! A connection over a stream in memory, beside a store that is now and then behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::open;
use crate::acl::Who;
use crate::codec::packet::{PacketId, Publish, Qos, SubscribeFilter};
use crate::codec::properties::PublishProperties;
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::config::Config;
use crate::hooks::{
    Access, AuthenticateRequest, ClientInfo, Credit, Delivery, DeliveryOutcome, DeliveryRef, Hooks,
    Identity, Peer, PublishAnswer, Room, SessionEnd, SessionOpen, SessionRestored, Ticket,
};
use crate::journal::{Change, Journal, MessageRow};
use crate::listener::Arrival;
use crate::server::Server;

/// A plugin that lets everybody in and has nothing to say.
#[derive(Default)]
struct Silent {
    /// It panics at a publish.
    is_broken: bool,
    /// Cancelled when it is told of the end of a connection.
    told: CancellationToken,
}

#[async_trait]
impl Hooks for Silent {
    fn root(&self) -> &'static str {
        "plug"
    }

    async fn authenticate(&self, _request: AuthenticateRequest) -> Result<Identity, ReasonCode> {
        Ok(Identity {
            user: "user".into(),
            name: "user".into(),
        })
    }

    fn authorize(&self, _who: Who<'_>, _access: Access, _topic: &str) -> bool {
        true
    }

    async fn on_connected(
        &self,
        _client: &Arc<ClientInfo>,
        _open: SessionOpen,
    ) -> Result<SessionRestored, ReasonCode> {
        Ok(SessionRestored::default())
    }

    fn on_publish(
        &self,
        _client: &Arc<ClientInfo>,
        _batch: Vec<(Publish, Ticket<PublishAnswer>)>,
    ) -> Credit {
        assert!(!self.is_broken, "this is the panic that the test wants");
        Credit::FULL
    }

    fn on_release(&self, _client: &Arc<ClientInfo>, _packet_id: PacketId, _ticket: Ticket<bool>) {}

    fn on_subscribe(
        &self,
        _client: &Arc<ClientInfo>,
        _filters: Vec<SubscribeFilter>,
        _identifier: Option<u32>,
        _ticket: Ticket<Vec<ReasonCode>>,
    ) {
    }

    fn on_unsubscribe(
        &self,
        _client: &Arc<ClientInfo>,
        _filters: Vec<TopicFilter>,
        _ticket: Ticket<Vec<ReasonCode>>,
    ) {
    }

    fn pull(&self, _client: &Arc<ClientInfo>, _room: Room) -> Vec<Delivery> {
        Vec::new()
    }

    fn on_delivered(
        &self,
        _client: &Arc<ClientInfo>,
        _outcomes: Vec<(DeliveryRef, DeliveryOutcome)>,
    ) {
    }

    fn on_disconnected(&self, _client: &Arc<ClientInfo>, _end: SessionEnd) {
        self.told.cancel();
    }

    async fn on_shutdown(&self) {}
}

/// A server with this plugin and this journal, and a client that is connected to it.
async fn connected(plugin: Silent, journal: &Arc<Journal>) -> (Arc<Server>, DuplexStream) {
    let server = Arc::new(Server::new(
        Config::default(),
        Arc::new(plugin),
        Arc::default(),
        Arc::default(),
        Some(Arc::clone(journal)),
        CancellationToken::new(),
    ));
    let (mut client, stream) = duplex(64 * 1024);
    let arrival = Arrival {
        is_counted: false,
        peer: Peer::Local {
            user: 0,
            process: None,
        },
        certificate: None,
        deadline: None,
    };
    let opening = open(Arc::clone(&server), stream, arrival);
    server.tasks.spawn(async move {
        if let Some(connection) = opening.await {
            connection.run().await;
        }
    });
    client
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a")
        .await
        .unwrap();
    let mut connack = [0; 4];
    client.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    (server, client)
}

/// Fills the journal with one message and empties it, until it is told to stop.
fn congest(journal: &Arc<Journal>, stop: &AtomicBool) {
    let publish = Arc::new(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t".into(),
        packet_id: None,
        payload: vec![0; 20 * 1024 * 1024].into(),
        properties: PublishProperties::default().into(),
    });
    while !stop.load(Ordering::Relaxed) {
        journal.open().push(Change::Message(MessageRow {
            number: 1,
            publish: Arc::clone(&publish),
            expires_at: None,
        }));
        assert!(!journal.has_room());
        thread::yield_now();
        while !journal.has_room() {
            journal.take(&mut Vec::new(), Duration::ZERO, Duration::ZERO);
        }
        thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_behind_now_and_then_leaves_no_packet_unread() {
    let journal = Arc::new(Journal::new(1));
    let (server, mut client) = connected(Silent::default(), &journal).await;
    let stop = Arc::new(AtomicBool::new(false));
    let congesting = thread::spawn({
        let (journal, stop) = (Arc::clone(&journal), Arc::clone(&stop));
        move || congest(&journal, &stop)
    });
    let mut answered = 0;
    for _ in 0..ROUNDS {
        // Two at once: one may wait in the socket, one in the buffer.
        client.write_all(&[0xC0, 0, 0xC0, 0]).await.unwrap();
        let mut pongs = [0; 4];
        let reading = client.read_exact(&mut pongs);
        if timeout(Duration::from_secs(10), reading).await.is_err() {
            break;
        }
        answered += 1;
    }
    stop.store(true, Ordering::Relaxed);
    congesting.join().unwrap();
    server.stop.cancel();
    server.tasks.close();
    drop(client);
    server.tasks.wait().await;
    assert_eq!(answered, ROUNDS);
}

#[tokio::test]
async fn a_panic_ends_its_connection_as_any_other_end_does() {
    let told = CancellationToken::new();
    let plugin = Silent {
        is_broken: true,
        told: told.clone(),
    };
    let (server, mut client) = connected(plugin, &Arc::new(Journal::new(1))).await;
    let publish = b"\x32\x0b\x00\x06plug/x\x00\x01!";
    client.write_all(publish).await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "closed without a word: {rest:?}");
    server.tasks.close();
    server.tasks.wait().await;
    assert!(told.is_cancelled(), "the plugin waits for this");
    assert_eq!(server.metrics.clients_connected.value(), 0);
}

const ROUNDS: usize = 2_000;
