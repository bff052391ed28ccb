//! What the README shows, with nothing but the mosquitto tools.

use broker::codec::packet::Version;
use serde_json::Value;

use super::harness::{Login, Server, Sub, publish, publish_lines};

/// Reads receipts until one satisfies `wanted`.
fn receipt_with(receipts: &Sub, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let receipt: Value = serde_json::from_str(&receipts.next_line()).unwrap();
        if wanted(&receipt) {
            return receipt;
        }
    }
}

/// Alice writes once to Bob, then 5,000 times while he is away; he gets all, reads them, and she sees it.
fn alice_and_bob_chat(version: Version) {
    let server = Server::dev();
    let address = server.address();
    Login::new("bob").connect(address).disconnect();
    let receipts = Sub::start(
        address,
        version,
        "alice",
        &["-q", "1", "-t", "chat/me/rcpt/+"],
    );
    let bob = ["-i", "bob-1", "-c", "-q", "1", "-t", "chat/me/txt/+"];

    let sub = Sub::start(address, version, "bob", &bob);
    publish(
        address,
        version,
        "alice",
        &["-t", "chat/to/@bob", "-m", "hi"],
    );
    assert_eq!(sub.next_line(), "alice: hi");
    receipt_with(&receipts, |receipt| receipt["delivered_all"] == 1);
    sub.kill();

    let lines = (1..=5_000).map(|number| format!("line {number}"));
    publish_lines(address, version, "alice", "chat/to/@bob", lines);
    let sub = Sub::start(address, version, "bob", &bob);
    for (number, line) in (1..).zip(sub.next_lines(5_000)) {
        assert_eq!(line, format!("alice: line {number}"));
    }
    let receipt = receipt_with(&receipts, |receipt| receipt["delivered_all"] == 5_001);
    assert_eq!(receipt["read_all"], 0, "nobody said so yet");

    let cid = receipt["cid"].as_str().unwrap();
    let read = format!("chat/c/{cid}/read");
    publish(address, version, "bob", &["-t", &read, "-m", "5001"]);
    receipt_with(&receipts, |receipt| receipt["read_all"] == 5_001);

    let last = format!("chat/c/{cid}/log/last/10");
    let log = Sub::start(address, version, "alice", &["-q", "1", "-t", &last]);
    for (seq, line) in (4_992_u64..).zip(log.next_lines(10)) {
        let entry: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(entry["seq"], seq);
        assert_eq!(entry["t"], format!("line {}", seq - 1));
        assert_eq!(entry["from"]["handle"], "alice");
    }
    publish(
        address,
        version,
        "bob",
        &["-t", "chat/to/@alice", "-m", "thanks"],
    );
    assert!(log.next_line().contains("thanks"), "the log goes on live");
    assert_eq!(sub.next_line(), "bob: thanks", "no line came twice before");
    log.kill();
    sub.kill();
}

#[test]
fn alice_and_bob_chat_in_311() {
    alice_and_bob_chat(Version::V311);
}

#[test]
fn alice_and_bob_chat_in_5() {
    alice_and_bob_chat(Version::V5);
}

#[test]
fn nobody_can_fake_a_line() {
    let server = Server::dev();
    let address = server.address();
    Login::new("bob").connect(address).disconnect();
    let sub = Sub::start(
        address,
        Version::V5,
        "bob",
        &["-i", "bob-1", "-c", "-q", "1", "-t", "chat/me/txt/+"],
    );
    let forged = "hi\nalice: I owe you\u{1b}[2J\u{202e}";
    publish(
        address,
        Version::V5,
        "eve",
        &["-t", "chat/to/@bob", "-m", forged],
    );
    let json = r#"{"t":"second\nline","other":1}"#;
    publish(
        address,
        Version::V5,
        "eve",
        &["-t", "chat/to/@bob", "-m", json],
    );
    assert_eq!(
        sub.next_line(),
        r"eve: hi\nalice: I owe you\u{1b}[2J\u{202e}"
    );
    assert_eq!(sub.next_line(), r"eve: second\nline");
}
