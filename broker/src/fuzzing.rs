//! What fuzzing tries, as functions of arbitrary bytes: `fuzz/` runs them under libFuzzer, the tests below with the committed
//! seeds and mutations of them. Each panics when something does not hold.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::clock;
use crate::codec::decode::{DecodeError, Decoder};
use crate::codec::encode::{encode, encode_publish, encoded_len};
use crate::codec::packet::{Connect, Packet, PacketId, Publish, Qos, Version};
use crate::codec::properties::{ConnectProperties, PublishProperties};
use crate::codec::reason::ReasonCode;
use crate::config::Config;
use crate::hooks::{Credit, Delivery, DeliveryRef, PublishAnswer};
use crate::mailbox::Answer;
use crate::router::{Publisher, Router, Subscriber};
use crate::session::{Action, ProtocolError, Session, SessionState, Terms};

/// A way to try arbitrary bytes.
pub type Target = fn(&[u8]);

/// All of them, with the folder of their seeds in `fuzz/seeds`.
pub const TARGETS: [(&str, Target); 3] = [
    ("packets", decode),
    ("packets", round_trip),
    ("session", session),
];

/// No input makes the decoder panic, and input in parts gives the same as input at once.
///
/// The first byte chooses the decoder, the rest is the input.
///
/// # Panics
/// When it does not hold.
pub fn decode(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let mut decoder = decoder(*choice);
    let expected = take_all(&mut decoder.clone(), &mut BytesMut::from(bytes));
    let (mut input, mut packets, mut error) = (BytesMut::new(), Vec::new(), None);
    for part in bytes.chunks(3) {
        input.extend_from_slice(part);
        let (more, failed) = take_all(&mut decoder, &mut input);
        packets.extend(more);
        error = failed;
        if error.is_some() {
            break;
        }
    }
    assert_eq!((packets, error), expected);
}

/// What was decoded, written and decoded again is the same, and as long as `encoded_len` said.
///
/// The input is that of [`decode`].
///
/// # Panics
/// When it does not hold.
pub fn round_trip(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let mut decoder = decoder(*choice);
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(packet)) = decoder.decode(&mut input) {
        let version = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => decoder.version().expect("CONNECT comes first"),
        };
        let mut written = BytesMut::new();
        encode(&packet, version, &mut written);
        assert_eq!(written.len(), encoded_len(&packet, version));
        let mut again = match choice % 6 {
            3 | 4 => Decoder::for_client(version, u32::MAX),
            _ => Decoder::with_version(version, u32::MAX),
        };
        assert_eq!(again.decode(&mut written), Ok(Some(packet)));
        assert!(written.is_empty());
    }
}

/// Whatever a client sends, in whatever order the plugin answers, and however often the connection breaks: a session says
/// only what a client can read, within its Receive Maximum and Maximum Packet Size, under identifiers that are free.
///
/// The first byte chooses the terms. Then come steps: what to do, how many bytes belong to it, those bytes.
///
/// # Panics
/// When it does not hold.
pub fn session(data: &[u8]) {
    let Some((terms, mut steps)) = data.split_first() else {
        return;
    };
    let mut life = Life::new(*terms);
    while let [what, length, rest @ ..] = steps {
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        life.step(*what, bytes);
        steps = rest;
    }
}

fn take_all(decoder: &mut Decoder, input: &mut BytesMut) -> (Vec<Packet>, Option<DecodeError>) {
    let mut packets = Vec::new();
    loop {
        match decoder.decode(input) {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(error) => {
                let _ = (error.reason_code(), error.to_string());
                return (packets, Some(error));
            }
        }
    }
}

fn decoder(choice: u8) -> Decoder {
    match choice % 6 {
        0 => Decoder::new(1 << 20),
        5 => Decoder::new(1 << 20).accepting_mqtt31(),
        1 => Decoder::with_version(Version::V311, 1 << 20),
        2 => Decoder::with_version(Version::V5, 1 << 20),
        3 => Decoder::for_client(Version::V311, 1 << 20),
        _ => Decoder::for_client(Version::V5, 1 << 20),
    }
}

/// A session over its connections, with a router of its own and a plugin that answers when it is told to.
struct Life {
    connect: Connect,
    config: Config,
    now: Instant,
    router: Router,
    subscriber: Subscriber,
    publisher: Publisher,
    session: Session,
    decoder: Decoder,
    /// Tickets that wait for their answers.
    tickets: VecDeque<(u64, Wanted)>,
    /// Deliveries of the plugin that an earlier connection left unacknowledged.
    inflight: Vec<(PacketId, DeliveryRef)>,
    /// Identifiers in flight to the client on this connection.
    open: HashSet<PacketId>,
    deliveries: u8,
}

/// What a ticket is to be answered with.
enum Wanted {
    Published,
    Released,
    Reasons(usize),
}

impl Life {
    fn new(terms: u8) -> Self {
        let flag = |bit: u8| terms & (1 << bit) != 0;
        let version = if flag(0) { Version::V311 } else { Version::V5 };
        let config = Config {
            receive_maximum: 3,
            inflight_max: if flag(1) { 2 } else { 100 },
            pending_publishes_max: 8,
            topic_alias_maximum: 2,
            queue_messages_max: 20,
            retained_messages_max: 3,
            subscriptions_max: 4,
            ..Config::default()
        };
        let properties = ConnectProperties {
            session_expiry_interval: (!flag(2)).then_some(100),
            receive_maximum: flag(3).then_some(1),
            maximum_packet_size: flag(4).then_some(40),
            topic_alias_maximum: flag(5).then_some(2),
            request_problem_information: flag(6).then_some(false),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version,
            clean_start: version == Version::V311 && flag(2),
            keep_alive: 10,
            client_id: "client".into(),
            will: None,
            user_name: None,
            password: None,
            properties: match version {
                Version::V311 => ConnectProperties::default(),
                Version::V5 => properties,
            },
        };
        let (router, now) = (Router::new(&config), clock::now());
        let (agreed, _) = Terms::agree(&connect, &config, ROOT);
        Self {
            session: Session::new(agreed, SessionState::default(), now),
            decoder: Decoder::with_version(version, config.packet_bytes_max),
            connect,
            config,
            now,
            router,
            subscriber: Subscriber::default(),
            publisher: Publisher::default(),
            tickets: VecDeque::new(),
            inflight: Vec::new(),
            open: HashSet::new(),
            deliveries: 0,
        }
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let first = bytes.first().copied().unwrap_or_default();
        let alive = match what % 8 {
            0..=3 => self.receive(bytes),
            4 => self.answer(first),
            5 => self.deliver(first),
            6 => false,
            _ => self.pass(first),
        };
        if !(alive && self.turn(|_, _| Ok(()))) {
            self.reconnect();
        }
    }

    /// The client sends these bytes. False: its connection is to be closed.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        let mut input = BytesMut::from(bytes);
        while self.session.wants_input() {
            let packet = match self.decoder.decode(&mut input) {
                Ok(Some(packet)) => packet,
                Ok(None) => return true,
                Err(_) => return false,
            };
            match &packet {
                Packet::PubAck(ack) | Packet::PubComp(ack) => self.open.remove(&ack.packet_id),
                Packet::PubRec(ack) if ack.reason.is_error() => self.open.remove(&ack.packet_id),
                _ => false,
            };
            let now = self.now;
            if !self.turn(|session, out| session.handle_packet(now, packet, out)) {
                return false;
            }
        }
        true
    }

    /// The plugin answers one of its tickets.
    fn answer(&mut self, pick: u8) -> bool {
        let place = usize::from(pick >> 2) % self.tickets.len().max(1);
        let Some((number, wanted)) = self.tickets.remove(place) else {
            return true;
        };
        let answer = match wanted {
            Wanted::Published => Answer::Published(PublishAnswer {
                reason: match pick & 1 {
                    0 => ReasonCode::Success,
                    _ => ReasonCode::QuotaExceeded,
                },
                ..PublishAnswer::SUCCESS
            }),
            Wanted::Released => Answer::Released(pick & 1 == 0),
            Wanted::Reasons(filters) => Answer::Reasons(vec![ReasonCode::Success; filters]),
        };
        self.session.handle_credit(Credit(u32::from(pick >> 2)));
        self.turn(|session, out| session.handle_answer(number, answer, out))
    }

    /// The plugin has a message for the client.
    fn deliver(&mut self, kind: u8) -> bool {
        if self.session.is_holding() {
            return true;
        }
        self.deliveries = self.deliveries.wrapping_add(1);
        let qos = match kind & 1 {
            0 => Qos::AtMostOnce,
            _ => Qos::AtLeastOnce,
        };
        let delivery = delivery([self.deliveries; 32], qos, None, usize::from(kind));
        self.turn(|session, out| {
            session.handle_deliveries(vec![delivery], out);
            Ok(())
        })
    }

    /// Time passes.
    fn pass(&mut self, seconds: u8) -> bool {
        self.now += Duration::from_secs(seconds.into());
        self.session.handle_timeout(self.now, true).is_ok()
    }

    /// The connection ends, and the client comes back to what is left of its session.
    fn reconnect(&mut self) {
        let terms = || Terms::agree(&self.connect, &self.config, ROOT).0;
        let new = Session::new(terms(), SessionState::default(), self.now);
        let ended = std::mem::replace(&mut self.session, new).end();
        if ended.session_expiry > 0 {
            self.session = Session::new(terms(), ended.state, self.now);
            self.inflight = ended.inflight;
        } else {
            self.subscriber.end(&self.router);
            self.publisher = Publisher::default();
            self.inflight = Vec::new();
        }
        self.decoder = Decoder::with_version(self.connect.version, self.config.packet_bytes_max);
        self.tickets.clear();
        self.open.clear();
        self.session.restore(self.inflight.clone());
        let resend = std::mem::take(&mut self.inflight)
            .into_iter()
            .map(|(packet_id, it)| delivery(it.0, Qos::AtLeastOnce, Some(packet_id), 9))
            .collect();
        let alive = self.turn(|session, out| {
            session.handle_deliveries(resend, out);
            Ok(())
        });
        assert!(alive, "nothing was done that could be wrong");
    }

    /// Lets the session do something, as a connection does. False: the connection is to be closed.
    fn turn(
        &mut self,
        handle: impl FnOnce(&mut Session, &mut Vec<Action>) -> Result<(), ProtocolError>,
    ) -> bool {
        let mut actions = Vec::new();
        let mut error = handle(&mut self.session, &mut actions).err();
        if error.is_none() {
            self.session.resume(self.now, 100_000, &mut actions);
        }
        let mut messages = Vec::new();
        loop {
            for action in std::mem::take(&mut actions) {
                if let Err(failed) = self.perform(action, &mut actions) {
                    error.get_or_insert(failed);
                }
            }
            if error.is_some() {
                return false;
            }
            if let Some(queue) = self.subscriber.queue() {
                queue.take(self.session.queue_window(), 100_000, &mut messages);
            }
            for message in messages.drain(..) {
                self.session.handle_message(self.now, message, &mut actions);
            }
            if actions.is_empty() {
                let _ = (self.session.take_outcomes(), self.session.take_tally());
                return true;
            }
        }
    }

    fn perform(&mut self, action: Action, out: &mut Vec<Action>) -> Result<(), ProtocolError> {
        let version = self.connect.version;
        let mut sent = BytesMut::new();
        match action {
            Action::SendAck(kind, ack, _) => encode(&kind.packet(ack), version, &mut sent),
            Action::Send(packet) => encode(&packet, version, &mut sent),
            Action::Deliver(outgoing) => {
                encode_publish(&outgoing.publish, &outgoing.head(), version, &mut sent);
            }
            Action::Route(publish, number) => {
                self.session.handle_routed(&publish);
                self.router.publish(publish, &mut self.publisher, self.now);
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                self.session.handle_answer(number, answer, out)?;
            }
            Action::Accept(_, number) => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                self.session.handle_answer(number, answer, out)?;
            }
            Action::Forget(_, number) => {
                self.session
                    .handle_answer(number, Answer::Released(true), out)?;
            }
            Action::Subscribe(wanted) => {
                let (router, identifier) = (&self.router, wanted.identifier);
                let mut asked = Vec::new();
                let subscribe = |filter| {
                    let granted = self
                        .subscriber
                        .subscribe(router, filter, identifier, &mut asked, &mut None);
                    granted.unwrap_or_else(|refusal| refusal)
                };
                let reasons = wanted.filters.into_iter().map(subscribe).collect();
                let mut finding = router.find_retained(asked);
                let queue = |finding: &mut _| {
                    self.subscriber
                        .queue_retained(router, finding, self.now, &mut None)
                };
                while !queue(&mut finding) {}
                let answer = Answer::Reasons(reasons);
                self.session.handle_answer(wanted.number, answer, out)?;
            }
            Action::Unsubscribe(filters, number) => {
                let unsubscribe = |filter| {
                    self.subscriber
                        .unsubscribe(&self.router, filter, &mut None)
                        .0
                };
                let answer = Answer::Reasons(filters.iter().map(unsubscribe).collect());
                self.session.handle_answer(number, answer, out)?;
            }
            Action::HandOver(batch) => {
                let numbers = batch.into_iter().map(|(_, number)| number);
                self.tickets
                    .extend(numbers.map(|number| (number, Wanted::Published)));
            }
            Action::Release(_, number) => self.tickets.push_back((number, Wanted::Released)),
            Action::SubscribePlugin(wanted) => self
                .tickets
                .push_back((wanted.number, Wanted::Reasons(wanted.filters.len()))),
            Action::UnsubscribePlugin(filters, number) => self
                .tickets
                .push_back((number, Wanted::Reasons(filters.len()))),
            // What ends the connection comes as a step of its own;
            // and nothing is at rest here.
            Action::Disconnect { .. } | Action::Authenticate { .. } | Action::Keep(_) => {}
        }
        self.read_as_client(sent);
        Ok(())
    }

    fn read_as_client(&mut self, mut sent: BytesMut) {
        let properties = &self.connect.properties;
        if let Some(max) = properties.maximum_packet_size {
            assert!(sent.len() <= max as usize, "{} bytes", sent.len());
        }
        let mut decoder = Decoder::for_client(self.connect.version, u32::MAX);
        while !sent.is_empty() {
            let packet = decoder.decode(&mut sent).expect("well-formed");
            if let Some(Packet::Publish(Publish {
                packet_id: Some(packet_id),
                ..
            })) = packet
            {
                assert!(self.open.insert(packet_id), "{packet_id:?} is in use");
                let most = properties.receive_maximum.unwrap_or(u16::MAX);
                let most = most.min(self.config.inflight_max);
                assert!(self.open.len() <= usize::from(most), "the window");
            }
        }
    }
}

fn delivery(reference: [u8; 32], qos: Qos, resend: Option<PacketId>, bytes: usize) -> Delivery {
    Delivery {
        reference: DeliveryRef(reference),
        message: Arc::new(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "plug/in".into(),
            packet_id: None,
            payload: Bytes::from(vec![b'x'; bytes]),
            properties: PublishProperties::default().into(),
        }),
        qos,
        retain: false,
        resend,
        subscription_identifiers: Vec::new(),
    }
}

/// The topic level of the plugin.
const ROOT: &str = "plug";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Mutations of each seed.
    const ROUNDS: usize = 200;

    fn seeds(folder: &str) -> Vec<Vec<u8>> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let mut files: Vec<_> = fs::read_dir(seeds.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no seeds in {folder}");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Numbers that look random, the same in each run (`SplitMix64`).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.below(256)).unwrap()
        }
    }

    fn mutated(seeds: &[Vec<u8>], seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut data = seed.to_vec();
        for _ in 0..=numbers.below(4) {
            let place = numbers.below(data.len().max(1));
            match numbers.below(6) {
                0 => data.insert(place.min(data.len()), numbers.byte()),
                1 if !data.is_empty() => drop(data.remove(place)),
                2 => data.truncate(place),
                3 => {
                    let other = &seeds[numbers.below(seeds.len())];
                    let from = numbers.below(other.len().max(1)).min(other.len());
                    data.extend_from_slice(&other[from..]);
                }
                4 if !data.is_empty() => data[place] ^= 1 << numbers.below(8),
                _ if !data.is_empty() => data[place] = numbers.byte(),
                _ => {}
            }
        }
        data
    }

    #[test]
    fn the_committed_seeds_and_mutations_of_them_pass() {
        for (number, (folder, target)) in TARGETS.into_iter().enumerate() {
            let seeds = seeds(folder);
            let mut numbers = Numbers(1);
            for seed in &seeds {
                target(seed);
                for _ in 0..ROUNDS {
                    let data = mutated(&seeds, seed, &mut numbers);
                    let input = data.clone();
                    let passed = std::panic::catch_unwind(|| target(&input));
                    assert!(passed.is_ok(), "target {number} with {data:02x?}");
                }
            }
        }
    }
}
