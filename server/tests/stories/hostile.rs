//! Hostile clients: whatever they do, a well-behaved pair beside them loses nothing, and memory stays within a bound.
//!
//! Each attack has a server of its own. The pair talks through an ordinary topic and through the chat, one round after the
//! other, before, during and after the attack; every round is checked.

mod hoards;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use broker::codec::packet::{Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;

use super::harness::{Client, Launch, Login, Lost, PATIENCE, Random, Server, VERSIONS};

/// Most memory that the server ever had, whatever the attack.
const PEAK_KIB_MAX: u64 = 256 * 1024;
/// Messages of one round of the pair.
const ROUND: u64 = 10;

/// Runs an attack while a good pair goes on.
fn beside_a_good_pair(set: impl FnOnce(Launch) -> Launch, attack: impl FnOnce(&Server)) {
    let server = Server::in_new_directory(|launch| {
        // The pair is patient, the attackers are not to be.
        let launch = launch.variable("MQCHAT_BROKER__CONNECT_TIMEOUT_MS", "3000");
        set(launch.dev())
    });
    let mut pair = Pair::connect(server.address());
    pair.round();
    let over = AtomicBool::new(false);
    let mut pair = thread::scope(|scope| {
        let pair = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pair.round();
            }
            pair
        });
        {
            let _also_when_it_fails = Over(&over);
            attack(&server);
        }
        pair.join().unwrap()
    });
    pair.round();
    assert_eq!(pair.reader.arrivals(), [], "nothing twice");
    let peak = server.peak_memory_kib();
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB at the peak");
}

/// Set when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two clients that behave.
struct Pair {
    writer: Client,
    reader: Client,
    sent: u64,
}

impl Pair {
    fn connect(address: SocketAddr) -> Self {
        let mut reader = Login::new("reader").connect(address);
        reader.subscribe("pair/topic");
        reader.subscribe("chat/me/txt/+");
        Self {
            writer: Login::new("writer").connect(address),
            reader,
            sent: 0,
        }
    }

    /// Sends some messages both ways; each is acked, and arrives once, in order.
    fn round(&mut self) {
        let numbers = self.sent..self.sent + ROUND;
        self.sent = numbers.end;
        for number in numbers.clone() {
            for topic in ["pair/topic", "chat/to/@reader"] {
                let none = PublishProperties::default();
                self.writer.send_publish(topic, number.to_string(), none);
            }
        }
        for _ in 0..2 * ROUND {
            let answer = self.writer.next_answer().unwrap();
            assert_eq!(answer.reason, ReasonCode::Success);
        }
        let (mut plain, mut chat) = (Vec::new(), Vec::new());
        for _ in 0..2 * ROUND {
            let message = self.reader.next_message();
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            match text.strip_prefix("writer: ") {
                Some(text) => chat.push(text.to_owned()),
                None => plain.push(text),
            }
        }
        let expected: Vec<String> = numbers.map(|number| number.to_string()).collect();
        assert_eq!((&plain, &chat), (&expected, &expected));
    }
}

/// Reads until the server has closed the connection.
fn wait_for_close(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut chunk = [0; 1_024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("still open after {PATIENCE:?}");
            }
            Err(_) => return, // reset
        }
    }
}

fn as_they_are(launch: Launch) -> Launch {
    launch
}

#[test]
fn connects_that_never_end() {
    beside_a_good_pair(as_they_are, |server| {
        let connect = Login::new("mallory").bytes();
        let mut streams: Vec<TcpStream> = (0..200)
            .map(|_| TcpStream::connect(server.address()).unwrap())
            .collect();
        // One byte at a time, as long as the server lets it.
        for byte in &connect[..connect.len() - 1] {
            for stream in &mut streams {
                let _closed = stream.write_all(&[*byte]);
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        for mut stream in streams {
            wait_for_close(&mut stream);
        }
    });
}

#[test]
fn connections_that_say_nothing() {
    beside_a_good_pair(as_they_are, |server| {
        let streams: Vec<TcpStream> = (0..500)
            .map(|_| TcpStream::connect(server.address()).unwrap())
            .collect();
        for (number, mut stream) in streams.into_iter().enumerate() {
            if number % 2 == 0 {
                stream.shutdown(Shutdown::Write).unwrap(); // half open
            }
            wait_for_close(&mut stream);
        }
    });
}

#[test]
fn readers_that_never_read() {
    beside_a_good_pair(as_they_are, |server| {
        let readers: Vec<Client> = (0..20)
            .map(|number| {
                let version = VERSIONS[number % 2];
                let login = Login::new("sloth").version(version);
                let mut reader = login.connect(server.address());
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][number % 3];
                reader.try_subscribe("flood/#", qos);
                reader
            })
            .collect();
        let mut writer = Login::new("hose").connect(server.address());
        for _ in 0..80 {
            for number in 0..250 {
                let none = PublishProperties::default();
                writer.send_publish(&format!("flood/{number}"), [b'x'; 1_024], none);
            }
            for _ in 0..250 {
                let answer = writer.next_answer().unwrap();
                assert_eq!(answer.reason, ReasonCode::Success);
            }
        }
        drop(readers);
    });
}

#[test]
fn storms_of_takeovers() {
    beside_a_good_pair(as_they_are, |server| {
        let login = Login::new("twins").device("the-one");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut last = None;
                    for _ in 0..100 {
                        match login.try_connect(server.address()) {
                            Ok(client) => last = Some(client),
                            // Taken over before CONNACK.
                            Err(Lost::Refused(ReasonCode::ServerUnavailable) | Lost::Closed(_)) => {
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    drop(last);
                });
            }
        });
        let mut survivor = login.connect(server.address());
        survivor.settle();
    });
}

#[test]
fn goodbyes_in_a_burst() {
    beside_a_good_pair(as_they_are, |server| {
        let mut writer = Login::new("hose").connect(server.address());
        for _ in 0..20 {
            let mut reader = Login::new("fickle").connect(server.address());
            reader.subscribe("burst/#");
            for number in 0..250 {
                let none = PublishProperties::default();
                writer.send_publish("burst/é/room", number.to_string(), none);
            }
            reader.next_message();
            reader.disconnect();
            for _ in 0..250 {
                writer.next_answer().unwrap();
            }
        }
    });
}

#[test]
fn one_client_that_comes_and_goes_a_thousand_times() {
    beside_a_good_pair(as_they_are, |server| {
        for number in 0..1_000 {
            let version = VERSIONS[number % 2];
            let login = Login::new("fickle").version(version).client_id("fickle");
            let client = login.connect(server.address());
            if number % 3 == 0 {
                drop(client);
            } else {
                client.disconnect();
            }
        }
    });
}

#[test]
fn names_with_any_legal_character() {
    beside_a_good_pair(as_they_are, |server| {
        let odd = [
            "/",
            "//",
            "$",
            "%",
            " ",
            "\"",
            "'",
            "\\",
            "é",
            "ß",
            "Ω",
            "中",
            "日本",
            "👍",
            "🇩🇪",
            "\u{200B}",
            "\u{202E}",
            "\u{FEFF}",
            "\u{FFFD}",
            "\u{10FFFD}",
            "{}",
            "%s%n",
            "../..",
            "<b>",
            "a\u{301}",
        ];
        for version in VERSIONS {
            for text in odd {
                // In topics and filters; in the client id wildcards too.
                for client_id in [format!("id{text}"), format!("{text}+#")] {
                    let login = Login::new("odd").version(version).client_id(&client_id);
                    for _ in 0..2 {
                        let mut client = login.connect(server.address());
                        let topic = format!("{text}/odd");
                        client.subscribe(&topic);
                        client.publish(&topic, text);
                        assert_eq!(
                            &client.next_message().payload[..],
                            text.as_bytes(),
                            "{text:?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn ten_thousand_retained_topics() {
    const TOPICS: usize = 10_000;
    beside_a_good_pair(as_they_are, |server| {
        let mut writer = Login::new("hoarder").connect(server.address());
        retain(&mut writer, TOPICS, "kept");
        let mut reader = Login::new("reader").connect(server.address());
        reader.subscribe("hoard/+/x");
        for _ in 0..TOPICS {
            assert!(reader.next_message().retain);
        }
        retain(&mut writer, TOPICS, "");
        let mut late = Login::new("reader").connect(server.address());
        late.subscribe("hoard/#");
        assert_eq!(late.arrivals(), []);
    });
}

fn retain(writer: &mut Client, topics: usize, payload: &str) {
    for batch in (0..topics).collect::<Vec<_>>().chunks(250) {
        for number in batch {
            writer.send_retained(&format!("hoard/{number}/x"), payload);
        }
        for _ in batch {
            assert_eq!(writer.next_answer().unwrap().reason, ReasonCode::Success);
        }
    }
}

#[test]
fn topics_that_are_deep_or_long() {
    beside_a_good_pair(as_they_are, |server| {
        let mut client = Login::new("mole").connect(server.address());
        let deep = "/".repeat(65_535);
        let long = "x".repeat(65_535);
        client.subscribe("/#");
        client.publish(&deep, "found");
        assert_eq!(*client.next_message().topic, *deep);
        client.subscribe(&long);
        client.publish(&long, "found");
        assert_eq!(*client.next_message().topic, *long);
        let filters = [deep.replace('/', "+/").split_off(65_536), deep.clone()];
        for filter in &filters {
            let refused = client.try_subscribe(filter, Qos::AtLeastOnce);
            assert_eq!(refused, ReasonCode::TopicFilterInvalid);
        }
    });
}

#[test]
fn five_thousand_subscriptions() {
    beside_a_good_pair(as_they_are, |server| {
        for version in VERSIONS {
            let mut client = Login::new("greedy")
                .version(version)
                .connect(server.address());
            let refused = (0..5_000).filter(|number| {
                let filter = format!("many/+/{number}/#");
                client.try_subscribe(&filter, Qos::AtMostOnce) != ReasonCode::Success
            });
            assert_eq!(refused.count(), 4_000, "{version:?}: 1,000 is the limit");
            client.publish("many/a/7/b", "still served");
            client.next_message();
        }
    });
}

#[test]
fn a_flood_over_the_receive_maximum() {
    beside_a_good_pair(as_they_are, |server| {
        let mut client = Login::new("flood").connect(server.address());
        // QoS 2 without an end: each counts until its PUBREL.
        let ended = (1..=1_000).find_map(|id| client.try_begin_qos2(id, "flood/x").err());
        match ended {
            Some(Lost::Disconnected(reason)) => {
                assert_eq!(reason, ReasonCode::ReceiveMaximumExceeded);
            }
            other => panic!("{other:?}"),
        }
    });
}

/// The fixed header of a PUBLISH at QoS 0 with this Remaining Length.
fn header(mut remaining: u32) -> Vec<u8> {
    let mut bytes = vec![0x30];
    loop {
        let byte = u8::try_from(remaining % 128).unwrap();
        remaining /= 128;
        bytes.push(byte | if remaining > 0 { 0x80 } else { 0 });
        if remaining == 0 {
            return bytes;
        }
    }
}

#[test]
fn lengths_that_are_announced_and_dribbled() {
    beside_a_good_pair(as_they_are, |server| {
        for before_connect in [true, false] {
            let mut streams: Vec<TcpStream> = (0..100)
                .map(|_| TcpStream::connect(server.address()).unwrap())
                .collect();
            for (number, stream) in streams.iter_mut().enumerate() {
                // Too long by far, and just allowed.
                let length = [268_435_455, 262_000][number % 2];
                if !before_connect {
                    stream.write_all(&Login::new("dribble").bytes()).unwrap();
                }
                let mut bytes = header(length);
                if before_connect {
                    bytes[0] = 0x10;
                }
                stream.write_all(&bytes).unwrap();
            }
            for _ in 0..50 {
                for stream in &mut streams {
                    let _closed = stream.write_all(&[0; 16]);
                }
                thread::park_timeout(Duration::from_millis(10));
            }
            for (number, mut stream) in streams.into_iter().enumerate() {
                if before_connect || number % 2 == 0 {
                    wait_for_close(&mut stream);
                }
            }
        }
    });
}

#[test]
fn random_and_mutated_bytes() {
    const SEED: u64 = 20_261_121;
    beside_a_good_pair(as_they_are, |server| {
        eprintln!("seed {SEED}");
        let mut random = Random::new(SEED);
        let streams = VERSIONS.map(|version| {
            let login = Login::new("noise")
                .version(version)
                .password("noise-secret");
            (login.bytes(), good_packets(version))
        });
        for number in 0..5_000_u64 {
            let mut bytes = Vec::new();
            if number % 4 == 0 {
                bytes.extend(
                    (0..random.below(200)).map(|_| u8::try_from(random.below(256)).unwrap()),
                );
            } else {
                let (connect, packets) = &streams[usize::from(number % 2 == 0)];
                bytes.extend_from_slice(connect);
                bytes.extend_from_slice(packets);
                for _ in 0..=random.below(4) {
                    let from = if number % 3 == 0 { 0 } else { connect.len() };
                    let place =
                        from + usize::try_from(random.below((bytes.len() - from) as u64)).unwrap();
                    bytes[place] ^= 1 << random.below(8);
                }
            }
            let mut stream = TcpStream::connect(server.address()).unwrap();
            let _closed = stream.write_all(&bytes);
            if number % 10 == 0 {
                let _gone = stream.shutdown(Shutdown::Write);
                wait_for_close(&mut stream);
            }
        }
    });
}

/// Packets of most kinds, one after the other.
fn good_packets(version: Version) -> Vec<u8> {
    let v5 = version == Version::V5;
    let mut bytes = Vec::new();
    let mut packet = |head: u8, body: &[&[u8]]| {
        let body: Vec<u8> = body.concat();
        bytes.push(head);
        bytes.push(u8::try_from(body.len()).unwrap());
        bytes.extend(body);
    };
    let none: &[u8] = if v5 { &[0] } else { &[] };
    packet(0x82, &[&[0, 1], none, b"\0\x05noise\x02"]);
    packet(0x30, &[b"\0\x05noise", none, b"zero"]);
    packet(0x32, &[b"\0\x05noise", &[0, 2], none, b"one"]);
    packet(0x34, &[b"\0\x05noise", &[0, 3], none, b"two"]);
    packet(0x62, &[&[0, 3]]);
    packet(0x32, &[b"\0\x0Achat/to/me", &[0, 4], none, b"note"]);
    packet(0x82, &[&[0, 5], none, b"\0\x0Cchat/me/in/+\x01"]);
    packet(0xA2, &[&[0, 6], none, b"\0\x05noise"]);
    packet(0xC0, &[]);
    packet(0xE0, &[]);
    bytes
}
