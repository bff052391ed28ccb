//! AUTH and enhanced authentication (MQTT 5.0 §3.15, §4.12), SCRAM-SHA-256 (RFC 7677).

use broker::codec::packet::{Auth, Connect, Packet, Qos};
use broker::codec::properties::AuthProperties;
use broker::codec::reason::ReasonCode;
use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::client::{Client, V5, connect, disconnect, qos1};
use super::world::{Event, World};

const SCRAM: &str = "SCRAM-SHA-256";

/// The client's side of SCRAM.
struct Scram {
    user: &'static str,
    password: &'static str,
    auth_message: String,
    salted: [u8; 32],
}

impl Scram {
    fn new(user: &'static str, password: &'static str) -> Self {
        Self {
            user,
            password,
            auth_message: String::new(),
            salted: [0; 32],
        }
    }

    fn first(&self) -> String {
        format!("n,,n={},r=client-nonce", self.user)
    }

    fn last(&mut self, server_first: &str) -> String {
        let mut parts = server_first.split(',').map(|part| &part[2..]);
        let mut next = || parts.next().unwrap();
        let (nonce, salt, iterations) = (next(), next(), next().parse().unwrap());
        assert!(nonce.len() > "client-nonce".len() && nonce.starts_with("client-nonce"));
        let salt = BASE64.decode(salt.as_bytes()).unwrap();
        self.salted = salted(self.password, &salt, iterations);
        let last = format!("c=biws,r={nonce}");
        self.auth_message = format!("n={},r=client-nonce,{server_first},{last}", self.user);
        let client_key = hmac(&self.salted, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let signature = hmac(&stored_key, self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{last},p={}", BASE64.encode(&proof))
    }

    /// Is the server who it says?
    fn check(&self, server_final: &[u8]) {
        let server_key = hmac(&self.salted, b"Server Key");
        let signature = hmac(&server_key, self.auth_message.as_bytes());
        let expected = format!("v={}", BASE64.encode(&signature));
        assert_eq!(server_final, expected.as_bytes());
    }
}

fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
    let mut all = last;
    for _ in 1..iterations {
        last = hmac(password.as_bytes(), &last);
        all.iter_mut().zip(last).for_each(|(all, new)| *all ^= new);
    }
    all
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let keyed = Hmac::<Sha256>::new_from_slice(key).unwrap();
    keyed.chain_update(data).finalize().into_bytes().into()
}

fn connect_by(method: &'static str, data: impl Into<Bytes>) -> Connect {
    let mut connect = connect(V5, "a");
    connect.user_name = None;
    connect.password = None;
    connect.properties.authentication_method = Some(method.into());
    connect.properties.authentication_data = Some(data.into());
    connect
}

fn auth(reason: ReasonCode, method: &'static str, data: impl Into<Bytes>) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.into()),
            authentication_data: Some(data.into()),
            ..AuthProperties::default()
        },
    })
}

fn go_on(method: &'static str, data: impl Into<Bytes>) -> Packet {
    auth(ReasonCode::ContinueAuthentication, method, data)
}

/// The challenge that comes next [MQTT-4.12.0-2].
async fn challenge(client: &mut Client, method: &str) -> String {
    match client.receive().await {
        Packet::Auth(auth) => {
            assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
            assert_eq!(
                auth.properties.authentication_method.as_deref(),
                Some(method)
            );
            // Nothing that could make it too large.
            assert_eq!(auth.properties.reason_string, None);
            assert!(auth.properties.user_properties.is_empty());
            let data = auth.properties.authentication_data.unwrap();
            String::from_utf8(data.to_vec()).unwrap()
        }
        other => panic!("AUTH expected, not {other:?}"),
    }
}

async fn refused(client: &mut Client, reason: ReasonCode) {
    match client.receive().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, reason),
        other => panic!("CONNACK expected, not {other:?}"),
    }
    client.expect_closed().await;
}

/// Logged in by SCRAM as alice.
async fn alice(world: &World) -> Client {
    let mut scram = Scram::new("alice", "secret of alice");
    let mut client = world.open(V5).await;
    let first = connect_by(SCRAM, scram.first());
    client.send(&Packet::Connect(Box::new(first))).await;
    let last = scram.last(&challenge(&mut client, SCRAM).await);
    client.send(&go_on(SCRAM, last)).await;
    match client.receive().await {
        Packet::ConnAck(ack) => {
            assert_eq!(ack.reason, ReasonCode::Success);
            // [MQTT-4.12.0-5].
            assert_eq!(ack.properties.authentication_method.as_deref(), Some(SCRAM));
            scram.check(&ack.properties.authentication_data.unwrap());
        }
        other => panic!("CONNACK expected, not {other:?}"),
    }
    client
}

/// [MQTT-4.12.0-2], [MQTT-4.12.0-5]: the server asks by AUTH 0x18 with the client's method, [MQTT-3.15.2-1], [MQTT-3.15.2-2],
/// [MQTT-3.15.2-3]: without Reason String and User Properties.
#[tokio::test]
async fn scram_lets_in_who_knows_the_password() {
    let world = World::start();
    let mut client = alice(&world).await;
    assert_eq!(&*world.plugin.client("a").identity.user, "alice");
    client.expect_quiet().await;
}

/// The unknown are challenged like the known, each time with the same salt.
/// [MQTT-4.12.0-4]: whoever is rejected is told, and the connection closed.
#[tokio::test]
async fn scram_refuses_a_wrong_password_and_an_unknown_user_alike() {
    let world = World::start();
    let mut salts = Vec::new();
    for user in ["alice", "stranger", "stranger"] {
        let mut scram = Scram::new(user, "wrong");
        let mut client = world.open(V5).await;
        let first = connect_by(SCRAM, scram.first());
        client.send(&Packet::Connect(Box::new(first))).await;
        let server_first = challenge(&mut client, SCRAM).await;
        salts.push(server_first.split(',').nth(1).unwrap().to_owned());
        client.send(&go_on(SCRAM, scram.last(&server_first))).await;
        refused(&mut client, ReasonCode::NotAuthorized).await;
        let (who, event) = world.plugin.next().await;
        assert!(who == user && matches!(event, Event::ScramRefused));
    }
    assert_eq!(salts[1], salts[2]);
    assert_ne!(salts[0], salts[1]);
}

#[tokio::test]
async fn a_method_that_is_not_supported_is_refused() {
    let world = World::start();
    let mut client = world.open(V5).await;
    let ack = client.connect(connect_by("KERBEROS", "x")).await;
    assert_eq!(ack.reason, ReasonCode::BadAuthenticationMethod);
    client.expect_closed().await;
}

#[tokio::test]
async fn scram_messages_that_are_none_are_refused_and_so_is_everybody_while_the_store_is_away() {
    let world = World::start();
    for (data, reason) in [
        ("", ReasonCode::NotAuthorized),
        ("p=tls-unique,,n=alice,r=x", ReasonCode::NotAuthorized),
        ("n,,n=busy,r=x", ReasonCode::ServerUnavailable),
    ] {
        let mut client = world.open(V5).await;
        let ack = client.connect(connect_by(SCRAM, data)).await;
        assert_eq!(ack.reason, reason);
        client.expect_closed().await;
    }
}

/// [MQTT-3.1.2-30], [MQTT-4.12.0-3], [MQTT-4.12.0-5].
#[tokio::test]
async fn during_authentication_only_auth_of_the_same_method_may_come() {
    let world = World::start();
    for wrong in [
        Packet::PingReq,
        qos1("t", 1, "x"),
        go_on("OTHER", "x"),
        auth(ReasonCode::ReAuthenticate, "ECHO", "x"),
    ] {
        let mut client = world.open(V5).await;
        let first = connect_by("ECHO", "hello");
        client.send(&Packet::Connect(Box::new(first))).await;
        assert_eq!(challenge(&mut client, "ECHO").await, "hello");
        client.send(&wrong).await;
        refused(&mut client, ReasonCode::ProtocolError).await;
    }
    let mut client = world.open(V5).await;
    let first = connect_by("ECHO", "hello");
    client.send(&Packet::Connect(Box::new(first))).await;
    challenge(&mut client, "ECHO").await;
    client.send(&disconnect(ReasonCode::Success, None)).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn a_dialogue_that_does_not_end_meets_the_connect_timeout() {
    let world = World::with(|config| config.connect_timeout_ms = 50);
    let mut client = world.open(V5).await;
    let first = connect_by("ECHO", "hello");
    client.send(&Packet::Connect(Box::new(first))).await;
    challenge(&mut client, "ECHO").await;
    refused(&mut client, ReasonCode::ServerUnavailable).await;
}

/// [MQTT-4.12.0-7]: «MUST NOT send an AUTH packet».
#[tokio::test]
async fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let world = World::start();
    for reason in [
        ReasonCode::ReAuthenticate,
        ReasonCode::ContinueAuthentication,
    ] {
        let mut client = world.connect(V5, "a").await;
        client.send(&auth(reason, SCRAM, "n,,n=alice,r=x")).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
}

#[tokio::test]
async fn who_authenticates_again_goes_on_meanwhile_and_after() {
    let world = World::start();
    let mut client = alice(&world).await;
    client.subscribe(&[("t", Qos::AtMostOnce)]).await;
    for _ in 0..2 {
        let mut scram = Scram::new("alice", "secret of alice");
        client
            .send(&auth(ReasonCode::ReAuthenticate, SCRAM, scram.first()))
            .await;
        let last = scram.last(&challenge(&mut client, SCRAM).await);
        client.expect_quiet().await;
        client.send(&go_on(SCRAM, last)).await;
        match client.receive().await {
            Packet::Auth(auth) => {
                assert_eq!(auth.reason, ReasonCode::Success);
                scram.check(&auth.properties.authentication_data.unwrap());
            }
            other => panic!("AUTH expected, not {other:?}"),
        }
    }
    client.expect_quiet().await;
}

/// [MQTT-4.12.1-2].
#[tokio::test]
async fn who_fails_to_authenticate_again_or_is_another_is_disconnected() {
    let world = World::start();
    for (user, password) in [("alice", "wrong"), ("bob", "secret of bob")] {
        let mut client = alice(&world).await;
        let mut scram = Scram::new(user, password);
        client
            .send(&auth(ReasonCode::ReAuthenticate, SCRAM, scram.first()))
            .await;
        let last = scram.last(&challenge(&mut client, SCRAM).await);
        client.send(&go_on(SCRAM, last)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
    }
    let mut client = alice(&world).await;
    client
        .send(&auth(ReasonCode::ReAuthenticate, SCRAM, "n,,n=busy,r=x"))
        .await;
    client.expect_disconnect(ReasonCode::ServerBusy).await;
}

/// [MQTT-4.12.1-1], and AUTH when the server, or nobody, has begun.
#[tokio::test]
async fn auth_by_another_method_or_out_of_turn_is_a_protocol_error() {
    let world = World::start();
    for wrong in [
        auth(ReasonCode::ReAuthenticate, "ECHO", "hello"),
        go_on(SCRAM, "n,,n=alice,r=x"),
    ] {
        let mut client = alice(&world).await;
        client.send(&wrong).await;
        client.expect_disconnect(ReasonCode::ProtocolError).await;
    }
    let mut client = alice(&world).await;
    let begin = auth(ReasonCode::ReAuthenticate, SCRAM, "n,,n=alice,r=x");
    client.send_all(&[begin.clone(), begin]).await;
    client.expect_disconnect(ReasonCode::ProtocolError).await;
}
