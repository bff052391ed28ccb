//! Stock clients, unmodified: what people do with them, in both versions of the protocol, each against a server of its own.
//!
//! The programs in `clients/` go through the same scenarios: every QoS, wildcards, retained messages, wills, sessions with
//! queued messages, shared subscriptions, large payloads, properties and topic aliases, and chat.

mod mosquitto;

use std::fs;

use broker::codec::packet::Version;
use tempfile::TempDir;

use super::harness::{Launch, Server, VERSIONS, node, python};

/// As the programs want to be told.
fn number(version: Version) -> &'static str {
    match version {
        Version::V311 => "3",
        Version::V5 => "5",
    }
}

/// A server, and the ports on which it speaks MQTT and MQTT over WebSocket.
fn serve() -> (Server, [String; 2]) {
    let folder = TempDir::with_prefix("mqchat-clients-").unwrap();
    let config = folder.path().join("mqchat.toml");
    let listener = "[[broker.listeners]]\nprotocol = \"ws\"\naddress = \"127.0.0.1:0\"\n";
    fs::write(&config, listener).unwrap();
    let config = config.to_str().unwrap();
    let server = Server::in_new_directory(|launch: Launch| {
        launch.dev().argument("--config").argument(config)
    });
    let listen = fs::read_to_string(server.data_dir().join("listen")).unwrap();
    let mut ports = listen
        .lines()
        .map(|line| line.rsplit_once(':').unwrap().1.to_owned());
    let ports = [ports.next().unwrap(), ports.next().unwrap()];
    (server, ports)
}

#[test]
fn paho_for_python_works_in_both_versions() {
    for version in VERSIONS {
        let (_server, [tcp, _]) = serve();
        python("with_paho.py", &["127.0.0.1", &tcp, number(version)]);
    }
}

#[test]
fn gmqtt_works_in_both_versions() {
    for version in VERSIONS {
        let (_server, [tcp, _]) = serve();
        python("with_gmqtt.py", &["127.0.0.1", &tcp, number(version)]);
    }
}

#[test]
fn mqtt_js_works_in_both_versions() {
    for version in VERSIONS {
        let (_server, [tcp, _]) = serve();
        let arguments = ["127.0.0.1", &tcp, number(version), "tcp"];
        node("with_mqttjs.js", &arguments);
    }
}

#[test]
fn mqtt_js_works_over_websocket_in_both_versions() {
    for version in VERSIONS {
        let (_server, [_, ws]) = serve();
        node("with_mqttjs.js", &["127.0.0.1", &ws, number(version), "ws"]);
    }
}
