//! Promise P1 under violence: acknowledged means stored, once, at the place that the ack told.
//!
//! Ten senders keep windows of messages in flight while the server is killed again and again. Each sends what has no
//! ack once more after it has reconnected, under the same message id, and with it what was acked last. At the end the log
//! is compared with the acks, and everything that was acked is sent once more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{
    Answer, Client, Launch, Login, Lost, Preload, Random, Server, SmallDisk, eventually, with_mid,
};

const SENDERS: usize = 10;
const WINDOW: usize = 16;
const SEED: u64 = 0x6d71_6368_6174;
/// As `docs/operations.md` says: a write could not be made durable.
const NOT_DURABLE: i32 = 3;

/// What the senders and the one who kills share.
struct Field {
    address: Mutex<SocketAddr>,
    stopped: AtomicBool,
    acks: AtomicU64,
    /// Retries that found what had been stored without an ack: crashes that came between the two.
    found_again: AtomicU64,
    /// Ends of connections by DISCONNECT, by reason.
    farewells: Mutex<HashMap<u8, u32>>,
    cid: String,
    body_bytes: usize,
}

/// What an ack told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    seq: u64,
    ts: String,
}

/// What one sender was told of its messages: number → place.
type Told = BTreeMap<u32, Place>;

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

/// One who sends, over all of its connections.
struct Sender<'a> {
    field: &'a Field,
    number: usize,
    told: Told,
    /// Sent before, and not acked.
    pending: VecDeque<u32>,
    /// The first one that was never sent.
    next: u32,
}

/// Why a sender stops before its time.
enum Stop {
    /// The connection is gone.
    Lost(Lost),
    /// The server broke its promise.
    Fault(String),
}

impl Sender<'_> {
    /// Sends until the field is stopped and everything is acked.
    fn run(mut self) -> Result<Told, String> {
        let login = Login::new(&format!("s{}", self.number));
        loop {
            let address = *self.field.address.lock().unwrap();
            let worked = login
                .try_connect(address)
                .map_err(Stop::Lost)
                .and_then(|mut client| self.work(&mut client));
            match worked {
                Ok(()) => return Ok(self.told),
                Err(Stop::Fault(fault)) => return Err(fault),
                Err(Stop::Lost(lost)) => self.field.note(&lost),
            }
            // The next address comes by itself; this only keeps the sender from spinning.
            thread::park_timeout(std::time::Duration::from_millis(3));
        }
    }

    fn work(&mut self, client: &mut Client) -> Result<(), Stop> {
        let newest: Vec<u32> = self.told.keys().rev().take(WINDOW).copied().collect();
        self.repeat(client, &newest)?;
        // Packet identifier, number, and whether it was sent before.
        let mut sent: VecDeque<(u16, u32, bool)> = VecDeque::new();
        loop {
            while sent.len() < WINDOW && !(self.field.is_stopped() && self.pending.is_empty()) {
                let retried = self.pending.pop_front();
                let number = retried.unwrap_or(self.next);
                self.next = self.next.max(number + 1);
                let packet_id = self.send(client, number);
                sent.push_back((packet_id, number, retried.is_some()));
            }
            let Some((packet_id, number, retried)) = sent.front().copied() else {
                return Ok(());
            };
            let settled = client
                .next_answer()
                .map_err(Stop::Lost)
                .and_then(|answer| self.judge(&answer, packet_id, number, retried));
            if let Err(stop) = settled {
                let numbers = sent.iter().map(|(_, number, _)| *number);
                self.pending = numbers.chain(self.pending.iter().copied()).collect();
                return Err(stop);
            }
            sent.pop_front();
            self.field.acks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what was acked once more: each has to be acked again, as a duplicate, with the same place.
    fn repeat(&mut self, client: &mut Client, numbers: &[u32]) -> Result<(), Stop> {
        for window in numbers.chunks(WINDOW) {
            let ids: Vec<u16> = window
                .iter()
                .map(|number| self.send(client, *number))
                .collect();
            for (number, packet_id) in window.iter().zip(ids) {
                let answer = client.next_answer().map_err(Stop::Lost)?;
                self.judge(&answer, packet_id, *number, true)?;
            }
        }
        Ok(())
    }

    fn send(&self, client: &mut Client, number: u32) -> u16 {
        let topic = format!("chat/to/{}", self.field.cid);
        let body = body(self.number, number, self.field.body_bytes);
        client.send_publish(&topic, body, with_mid(&mid(self.number, number)))
    }

    /// Is this the ack that has to come now? A message that was acked gets the same one again, as a duplicate. One that
    /// was sent without an ack may have been stored or not. One that was never sent is no duplicate.
    fn judge(
        &mut self,
        answer: &Answer,
        packet_id: u16,
        number: u32,
        retried: bool,
    ) -> Result<(), Stop> {
        let mid = mid(self.number, number);
        let fault = |what: &str| Err(Stop::Fault(format!("{mid}: {what}: {answer:?}")));
        if answer.packet_id != packet_id {
            return fault("acks do not come in the order of publishing");
        }
        let (Some(seq), Some(ts)) = (answer.get("seq"), answer.get("ts")) else {
            return fault("not stored");
        };
        if answer.get("mid") != Some(&mid) || answer.get("cid") != Some(&self.field.cid) {
            return fault("the ack of something else");
        }
        let place = Place {
            seq: seq.parse().unwrap(),
            ts: ts.to_owned(),
        };
        match self.told.get(&number) {
            Some(before) if !answer.is_duplicate() || *before != place => {
                return fault(&format!("acked before with {before:?}"));
            }
            None if !retried && answer.is_duplicate() => return fault("never sent before"),
            None if answer.is_duplicate() => {
                self.field.found_again.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.told.insert(number, place);
        Ok(())
    }
}

impl Field {
    fn sender(&self, number: usize, told: Told) -> Sender<'_> {
        Sender {
            field: self,
            number,
            told,
            pending: VecDeque::new(),
            next: 1,
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
    senders: Vec<JoinHandle<Result<Told, String>>>,
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
            found_again: AtomicU64::new(0),
            farewells: Mutex::default(),
            cid: group["cid"].as_str().unwrap().to_owned(),
            body_bytes,
        });
        let senders = (0..SENDERS)
            .map(|number| {
                let field = Arc::clone(&field);
                thread::spawn(move || field.sender(number, Told::new()).run())
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

    /// Lets the senders finish, compares the log with what they were told, and sends all of it once more. The number
    /// of messages, or the first fault.
    fn end(self, server: &Server) -> Result<usize, String> {
        self.field.stopped.store(true, Ordering::Relaxed);
        let told = self
            .senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .collect::<Result<Vec<Told>, String>>()?;
        let read = || {
            let mut reader = Login::new("s0").connect(server.address());
            reader.history(&self.field.cid)
        };
        let log = read();
        compare(&told, &log, self.field.body_bytes)?;
        thread::scope(|scope| {
            let field = &self.field;
            let repeats: Vec<_> = told
                .into_iter()
                .enumerate()
                .map(|(number, told)| scope.spawn(move || repeat_all(field, number, told, server)))
                .collect();
            repeats
                .into_iter()
                .try_for_each(|repeat| repeat.join().unwrap())
        })?;
        if read() != log {
            return Err("retries changed the log".into());
        }
        Ok(log.len() - 1)
    }
}

fn repeat_all(field: &Field, number: usize, told: Told, server: &Server) -> Result<(), String> {
    let all: Vec<u32> = told.keys().copied().collect();
    let mut client = Login::new(&format!("s{number}")).connect(server.address());
    match field.sender(number, told).repeat(&mut client, &all) {
        Ok(()) => Ok(()),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::Lost(lost)) => Err(format!("s{number} is lost: {lost:?}")),
    }
}

/// Every acked (sender, message id) is in the log exactly once at its place, whole, and nothing else is there.
fn compare(told: &[Told], log: &[Value], body_bytes: usize) -> Result<(), String> {
    for (seq, entry) in (1_u64..).zip(log) {
        if entry["seq"] != seq {
            return Err(format!("not dense at {seq}: {entry}"));
        }
    }
    let mut places: HashMap<(String, String), &Value> = HashMap::new();
    for entry in log.iter().filter(|entry| entry["kind"] != "created") {
        let (Some(handle), Some(mid)) = (entry["from"]["handle"].as_str(), entry["mid"].as_str())
        else {
            return Err(format!("nobody's, or without a message id: {entry}"));
        };
        if entry["kind"] != "message" {
            return Err(format!("not a message: {entry}"));
        }
        if places
            .insert((handle.to_owned(), mid.to_owned()), entry)
            .is_some()
        {
            return Err(format!("{mid} is stored twice"));
        }
    }
    for (sender, told) in told.iter().enumerate() {
        let handle = format!("s{sender}");
        for (number, place) in told {
            let mid = mid(sender, *number);
            let Some(entry) = places.remove(&(handle.clone(), mid.clone())) else {
                return Err(format!("{mid} was acked and is not in the log"));
            };
            if entry["seq"] != place.seq || entry["ts"].as_u64() != place.ts.parse().ok() {
                return Err(format!("{mid} was acked with {place:?}: {entry}"));
            }
            if entry["t"] != body(sender, *number, body_bytes) {
                return Err(format!("{mid} is torn: {entry}"));
            }
        }
    }
    match places.values().next() {
        // Each was sent until it was acked.
        Some(entry) => Err(format!("nobody was told of {entry}")),
        None => Ok(()),
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
    let field = Arc::clone(&campaign.field);
    let messages = campaign.end(&server).unwrap();
    let found_again = field.found_again.load(Ordering::Relaxed);
    eprintln!(
        "{messages} messages after {rounds} crashes, {found_again} of them stored without an ack (seed {SEED:#x})"
    );
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

/// The server cannot help it, but the campaign has to see it: otherwise it could not see an ack before the sync either.
#[test]
fn a_disk_that_lies_loses_acked_messages_and_the_campaign_sees_it() {
    for set in [|launch: Launch| launch, with_sled] {
        let mut disk = Preload::new();
        let server = set(disk.launch()).dev().start();
        let campaign = Campaign::begin(&server, 100);
        campaign.wait_for_acks(100);
        disk.lie();
        campaign.wait_for_acks(200);
        disk.cut(server);
        disk.repair();
        let server = set(disk.launch()).dev().argument("--accept-loss").start();
        campaign.goes_on_at(&server);
        let fault = campaign.end(&server).unwrap_err();
        assert!(fault.contains("acked before with"), "{fault}");
    }
}

/// The comparison at the end is shown a log with each kind of fault.
/// What a store that is not to be trusted would do to a log.
type Fault = fn(&mut Vec<Value>);

#[test]
fn the_campaign_sees_each_kind_of_fault() {
    let entry = |seq: u64, sender: usize, number: u32| {
        json!({"seq": seq, "ts": 7, "kind": "message", "from": {"handle": format!("s{sender}")},
            "mid": mid(sender, number), "t": body(sender, number, 100)})
    };
    let created =
        json!({"seq": 1, "ts": 7, "kind": "created", "from": {"handle": "s0"}, "mid": "x"});
    let log = [created, entry(2, 0, 1), entry(3, 1, 1), entry(4, 0, 2)];
    let told = |places: &[(u32, u64)]| -> Told {
        let place = |seq| Place {
            seq,
            ts: "7".into(),
        };
        places
            .iter()
            .map(|(number, seq)| (*number, place(*seq)))
            .collect()
    };
    let told = [told(&[(1, 2), (2, 4)]), told(&[(1, 3)])];
    assert_eq!(compare(&told, &log, 100), Ok(()));
    let faults: [(&str, Fault); 9] = [
        ("not in the log", |log| drop(log.pop())),
        ("not dense", |log| drop(log.remove(2))),
        ("stored twice", |log| {
            let mut again = log[1].clone();
            again["seq"] = json!(5);
            log.push(again);
        }),
        ("was acked with", |log| {
            log.swap(1, 3);
            log[1]["seq"] = json!(2);
            log[3]["seq"] = json!(4);
        }),
        ("was acked with", |log| log[1]["ts"] = json!(8)),
        ("is torn", |log| log[2]["t"] = json!("message 1 of 1 abc")),
        ("not in the log", |log| {
            log[2]["from"]["handle"] = json!("s0");
        }),
        ("nobody was told", |log| {
            let mut more = log[1].clone();
            (more["seq"], more["mid"]) = (json!(5), json!("s0-3"));
            log.push(more);
        }),
        ("not a message", |log| log[3]["kind"] = json!("gone")),
    ];
    for (said, plant) in faults {
        let mut log = log.to_vec();
        plant(&mut log);
        let fault = compare(&told, &log, 100).unwrap_err();
        assert!(fault.contains(said), "{said}: {fault}");
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
    assert_eq!(status.code(), Some(NOT_DURABLE), "a full disk");
    disk.resize(1024);
    server.restart();
    campaign.goes_on_at(&server);
    campaign.wait_for_acks(500);
    campaign.end(&server).unwrap();
}

#[test]
fn nothing_is_acked_after_a_sync_has_failed_and_nothing_acked_is_lost() {
    let mut disk = Preload::new();
    let mut server = disk.launch().dev().start();
    let campaign = Campaign::begin(&server, 100);
    campaign.wait_for_acks(300);
    disk.fail_syncs();
    let status = server.wait_for_exit();
    assert_eq!(status.code(), Some(NOT_DURABLE), "a failed sync");
    let log = server.log();
    assert!(
        log.contains("could not make a write durable"),
        "it says so:\n{log}"
    );
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
    campaign.end(&server).unwrap();
}
