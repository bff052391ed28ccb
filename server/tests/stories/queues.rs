//! Private queues of devices: what is sent to a device comes to it alone, in order, until it has been acknowledged.

use broker::codec::packet::{Publish, Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use proto::payload::PROTOBUF;
use proto::schema::rpc_reply::Result as Outcome;
use proto::schema::rpc_request::Params;
use proto::schema::{DevList, DevSend, DeviceEvent, Message as _, RpcReply, RpcRequest};
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

const TOPIC: &str = "chat/me/dev";

fn connect(server: &Server, name: &str, version: Version) -> Client {
    let login = Login::new(name).version(version);
    login.connect(server.address())
}

/// A device that listens to its queue.
fn device(server: &Server, name: &str, version: Version) -> Client {
    let login = Login::new(name).version(version).device("phone");
    let mut client = login.connect(server.address());
    client.subscribe(TOPIC);
    client
}

/// The devices of a user that the caller may send to.
fn devices(client: &mut Client, user: &str) -> Vec<String> {
    let found = client.call("dev.list", &json!({"user": user})).unwrap();
    let found = found["devices"].as_array().unwrap().iter();
    found.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// «secret» in base64.
const SECRET: &str = "c2VjcmV0";

fn send(client: &mut Client, user: &str, device: &str, kind: &str) -> Result<Value, String> {
    let request = json!({"user": user, "device": device, "kind": kind, "data": SECRET});
    client.call("dev.send", &request)
}

fn event(publish: &Publish) -> DeviceEvent {
    assert_eq!(&*publish.topic, TOPIC);
    serde_json::from_slice(&publish.payload).unwrap()
}

fn next(client: &mut Client) -> (u64, String) {
    let event = event(&client.next_on(TOPIC));
    (event.dseq, event.kind)
}

#[test]
fn what_is_sent_to_a_device_comes_to_it_alone() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut phone = device(&server, "bob", version);
        let tablet = Login::new("bob").version(version).device("tablet");
        let mut tablet = tablet.connect(server.address());
        let mut alice = connect(&server, "alice", version);
        alice.publish("chat/to/@bob", "hello");
        let found = devices(&mut alice, "@bob");
        assert_eq!(found.len(), 1, "the tablet has no queue: {found:?}");
        tablet.subscribe(TOPIC);
        assert_eq!(devices(&mut alice, "@bob").len(), 2);
        for kind in ["one", "two", "three"] {
            assert_eq!(send(&mut alice, "@bob", &found[0], kind), Ok(json!({})));
        }
        for (dseq, kind) in [(1, "one"), (2, "two"), (3, "three")] {
            let publish = phone.next_on(TOPIC);
            let event = event(&publish);
            assert_eq!((event.dseq, event.kind.as_str()), (dseq, kind));
            assert_eq!(&event.data[..], b"secret");
            assert_eq!(event.from.unwrap().handle, "alice");
            assert_eq!(publish.qos, Qos::AtLeastOnce);
            if version == Version::V5 {
                let lasts_s = publish.properties.message_expiry_interval.unwrap();
                assert!((1..=30 * 86_400).contains(&lasts_s), "{lasts_s}");
            }
        }
        // Between the own devices as well; and that one comes to the tablet first.
        let own = devices(&mut phone, "me");
        let other = own.iter().find(|id| *id != &found[0]).unwrap();
        send(&mut phone, "me", other, "own").unwrap();
        assert_eq!(next(&mut tablet), (1, "own".into()));
        assert!(tablet.arrivals().is_empty() && alice.arrivals().is_empty());
        // Nothing of it is in any conversation.
        assert_eq!(alice.history("@bob").len(), 1);
    }
}

#[test]
fn an_event_is_in_protobuf_for_who_reads_protobuf() {
    let server = Server::dev();
    let mut phone = device(&server, "bob", Version::V5);
    phone.subscribe("chat/me/pb/+");
    let mut alice = connect(&server, "alice", Version::V5);
    alice.publish("chat/to/@bob", "hello");
    phone.next_message();
    let mut call = |method: &str, params: Params| {
        let request = RpcRequest {
            params: Some(params),
        };
        alice.subscribe("chat/me/rpc/pb");
        let properties = PublishProperties {
            content_type: Some(PROTOBUF.into()),
            response_topic: Some("chat/me/rpc/pb".into()),
            ..PublishProperties::default()
        };
        let topic = format!("chat/rpc/{method}");
        alice.publish_with(&topic, request.encode_to_vec(), properties);
        let reply = alice.next_on("chat/me/rpc/pb");
        RpcReply::decode(&*reply.payload).unwrap().result.unwrap()
    };
    let user = "@bob".to_owned();
    let list = DevList { user: user.clone() };
    let Outcome::DeviceIds(found) = call("dev.list", Params::DevList(list)) else {
        panic!("no list");
    };
    let to_phone = DevSend {
        user,
        device: found.devices[0].clone(),
        kind: "welcome".into(),
        data: vec![0, 0xFF].into(),
        ttl_s: Some(60),
    };
    let sent = call("dev.send", Params::DevSend(to_phone));
    assert!(matches!(sent, Outcome::Done(_)), "{sent:?}");
    let publish = phone.next_message();
    assert_eq!(publish.properties.content_type.as_deref(), Some(PROTOBUF));
    assert!(publish.properties.message_expiry_interval <= Some(60));
    let event = DeviceEvent::decode(&*publish.payload).unwrap();
    assert_eq!((event.dseq, event.kind.as_str()), (1, "welcome"));
    assert_eq!(&event.data[..], [0, 0xFF]);
}

#[test]
fn an_event_stays_until_it_is_acknowledged() {
    for version in VERSIONS {
        let mut server = Server::dev();
        device(&server, "bob", version).disconnect();
        let mut alice = connect(&server, "alice", version);
        alice.publish("chat/to/@bob", "hello");
        let to = devices(&mut alice, "@bob").remove(0);
        for kind in ["one", "two", "three"] {
            send(&mut alice, "@bob", &to, kind).unwrap(); // he is away
        }
        server.restart();
        let login = Login::new("bob").version(version).device("phone");
        let mut phone = login.connect(server.address());
        assert!(phone.session_present);
        phone.acks_by_itself = false;
        let first = phone.next_on(TOPIC);
        assert_eq!(event(&first).kind, "one");
        assert_eq!(next(&mut phone), (2, "two".into()));
        phone.ack(&first);
        phone.ping();
        drop(phone);
        // What was not acknowledged comes again to the next connection; a clean start loses nothing of it.
        let clean = Login::new("bob").version(version).client_id("phone");
        clean.connect(server.address()).disconnect();
        let mut phone = device(&server, "bob", version);
        assert_eq!(next(&mut phone), (2, "two".into()));
        assert_eq!(next(&mut phone), (3, "three".into()));
        phone.settle();
        phone.disconnect();
        server.terminate();
        server.wait_for_exit();
        server.restart();
        let mut alice = connect(&server, "alice", version);
        send(&mut alice, "@bob", &to, "four").unwrap();
        let mut phone = device(&server, "bob", version);
        assert_eq!(
            next(&mut phone),
            (4, "four".into()),
            "those before are gone"
        );
    }
}

#[test]
fn a_call_that_is_repeated_sends_once() {
    let server = Server::dev();
    let mut phone = device(&server, "bob", Version::V5);
    let mut alice = connect(&server, "alice", Version::V5);
    alice.publish("chat/to/@bob", "hello");
    let to = devices(&mut alice, "@bob").remove(0);
    let request = json!({"user": "@bob", "device": to, "kind": "once", "data": SECRET});
    for _ in 0..3 {
        let sent = alice.call_as("same", "dev.send", &request);
        assert_eq!(sent, Ok(json!({})));
    }
    let other = json!({"user": "@bob", "device": to, "kind": "other"});
    let refused = alice.call_as("same", "dev.send", &other);
    assert_eq!(refused, Err("idempotency_conflict".into()));
    alice.call("dev.send", &other).unwrap();
    assert_eq!(next(&mut phone), (1, "once".into()));
    assert_eq!(next(&mut phone), (2, "other".into()));
}

#[test]
fn nobody_sends_to_devices_of_strangers_or_of_who_blocks_him() {
    for version in VERSIONS {
        let server = Server::dev();
        let mut phone = device(&server, "bob", version);
        let mut alice = connect(&server, "alice", version);
        let mut mallory = connect(&server, "mallory", version);
        let mut friend = connect(&server, "friend", version);
        for client in [&mut alice, &mut mallory] {
            client.publish("chat/to/@bob", "hello");
        }
        let to = devices(&mut alice, "@bob").remove(0);
        let block = json!({"user": "@mallory"});
        phone.call("people.block", &block).unwrap();
        let mine = devices(&mut phone, "me").remove(0);
        assert_eq!(mine, to);
        let not_found = Err("not_found".to_owned());
        // A stranger and somebody who is blocked learn nothing, not even whether there is a device.
        for client in [&mut friend, &mut mallory] {
            assert_eq!(devices(client, "@bob"), [""; 0]);
            assert_eq!(send(client, "@bob", &to, "x"), not_found);
        }
        let nowhere = "0".repeat(26);
        assert_eq!(send(&mut alice, "@bob", &nowhere, "x"), not_found);
        assert_eq!(send(&mut alice, "@friend", &to, "x"), not_found, "not his");
        assert_eq!(send(&mut alice, "@nobody", &to, "x"), not_found);
        for kind in ["", "two words", "ä", &"x".repeat(65)] {
            let refused = send(&mut alice, "@bob", &to, kind);
            assert_eq!(refused, Err("format".into()), "{kind}");
        }
        let bad = json!({"user": "@bob", "device": to, "kind": "x", "data": "%"});
        assert_eq!(alice.call("dev.send", &bad), Err("format".into()));
        // In a group with both of them, friend is no stranger any more, and the block stands.
        let group = json!({"members": ["@bob", "@mallory", "@friend"]});
        alice.call("conv.create", &group).unwrap();
        assert_eq!(devices(&mut friend, "@bob"), [to.as_str()]);
        assert_eq!(devices(&mut mallory, "@bob"), [""; 0]);
        assert_eq!(send(&mut mallory, "@bob", &to, "x"), not_found);
        send(&mut friend, "@bob", &to, "friend").unwrap();
        assert_eq!(next(&mut phone), (1, "friend".into()), "and nothing before");
        // A guest has no queue.
        let refused = friend.try_subscribe(TOPIC, Qos::AtLeastOnce);
        if version == Version::V5 {
            assert_eq!(refused, ReasonCode::NotAuthorized);
        }
        assert!(refused.is_error());
    }
}

#[test]
fn a_queue_is_bounded_and_goes_with_its_device() {
    let server = Server::dev();
    device(&server, "bob", Version::V5).disconnect();
    let mut alice = connect(&server, "alice", Version::V5);
    alice.publish("chat/to/@bob", "hello");
    let to = devices(&mut alice, "@bob").remove(0);
    for number in 0..64 {
        send(&mut alice, "@bob", &to, &format!("k{number}")).unwrap();
    }
    let refused = send(&mut alice, "@bob", &to, "more");
    assert_eq!(refused, Err("limit".into()), "one sender fills a part only");
    let mut phone = device(&server, "bob", Version::V5);
    let places: Vec<u64> = (0..64).map(|_| next(&mut phone).0).collect();
    assert_eq!(places, (1..=64).collect::<Vec<_>>());
    phone.settle();
    phone.disconnect();
    send(&mut alice, "@bob", &to, "fits").unwrap();
    // Revoked: nobody can send to it any more; when it comes again no place is given twice.
    let mut laptop = connect(&server, "bob", Version::V5);
    laptop.call("me.revoke", &json!({"device": to})).unwrap();
    assert_eq!(devices(&mut alice, "@bob"), [""; 0]);
    assert_eq!(
        send(&mut alice, "@bob", &to, "late"),
        Err("not_found".into())
    );
    let mut phone = device(&server, "bob", Version::V5);
    send(&mut alice, "@bob", &to, "new").unwrap();
    assert_eq!(next(&mut phone), (66, "new".into()));
}
