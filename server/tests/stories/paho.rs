//! Another stock client: Python's paho-mqtt. `scripts/test --setup` makes its environment.

use std::path::Path;
use std::process::Command;

use super::harness::Server;

fn chat_with_paho(version: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = Server::dev();
    let output = Command::new(folder.join("../.venv/bin/python"))
        .arg(folder.join("tests/paho/chat.py"))
        .arg(server.address().port().to_string())
        .arg(version)
        .output()
        .expect("no Python environment: run scripts/test --setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn paho_chats_in_311() {
    chat_with_paho("3");
}

#[test]
fn paho_chats_in_5() {
    chat_with_paho("5");
}
