//! TLS and certificates.

use std::sync::Arc;

use broker::codec::packet::{Connect, Packet, Qos};
use broker::codec::reason::ReasonCode;
use broker::config::{CertificateUser, ClientCertificates, ListenerConfig, Protocol};
use broker::{Broker, Config, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::client::{Client, PATIENCE, V5, V311, connect, qos0, qos0_of};
use super::super::world::{Plugin, World};
use super::authority::{Authority, Issued, tls};
use super::{address, connected, expect_cut, world_with};

fn world_of(certificate: &Issued) -> World {
    world_with(certificate.tls_listener(Protocol::Tls))
}

fn asking(certificate: &Issued, asked: ClientCertificates) -> World {
    world_with(ListenerConfig {
        client_certificates: asked,
        client_ca: Some(certificate.authorities()),
        ..certificate.tls_listener(Protocol::Tls)
    })
}

/// CONNECT without a user name: who it is, the certificate says.
async fn nameless(mut client: Client) -> Client {
    let connect = Connect {
        user_name: None,
        password: None,
        ..connect(V5, "a")
    };
    assert_eq!(client.connect(connect).await.reason, ReasonCode::Success);
    client
}

#[tokio::test]
async fn both_versions_of_tls_carry_mqtt() {
    let authority = Authority::new();
    let world = world_of(&authority.issue("localhost"));
    for tls_version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for version in [V311, V5] {
            let config = authority.client_of(&[tls_version], None);
            let stream = tls(address(&world), config).await.unwrap();
            let spoken = stream.get_ref().1.protocol_version();
            assert_eq!(spoken, Some(tls_version.version));
            let mut client = connected(Client::over(stream, version), version, "a").await;
            client.send(&Packet::PingReq).await;
            assert_eq!(client.receive().await, Packet::PingResp);
        }
    }
}

#[tokio::test]
async fn what_is_no_tls_is_cut() {
    let authority = Authority::new();
    let world = world_of(&authority.issue("localhost"));
    expect_cut(&world, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await;
    expect_cut(&world, &[0xFF; 3_000]).await;
    assert_eq!(world.metrics.handshakes_failed.value(), 2);
}

#[tokio::test]
async fn sessions_are_resumed_unless_clients_show_certificates() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost");
    for (asked, expected) in [
        (ClientCertificates::None, true),
        (ClientCertificates::Required, false),
    ] {
        let world = match asked {
            ClientCertificates::None => world_of(&certificate),
            asked => asking(&certificate, asked),
        };
        let config = authority.client(Some(&authority.issue("alice")));
        let mut resumed = Vec::new();
        for _ in 0..2 {
            let stream = tls(address(&world), config.clone()).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            resumed.push(kind == Some(rustls::HandshakeKind::Resumed));
            // The ticket has come when the first answer has.
            let mut client = connected(Client::over(stream, V5), V5, "a").await;
            client.expect_quiet().await;
        }
        assert_eq!(resumed, [false, expected]);
    }
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost");
    for asked in [ClientCertificates::Optional, ClientCertificates::Required] {
        for user in [CertificateUser::CommonName, CertificateUser::Dns] {
            let world = world_with(ListenerConfig {
                client_certificates: asked,
                client_ca: Some(certificate.authorities()),
                certificate_user: user,
                ..certificate.tls_listener(Protocol::Tls)
            });
            let config = authority.client(Some(&authority.issue("carol")));
            let stream = tls(address(&world), config).await.unwrap();
            let _client = nameless(Client::over(stream, V5)).await;
            assert_eq!(&*world.plugin.client("a").identity.user, "carol");
        }
    }
}

#[tokio::test]
async fn without_a_good_certificate_there_is_no_connection_where_one_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certificate = authority.issue("localhost");
    let foreign = stranger.issue("alice");
    for (asked, shown, let_in) in [
        (ClientCertificates::Required, None, false),
        (ClientCertificates::Optional, None, true),
        (ClientCertificates::Required, Some(&foreign), false),
        (ClientCertificates::Optional, Some(&foreign), false),
        // Nobody asks, so it is not shown.
        (ClientCertificates::None, Some(&foreign), true),
    ] {
        let world = match asked {
            ClientCertificates::None => world_of(&certificate),
            asked => asking(&certificate, asked),
        };
        // In TLS 1.3 the client is through before its certificate is judged.
        let stream = tls(address(&world), authority.client(shown)).await;
        let mut client = Client::over(stream.unwrap(), V5);
        if let_in {
            let _client = nameless(client).await;
            assert_eq!(&*world.plugin.client("a").identity.user, "");
        } else {
            client.expect_closed().await;
            assert_eq!(world.metrics.handshakes_failed.value(), 1);
        }
    }
}

#[tokio::test]
async fn a_revoked_client_certificate_is_refused_from_the_next_handshake_on() {
    let authority = Authority::new();
    let certificate = authority.issue("localhost");
    let (alice, bob) = (authority.issue("alice"), authority.issue("bob"));
    let list = certificate.revoked();
    authority.revoke(&[&alice], 30, &list);
    let world = world_with(ListenerConfig {
        client_certificates: ClientCertificates::Required,
        client_ca: Some(certificate.authorities()),
        client_crl: Some(list.clone()),
        ..certificate.tls_listener(Protocol::Tls)
    });
    let comes = async |shown: &Issued, let_in: bool| {
        let stream = tls(address(&world), authority.client(Some(shown))).await;
        let mut client = Client::over(stream.unwrap(), V5);
        if let_in {
            nameless(client).await;
        } else {
            client.expect_closed().await;
        }
    };
    comes(&alice, false).await;
    comes(&bob, true).await;
    authority.revoke(&[&bob], 30, &list);
    world.certificates.reload().await;
    comes(&alice, true).await;
    comes(&bob, false).await;
    // A list that makes no sense: the old one stays.
    std::fs::write(&list, "rubbish").unwrap();
    world.certificates.reload().await;
    comes(&alice, true).await;
    comes(&bob, false).await;
    assert_eq!(world.metrics.certificates_rejected.value(), 1);
    // One that is overdue, and one of somebody else: who is revoked is not known.
    authority.revoke(&[], 0, &list);
    world.certificates.reload().await;
    comes(&alice, false).await;
    Authority::new().revoke(&[], 30, &list);
    world.certificates.reload().await;
    comes(&alice, false).await;
}

#[tokio::test]
async fn new_certificates_are_used_without_dropping_connections() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("localhost"), authority.issue("localhost"));
    let world = world_of(&first);
    let shown = async || {
        let stream = tls(address(&world), authority.client(None)).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        let certificate = chain[0].clone().into_owned();
        (stream, certificate)
    };
    let (stream, certificate) = shown().await;
    assert_eq!(certificate, first.der());
    let mut old = connected(Client::over(stream, V5), V5, "old").await;

    first.replace(&second.certificate, &second.key);
    world.certificates.reload().await;
    assert_eq!(shown().await.1, second.der());

    for (certificate, key) in [
        ("rubbish", &*second.key),
        (&second.certificate, "rubbish"),
        // A certificate with the key of another.
        (&second.certificate, &first.key),
    ] {
        first.replace(certificate, key);
        world.certificates.reload().await;
        assert_eq!(shown().await.1, second.der());
    }
    assert_eq!(world.metrics.certificates_rejected.value(), 3);
    old.expect_quiet().await;
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("localhost"), authority.issue("localhost"));
    let world = World::with(|config| {
        config.certificate_check_s = 1;
        config.listeners.push(first.tls_listener(Protocol::Tls));
    });
    first.replace(&second.certificate, &second.key);
    let look = async || {
        let stream = tls(address(&world), authority.client(None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0] == second.der()
    };
    let noticed = async { while !look().await {} };
    timeout(PATIENCE, noticed)
        .await
        .expect("the new certificate is not used");
}

#[tokio::test]
async fn a_broker_without_its_certificate_does_not_start() {
    let certificate = Authority::new().issue("localhost");
    certificate.replace("rubbish", &certificate.key);
    let config = Config {
        listeners: vec![certificate.tls_listener(Protocol::Tls)],
        listen: None,
        ..Config::default()
    };
    let error = Broker::bind(config, Arc::new(Plugin::default())).unwrap_err();
    assert!(matches!(error, Error::Certificate(_)), "{error}");
    assert!(error.to_string().contains("cert.pem"), "{error}");
}

#[tokio::test]
async fn a_stop_says_goodbye_in_tls_too() {
    let authority = Authority::new();
    let mut world = world_of(&authority.issue("localhost"));
    let config = authority.client(None);
    let mut stream = tls(address(&world), config).await.unwrap();
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a";
    stream.write_all(connect).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0x20);
    world.shutdown.cancel();
    let mut rest = Vec::new();
    // Without close_notify this would be an error.
    stream.read_to_end(&mut rest).await.unwrap();
    let reason = ReasonCode::ServerShuttingDown as u8;
    assert!(rest.ends_with(&[0xE0, 2, reason, 0]), "{rest:?}");
    drop(stream);
    world.stopped().await;
}

#[tokio::test]
async fn a_reader_that_pauses_gets_everything() {
    let authority = Authority::new();
    for protocol in [Protocol::Tls, Protocol::Wss] {
        let certificate = authority.issue("localhost");
        let world = world_with(certificate.tls_listener(protocol));
        let stream = tls(address(&world), authority.client(None)).await.unwrap();
        let mut reader = match protocol {
            Protocol::Tls => connected(Client::over(stream, V5), V5, "reader").await,
            _ => {
                super::websocket::over(stream)
                    .await
                    .mqtt(V5, "reader")
                    .await
            }
        };
        reader.subscribe(&[("t", Qos::AtMostOnce)]).await;
        let mut writer = world.connect(V5, "writer").await;
        let payload = vec![7; 200_000];
        for _ in 0..60 {
            writer.send(&qos0_of("t", payload.clone())).await;
        }
        writer.send(&qos0("t", "end")).await;
        writer.expect_quiet().await;
        for _ in 0..60 {
            assert!(
                reader.receive_publish().await.payload == payload,
                "other bytes"
            );
        }
        assert_eq!(&reader.receive_publish().await.payload[..], b"end");
    }
}
