//! Promise P1 under violence: acknowledged means stored, once, at the place that the ack told.
//!
//! Ten senders keep windows of messages in flight while the server is killed again and again. Each sends what has no
//! ack once more after it has reconnected, under the same message id. At the end the log is compared with the acks.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{
    Launch, Login, Lost, Preload, Random, Server, SmallDisk, eventually, with_mid,
};

const SENDERS: usize = 10;
const WINDOW: usize = 16;
const SEED: u64 = 0x6d71_6368_6174;

/// What the senders and the one who kills share.
struct Field {
    address: Mutex<SocketAddr>,
    stopped: AtomicBool,
    acks: AtomicU64,
    /// Ends of connections by DISCONNECT, by reason.
    farewells: Mutex<HashMap<u8, u32>>,
    cid: String,
    body_bytes: usize,
}

/// What one sender knows of its messages: number → place.
type Acked = BTreeMap<u32, u64>;

fn mid(sender: usize, number: u32) -> String {
    format!("s{sender}-{number}")
}

/// A body that can be recognised, and that shows when it is torn.
fn body(sender: usize, number: u32, bytes: usize) -> String {
    let mut text = format!("message {number} of {sender} ");
    while text.len() < bytes {
        text.push(char::from(
            b'a' + u8::try_from((text.len() + sender) % 26).unwrap(),
        ));
    }
    text.push('.');
    text
}

impl Field {
    /// Sends until the field is stopped and everything is acked.
    fn send(&self, sender: usize) -> Acked {
        let login = Login::new(&format!("s{sender}"));
        let (mut acked, mut pending) = (Acked::new(), VecDeque::new());
        let mut next = 1;
        loop {
            let address = *self.address.lock().unwrap();
            let lost = match login.try_connect(address) {
                Ok(mut client) => {
                    let topic = format!("chat/to/{}", self.cid);
                    // An ack that was given before has to be given again in the same way.
                    if let Some((number, seq)) = acked.last_key_value() {
                        let again = body(sender, *number, self.body_bytes);
                        client.send_publish(&topic, again, with_mid(&mid(sender, *number)));
                        match client.next_answer() {
                            Ok(answer) => {
                                assert_eq!(answer.seq(), *seq, "{}", mid(sender, *number));
                                assert!(answer.is_duplicate(), "{answer:?}");
                            }
                            Err(lost) => {
                                self.note(&lost);
                                continue;
                            }
                        }
                    }
                    let mut sent = VecDeque::new();
                    loop {
                        while sent.len() < WINDOW && !(self.is_stopped() && pending.is_empty()) {
                            let number = pending.pop_front().unwrap_or_else(|| {
                                next += 1;
                                next - 1
                            });
                            let body = body(sender, number, self.body_bytes);
                            client.send_publish(&topic, body, with_mid(&mid(sender, number)));
                            sent.push_back(number);
                        }
                        let Some(number) = sent.front().copied() else {
                            return acked;
                        };
                        match client.next_answer() {
                            Ok(answer) => {
                                sent.pop_front();
                                acked.insert(number, answer.seq());
                                self.acks.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(lost) => {
                                sent.append(&mut pending);
                                pending = sent;
                                break lost;
                            }
                        }
                    }
                }
                Err(lost) => lost,
            };
            self.note(&lost);
            // The next address comes by itself; this only keeps the sender from spinning.
            thread::park_timeout(std::time::Duration::from_millis(3));
        }
    }

    fn note(&self, lost: &Lost) {
        if let Lost::Disconnected(reason) = lost {
            *self
                .farewells
                .lock()
                .unwrap()
                .entry(*reason as u8)
                .or_default() += 1;
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// A group, its senders at work, and the server to be killed.
struct Campaign {
    field: Arc<Field>,
    senders: Vec<JoinHandle<Acked>>,
}

impl Campaign {
    /// Makes the group on `server` and lets the senders begin.
    fn begin(server: &Server, body_bytes: usize) -> Self {
        let mut owner = Login::new("s0").connect(server.address());
        let members: Vec<_> = (1..SENDERS).map(|sender| format!("@s{sender}")).collect();
        for sender in 1..SENDERS {
            Login::new(&format!("s{sender}"))
                .connect(server.address())
                .disconnect();
        }
        let request = json!({"title": "campaign", "members": members});
        let group = owner.call("conv.create", &request).unwrap();
        let field = Arc::new(Field {
            address: Mutex::new(server.address()),
            stopped: AtomicBool::new(false),
            acks: AtomicU64::new(0),
            farewells: Mutex::default(),
            cid: group["cid"].as_str().unwrap().to_owned(),
            body_bytes,
        });
        let senders = (0..SENDERS)
            .map(|sender| {
                let field = Arc::clone(&field);
                thread::spawn(move || field.send(sender))
            })
            .collect();
        Self { field, senders }
    }

    fn acks(&self) -> u64 {
        self.field.acks.load(Ordering::Relaxed)
    }

    /// Waits for so many more acks, or for the end of a sender that has found a fault.
    fn wait_for_acks(&self, more: u64) {
        let goal = self.acks() + more;
        eventually("acks", || {
            let fault = self.senders.iter().any(JoinHandle::is_finished);
            (fault || self.acks() >= goal).then_some(())
        });
    }

    fn goes_on_at(&self, server: &Server) {
        *self.field.address.lock().unwrap() = server.address();
    }

    /// Lets the senders finish, then compares the log with what they were told.
    fn end(self, server: &Server) -> u64 {
        self.field.stopped.store(true, Ordering::Relaxed);
        let acked: Vec<Acked> = self
            .senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender found a fault"))
            .collect();
        let log = Login::new("s0")
            .connect(server.address())
            .history(&self.field.cid);
        for (seq, entry) in (1_u64..).zip(&log) {
            assert_eq!(entry["seq"], seq, "the log is dense");
        }
        let mut places: HashMap<String, &Value> = HashMap::new();
        for entry in log.iter().filter(|entry| entry["kind"] == "message") {
            let mid = entry["mid"].as_str().unwrap();
            let before = places.insert(mid.to_owned(), entry);
            assert!(before.is_none(), "{mid} is stored twice");
        }
        for (sender, acked) in acked.iter().enumerate() {
            for (number, seq) in acked {
                let mid = mid(sender, *number);
                let entry = places
                    .remove(&mid)
                    .unwrap_or_else(|| panic!("{mid} was acked and is not in the log"));
                assert_eq!(entry["from"]["handle"], format!("s{sender}"), "{mid}");
                assert_eq!(entry["seq"], *seq, "{mid}");
                assert_eq!(
                    entry["t"],
                    body(sender, *number, self.field.body_bytes),
                    "{mid}"
                );
            }
        }
        assert!(places.is_empty(), "all were sent until acked: {places:?}");
        log.len() as u64
    }
}

/// Crashes the server at `rounds` random moments.
fn survive(mut server: Server, rounds: u32, mut crash: impl FnMut(Server) -> Server) {
    let campaign = Campaign::begin(&server, 100);
    let mut random = Random::new(SEED);
    for _ in 0..rounds {
        campaign.wait_for_acks(1 + random.below(300));
        server = crash(server);
        campaign.goes_on_at(&server);
    }
    let entries = campaign.end(&server);
    eprintln!("{entries} entries after {rounds} crashes (seed {SEED:#x})");
}

#[test]
fn acked_messages_survive_thirty_kills() {
    survive(Server::dev(), 30, restarted);
}

#[test]
fn acked_messages_survive_kills_with_sled() {
    let server = Server::in_new_directory(|launch| with_sled(launch).dev());
    survive(server, 10, restarted);
}

#[test]
fn acked_messages_survive_power_cuts() {
    let mut disk = Preload::new();
    let server = disk.launch().dev().start();
    survive(server, 12, move |server| {
        disk.cut(server);
        disk.launch().dev().start()
    });
}

#[test]
fn acked_messages_survive_power_cuts_with_sled() {
    let mut disk = Preload::new();
    let server = with_sled(disk.launch()).dev().start();
    survive(server, 6, move |server| {
        disk.cut(server);
        with_sled(disk.launch()).dev().start()
    });
}

/// The server cannot help it, but the campaign has to see it: otherwise it could not see a fault of the server either.
#[test]
fn a_disk_that_lies_loses_acked_messages_and_the_campaign_sees_it() {
    for set in [|launch: Launch| launch, with_sled] {
        let mut disk = Preload::new();
        let server = set(disk.launch()).dev().start();
        let mut alice = Login::new("alice").connect(server.address());
        alice.publish("chat/to/me", "durable");
        disk.lie();
        let lost = alice.publish("chat/to/me", "acked, and lost").seq();
        disk.cut(server);
        disk.repair();
        let server = set(disk.launch()).dev().argument("--accept-loss").start();
        let mut alice = Login::new("alice").connect(server.address());
        let log = alice.history("me");
        assert_eq!((log.len(), lost), (1, 2));
        assert_eq!(log[0]["t"], "durable");
    }
}

fn restarted(mut server: Server) -> Server {
    server.restart();
    server
}

fn with_sled(launch: Launch) -> Launch {
    launch.variable("MQCHAT_STORE__ENGINE", "sled")
}

/// The log of the server is on the same disk: what cannot be logged must not keep it from stopping.
#[test]
fn nothing_is_acked_on_a_full_disk_and_nothing_acked_is_lost() {
    let disk = SmallDisk::new(24);
    let mut server = Launch::new(&disk.path().join("data")).dev().start();
    let campaign = Campaign::begin(&server, 8 * 1024);
    campaign.wait_for_acks(1);
    let status = server.wait_for_exit();
    assert!(!status.success(), "a full disk is not a success");
    disk.resize(1024);
    server.restart();
    campaign.goes_on_at(&server);
    campaign.wait_for_acks(500);
    campaign.end(&server);
}

#[test]
fn nothing_is_acked_after_a_sync_has_failed_and_nothing_acked_is_lost() {
    let mut disk = Preload::new();
    let mut server = disk.launch().dev().start();
    let campaign = Campaign::begin(&server, 100);
    campaign.wait_for_acks(300);
    disk.fail_syncs();
    let status = server.wait_for_exit();
    assert!(!status.success(), "a failed sync is not a success");
    let log = server.log();
    assert!(
        log.contains("could not make a write durable"),
        "it says so:\n{log}"
    );
    let acks = campaign.acks();
    disk.repair();
    disk.cut(server);
    let farewells = campaign.field.farewells.lock().unwrap().clone();
    let busy = ReasonCode::ServerBusy as u8;
    assert!(
        farewells.contains_key(&busy),
        "clients are told: {farewells:?}"
    );
    server = disk.launch().dev().start();
    campaign.goes_on_at(&server);
    campaign.wait_for_acks(300);
    let entries = campaign.end(&server);
    assert!(entries > acks);
}
