//! `docs/asyncapi.yaml` says which topics there are.

use broker::codec::packet::Qos;
use broker::codec::reason::ReasonCode;

use super::harness::{Login, Server};

/// A topic of the document.
struct Channel {
    address: String,
    is_sent: bool,
}

/// Reads as much of the document as is needed: it is written by a program, one field a line.
fn channels() -> Vec<Channel> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/asyncapi.yaml");
    let document = std::fs::read_to_string(path).unwrap();
    let part = |from: &str, to: &str| {
        let (_, rest) = document.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.to_owned()
    };
    let channels = part("\nchannels:\n", "\noperations:\n");
    let operations = part("\noperations:\n", "\ncomponents:\n");
    let sent = operations
        .lines()
        .filter_map(|line| line.trim().strip_prefix("action: "));
    let sent = sent.map(|action| action == "\"send\"");
    let addresses = channels.split("\n    address: \"").skip(1);
    let found: Vec<_> = addresses
        .zip(sent)
        .map(|(channel, is_sent)| Channel {
            address: channel.split('"').next().unwrap().to_owned(),
            is_sent,
        })
        .collect();
    assert_eq!(found.len(), operations.matches("action: ").count());
    found
}

#[test]
fn what_the_document_has_is_granted() {
    let server = Server::dev();
    let phone = Login::new("alice").device("phone"); // a guest has no queue
    let mut alice = phone.connect(server.address());
    let placed = alice.publish("chat/to/me", "the first");
    let cid = placed.get("cid").unwrap();
    let channels = channels();
    assert!(channels.len() > 20, "looked in the wrong place");
    for (number, channel) in channels.iter().enumerate() {
        // What is done to one message is done to one of its own: some of it cannot be done twice.
        let seq = alice.publish("chat/to/me", "another").seq().to_string();
        let topic = channel
            .address
            .replace("{target}", "me")
            .replace("{cid}", cid)
            .replace("{seq}", &seq)
            .replace("{method}", "me.get")
            .replace("{n}", "1")
            .replace("{packet}", "7");
        let topic = topic.replace("{mid}", &format!("m-{number}"));
        let topic = topic.replace("{req}", &format!("r-{number}"));
        let reason = if channel.is_sent {
            let payload = match topic.rsplit('/').next().unwrap() {
                name if name.starts_with("r-") || name == "me.get" => "{}",
                "del" => "me",
                "presence" => "online",
                _ => "1",
            };
            alice.publish(&topic, payload).reason
        } else {
            alice.try_subscribe(&topic, Qos::AtLeastOnce)
        };
        // State that is not waited for comes at QoS 0 only.
        let is_hint = topic.contains("/typing/") || topic.ends_with("/presence");
        let wanted = if channel.is_sent || is_hint {
            ReasonCode::Success
        } else {
            ReasonCode::GrantedQos1
        };
        assert_eq!(reason, wanted, "{topic}");
    }
}
