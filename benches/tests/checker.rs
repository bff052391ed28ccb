//! The checker is seen to find what it is there for: a broker that loses, repeats, swaps or refuses messages.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use broker::codec::decode::Decoder;
use broker::codec::encode::encode;
use broker::codec::packet::{
    Ack, ConnAck, Packet, PacketId, Publish, Qos, SubAck, Subscribe, Version,
};
use broker::codec::properties::{AckProperties, ConnAckProperties};
use broker::codec::reason::ReasonCode;
use bytes::BytesMut;

/// What a broker does to every tenth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Repeat,
    Swap,
    Refuse,
}

#[test]
fn an_honest_broker_passes() {
    for version in ["3", "5"] {
        let output = bench(Fault::None, &["--mqtt", version, "--json"], &["--qos", "1"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{report}");
        assert!(report["sent"].as_u64().unwrap() > 100, "{report}");
        assert_eq!(report["sent"], report["delivered"]);
        assert_eq!(report["sent"], report["acked"]);
        assert_eq!(report["lost"], 0);
    }
}

#[test]
fn a_rate_is_kept() {
    let output = bench(Fault::None, &["--json"], &["--rate", "500"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Not one more; fewer only where the machine was late, which the report says.
    let sent = report["sent"].as_u64().unwrap();
    let said = report["notes"].to_string().contains("behind the rate");
    assert!(sent == 500 || (sent < 500 && said), "{report}");
    assert!(report["send_lag_p50_us"].is_number(), "{report}");
}

#[test]
fn acknowledged_messages_that_are_lost_are_found() {
    assert_fault(
        Fault::Lose,
        &["--qos", "1"],
        "acknowledged messages were lost",
    );
}

#[test]
fn a_loss_at_qos_0_is_counted_and_no_fault() {
    let output = bench(Fault::Lose, &["--json"], &["--qos", "0"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert!(report["lost"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn messages_that_come_twice_are_found() {
    assert_fault(Fault::Repeat, &["--qos", "1"], "messages came twice");
}

#[test]
fn messages_out_of_order_are_found() {
    assert_fault(Fault::Swap, &["--qos", "1"], "messages came out of order");
}

#[test]
fn refused_publishes_are_found() {
    assert_fault(Fault::Refuse, &["--qos", "1"], "publishes were refused");
}

#[test]
fn sessions_that_are_not_there_after_a_storm_are_found() {
    let addr = start_broker(Fault::None).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    command.args([
        "--addr",
        &addr,
        "--json",
        "reconnect-storm",
        "--sessions",
        "1",
    ]);
    let output = command.output().expect("the bench runs");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sessions_lost"], 1, "{report}");
    assert_eq!(report["faults"][0], "sessions were lost");
}

fn assert_fault(fault: Fault, options: &[&str], expected: &str) {
    let output = bench(fault, &[], options);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    let faults: Vec<_> = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("FAULT: "))
        .collect();
    // One message that the broker held back when the run ended may be missing as well.
    assert!(faults.contains(&expected), "{text}");
}

fn bench(fault: Fault, before: &[&str], options: &[&str]) -> Output {
    let addr = start_broker(fault).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    command
        .args(["--addr", &addr])
        .args(before)
        .args(["pairs", "--pairs", "1"]);
    command
        .args(["--warmup", "0", "--seconds", "1", "--drain", "1"])
        .args(options);
    command.output().expect("the bench runs")
}

/// A broker for one pair: it ends with its connections.
fn start_broker(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let subscriber = Arc::new(Mutex::new(None));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscriber = Arc::clone(&subscriber);
            thread::spawn(move || Connection::new(stream, fault).serve(&subscriber));
        }
    });
    addr
}

struct Connection {
    stream: TcpStream,
    fault: Fault,
    version: Version,
    held: Option<Publish>,
    taken: u16,
}

type SubscriberSlot = Arc<Mutex<Option<(TcpStream, Version)>>>;

impl Connection {
    fn new(stream: TcpStream, fault: Fault) -> Self {
        Self {
            stream,
            fault,
            version: Version::V5,
            held: None,
            taken: 0,
        }
    }

    fn serve(mut self, subscriber: &SubscriberSlot) {
        let (mut decoder, mut input) = (Decoder::new(1 << 20), BytesMut::new());
        let mut chunk = [0; 4_096];
        while let Ok(bytes @ 1..) = self.stream.read(&mut chunk) {
            input.extend(chunk.iter().take(bytes));
            while let Ok(Some(packet)) = decoder.decode(&mut input) {
                self.version = decoder.version().expect("CONNECT comes first");
                self.handle(packet, subscriber);
            }
        }
    }

    fn handle(&mut self, packet: Packet, subscriber: &SubscriberSlot) {
        match packet {
            Packet::Connect(_) => self.answer(&Packet::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: ConnAckProperties::default(),
            }))),
            Packet::Subscribe(Subscribe { packet_id, .. }) => {
                let clone = self.stream.try_clone().expect("a descriptor");
                *subscriber.lock().expect("no panic") = Some((clone, self.version));
                self.answer(&Packet::SubAck(SubAck {
                    packet_id,
                    reasons: vec![ReasonCode::GrantedQos1],
                    properties: AckProperties::default(),
                }));
            }
            Packet::Publish(publish) => self.take(publish, subscriber),
            _ => {}
        }
    }

    fn take(&mut self, publish: Publish, subscriber: &SubscriberSlot) {
        self.taken = self.taken.wrapping_add(1);
        let fault = match self.taken % 10 {
            5 => self.fault,
            _ => Fault::None,
        };
        if let Some(packet_id) = publish.packet_id {
            let mut ack = Ack::success(packet_id);
            if fault == Fault::Refuse {
                ack.reason = ReasonCode::QuotaExceeded;
            }
            self.answer(&Packet::PubAck(ack));
        }
        match fault {
            Fault::Lose | Fault::Refuse => return,
            Fault::Swap => {
                self.held = Some(publish);
                return;
            }
            Fault::Repeat => deliver(&publish, subscriber),
            Fault::None => {}
        }
        deliver(&publish, subscriber);
        if let Some(held) = self.held.take() {
            deliver(&held, subscriber);
        }
    }

    fn answer(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        encode(packet, self.version, &mut out);
        self.stream.write_all(&out).expect("the client reads");
    }
}

fn deliver(publish: &Publish, subscriber: &SubscriberSlot) {
    let mut slot = subscriber.lock().expect("no panic");
    let Some((stream, version)) = slot.as_mut() else {
        return;
    };
    let mut delivered = publish.clone();
    if delivered.qos > Qos::AtMostOnce {
        // One delivery at a time would do for a client that does not look.
        delivered.packet_id = PacketId::new(1);
    }
    let mut out = BytesMut::new();
    encode(&Packet::Publish(delivered), *version, &mut out);
    stream.write_all(&out).expect("the client reads");
}
