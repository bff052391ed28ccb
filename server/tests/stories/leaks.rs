//! Nothing leaks: seven users who may not see something look for it by every way that there is.
//!
//! Whatever they must not see has `secret-` or `old-` in it, or an id that they must not learn. By the same way something
//! comes to them that they may see (`open-`), later than the other: without it a cell shows nothing, and fails.

use std::collections::BTreeMap;
use std::fs;

use broker::codec::packet::{Publish, Qos, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Client, Launch, Login, Server, VERSIONS};

/// Those who look, and what they are to the group that is not theirs.
const LOOKERS: [(&str, &str); 7] = [
    ("sam", "a stranger"),
    ("rex", "a removed member"),
    ("ben", "a banned one"),
    ("mal", "a blocked user"),
    ("rita", "a reader"),
    ("vic", "a visitor of a support desk"),
    ("cody", "one who holds an invitation"),
];

/// The ways to look.
const WAYS: [&str; 22] = [
    "inbox",
    "log",
    "receipts",
    "typing",
    "presence",
    "account events",
    "sync.changes",
    "history",
    "msg.status",
    "pins",
    "reactions",
    "mentions",
    "search.users",
    "search.conversations",
    "what strangers are shown of conversations",
    "scheduled",
    "profile",
    "devices",
    "held messages",
    "conversations",
    "channels and lists",
    QUEUES,
];

const QUEUES: &str = "queues of devices";

/// The topic of one's own queue.
const QUEUE: &str = "chat/me/dev";

/// One who looks.
struct Looker {
    name: &'static str,
    handle: String,
    client: Client,
    /// A conversation in which he is, and his own message there.
    open: String,
    own: u64,
    /// Everything that has come to him.
    heard: Vec<Publish>,
    /// What `people.get` tells of Bob before all this.
    known_of_bob: Value,
}

/// A desk of Alice, which is a group; Bob is in it. And what else is nobody's business.
struct World {
    /// Kept until the end.
    _server: Server,
    _folder: TempDir,
    alice: Client,
    bob: Client,
    zoe: Client,
    /// The group, Bob's message before the reader came, and the one after; and one that is open to all but the visitor.
    group: String,
    old: u64,
    new: u64,
    open: u64,
    /// Of Alice and Bob, and of Bob with the one whom he has blocked.
    direct: String,
    blocked: String,
    /// The case of another visitor.
    case: String,
    /// A private channel of Alice that Bob reads, and a broadcast list that he is on.
    channel: String,
    list: String,
    code: String,
    bobs_device: String,
    /// One with a queue for her device, and that device. In no way do the lookers have to do with her, or not any more.
    dora: Client,
    doras_device: String,
    uids: BTreeMap<&'static str, String>,
}

fn cid_of(made: &Value) -> String {
    made["cid"].as_str().unwrap().to_owned()
}

fn say(client: &mut Client, cid: &str, text: &str) -> u64 {
    client.publish(&format!("chat/to/{cid}"), text).seq()
}

fn scheduled(client: &mut Client, cid: &str, text: &str) {
    let later = json!({"t": text, "at": in_a_day(), "mid": text});
    let answer = client.publish(&format!("chat/to/{cid}"), later.to_string());
    assert!(!answer.reason.is_error(), "{answer:?}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server goes by the same clock"
)]
fn in_a_day() -> u64 {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() + 86_400_000
}

impl World {
    fn new(version: Version) -> (Self, Vec<Looker>) {
        let folder = TempDir::with_prefix("mqchat-leaks-").unwrap();
        fs::write(folder.path().join("words"), "doubtful\n").unwrap();
        let config = folder.path().join("mqchat.toml");
        let filter = "[filter]\nwords_file = \"words\"\nwords_policy = \"hold\"\n";
        fs::write(&config, filter).unwrap();
        let server = Server::in_new_directory(|launch: Launch| {
            launch
                .dev()
                .argument("--config")
                .argument(config.to_str().unwrap())
                .variable("MQCHAT_CHAT__PRESENCE_GRACE_MS", "100")
                .variable("MQCHAT_CHAT__PRESENCE_INTERVAL_MS", "0")
                .variable("MQCHAT_CHAT__TYPING_INTERVAL_MS", "50")
                .variable("MQCHAT_CHAT__RECEIPT_INTERVAL_MS", "20")
        });
        let login = |name: &str| Login::new(name).connect(server.address());
        let mut uids = BTreeMap::new();
        for name in ["sam", "rex", "ben", "mal", "rita", "cody", "hidda", "bob"] {
            let me = login(name).call("me.get", &json!({})).unwrap();
            uids.insert(name, me["uid"].as_str().unwrap().to_owned());
        }
        let mut alice = login("alice");
        let mut bob = Login::new("bob")
            .device("secret-phone")
            .connect(server.address());
        let note = bob.publish("chat/to/me", "a note");
        bob.subscribe(&format!("chat/me/txt/{}", note.get("cid").unwrap()));
        let devices = bob.call("me.devices", &json!({})).unwrap();
        let bobs_device = devices["devices"][0]["id"].as_str().unwrap().to_owned();

        // The group, and those who leave it again.
        let group = json!({"title": "plain", "desk": true, "members": ["@bob", "@rex", "@ben"]});
        let group = cid_of(&alice.call("conv.create", &group).unwrap());
        let old = say(&mut bob, &group, "old-word");
        say(&mut login("rex"), &group, "of rex");
        say(&mut login("ben"), &group, "of ben");
        alice.publish(&format!("chat/c/{group}/m/{old}/react"), "old-emoji");
        alice.publish(&format!("chat/c/{group}/m/{old}/pin"), "1");
        for (method, member) in [("conv.remove", "@rex"), ("conv.ban", "@ben")] {
            let request = json!({"cid": group, "member": member});
            alice.call(method, &request).unwrap();
        }
        let reader = json!({"cid": group, "members": ["@rita"], "role": "reader"});
        alice.call("conv.add", &reader).unwrap();
        let channel = cid_of(
            &alice
                .call("conv.create", &json!({"kind": "channel"}))
                .unwrap(),
        );
        let readers =
            json!({"cid": channel, "members": ["@bob", "@rex", "@ben"], "role": "reader"});
        alice.call("conv.add", &readers).unwrap();
        say(&mut alice, &channel, "old-channel");
        for (method, member) in [("conv.remove", "@rex"), ("conv.ban", "@ben")] {
            let request = json!({"cid": channel, "member": member});
            alice.call(method, &request).unwrap();
        }
        let list = json!({"kind": "broadcast", "members": ["@bob"]});
        let list = cid_of(&alice.call("conv.create", &list).unwrap());
        let hushed = json!({"title": "hushed", "public": true});
        let hushed = cid_of(&alice.call("conv.create", &hushed).unwrap());
        let banned = json!({"cid": hushed, "member": "@ben"});
        alice.call("conv.ban", &banned).unwrap();
        let invited = alice.call("conv.invite", &json!({"cid": group})).unwrap();
        let code = invited["code"].as_str().unwrap().to_owned();

        // People.
        let mal_to_bob = login("mal").publish("chat/to/@bob", "of mal");
        let blocked = mal_to_bob.get("cid").unwrap().to_owned();
        let mut hidda = login("hidda");
        hidda.call("me.privacy", &json!({"search": false})).unwrap();
        for (client, status) in [
            (&mut hidda, ""),
            (&mut alice, "open-status"),
            (&mut bob, "secret-status"),
        ] {
            let profile = json!({"status": status, "tags": "findable"});
            client.call("me.set", &profile).unwrap();
        }
        let everybody = json!({"presence": {"who": "everybody"}});
        alice.call("me.privacy", &everybody).unwrap();
        let few = json!({"presence": {"who": "nobody", "except": ["@mal", "@alice"]},
            "last_seen": {"who": "nobody"}, "profile": {"who": "contacts"}});
        bob.call("me.privacy", &few).unwrap();
        let known_of_bob = login("mal")
            .call("people.get", &json!({"user": "@bob"}))
            .unwrap();
        bob.call("people.block", &json!({"user": "@mal"})).unwrap();

        // A queue, and those who had to do with its owner, or read what she reads.
        let mut dora = Login::new("dora")
            .device("secret-tablet")
            .connect(server.address());
        dora.subscribe(QUEUE);
        let own = dora.call("dev.list", &json!({"user": "me"})).unwrap();
        let doras_device = own["devices"][0].as_str().unwrap().to_owned();
        let keys = json!({"members": ["@dora", "@rex", "@ben"]});
        let keys = cid_of(&alice.call("conv.create", &keys).unwrap());
        for (method, member) in [("conv.remove", "@rex"), ("conv.ban", "@ben")] {
            let request = json!({"cid": keys, "member": member});
            alice.call(method, &request).unwrap();
        }
        let news = json!({"kind": "channel"});
        let news = cid_of(&alice.call("conv.create", &news).unwrap());
        let readers = json!({"cid": news, "members": ["@dora", "@rita"], "role": "reader"});
        alice.call("conv.add", &readers).unwrap();
        login("mal").publish("chat/to/@dora", "of mal");
        dora.call("people.block", &json!({"user": "@mal"})).unwrap();

        // What is open to all who look.
        let members: Vec<String> = LOOKERS
            .iter()
            .filter(|(name, _)| *name != "vic")
            .map(|(name, _)| format!("@{name}"))
            .collect();
        let roles: BTreeMap<_, _> = members.iter().map(|one| (one, "moderator")).collect();
        let mut all = members.clone();
        all.push("@bob".to_owned());
        let open = json!({"title": "open", "public": true, "members": all, "roles": roles});
        let open = cid_of(&alice.call("conv.create", &open).unwrap());
        let visitors = [(); 2].map(|()| {
            let made = alice.call("case.visitor", &json!({"desk": group})).unwrap();
            let handle = made["handle"].as_str().unwrap().to_owned();
            let login = Login::new(&handle).password(made["token"].as_str().unwrap());
            let mut visitor = login.clone().connect(server.address());
            let opened = visitor.call("case.open", &json!({"desk": group})).unwrap();
            let case = cid_of(&opened);
            alice.call("case.claim", &json!({"cid": case})).unwrap();
            (handle, login, case)
        });
        let [(vic, as_vic, open_case), (_, as_zoe, case)] = visitors;

        let lookers = LOOKERS.map(|(name, _)| {
            let (login, open, handle) = if name == "vic" {
                (as_vic.clone(), open_case.clone(), vic.clone())
            } else {
                (Login::new(name), open.clone(), name.to_owned())
            };
            let mut client = login
                .version(version)
                .device(&format!("of-{name}"))
                .connect(server.address());
            client.publish(&format!("chat/to/{open}"), "mine");
            let said = client.history(&open);
            let own = said.iter().rfind(|entry| entry["t"] == "mine");
            let own = own.unwrap()["seq"].as_u64().unwrap();
            if name != "vic" {
                scheduled(&mut client, &open, "open-plan");
            }
            Looker {
                name,
                handle,
                client,
                open,
                own,
                heard: Vec::new(),
                known_of_bob: known_of_bob.clone(),
            }
        });
        let direct = alice.publish("chat/to/@bob", "secret-direct");
        let direct = direct.get("cid").unwrap().to_owned();
        let world = Self {
            zoe: as_zoe.connect(server.address()),
            _server: server,
            _folder: folder,
            alice,
            bob,
            group,
            old,
            new: 0,
            open: 0,
            direct,
            blocked,
            case,
            channel,
            list,
            code,
            bobs_device,
            dora,
            doras_device,
            uids,
        };
        (world, lookers.into())
    }

    /// What is not for them happens, and then the same where they are.
    fn go_on(&mut self, lookers: &mut [Looker]) {
        let everybody: Vec<String> = lookers
            .iter()
            .map(|one| format!("@{}", one.handle))
            .collect();
        let everybody = everybody.join(" ");
        let (alice, bob) = (&mut self.alice, &mut self.bob);
        let text = format!("secret-word {everybody}");
        self.new = say(bob, &self.group, &text);
        let (group, new) = (&self.group, self.new);
        act(alice, bob, (group, new), ("secret", &everybody));
        bob.publish(&format!("chat/to/{group}"), "doubtful secret-held");
        scheduled(alice, group, "secret-plan");
        say(&mut self.zoe, &self.case, "secret-case");
        let said = say(alice, &self.channel, "secret-channel");
        bob.publish(
            &format!("chat/c/{}/m/{said}/react", self.channel),
            "secret-emoji",
        );
        say(alice, &self.list, "secret-list");
        bob.publish(&format!("chat/to/{}", self.direct), "secret-direct too");
        bob.publish(&format!("chat/c/{}/typing", self.direct), "1");
        bob.publish(&format!("chat/c/{}/typing", self.blocked), "1");
        bob.publish(&format!("chat/c/{}/read", self.blocked), "1");
        bob.publish("chat/me/presence", "dnd secret-presence");
        let mal = lookers.iter_mut().find(|one| one.name == "mal").unwrap();
        let to_bob = format!("chat/to/{}", self.blocked);
        mal.client.publish(&to_bob, "to who does not hear");

        let open = &lookers[0].open.clone();
        self.open = say(bob, open, &format!("open-word {everybody}"));
        act(alice, bob, (open, self.open), ("open", &everybody));
        let held = bob.publish(&format!("chat/to/{open}"), "doubtful open-held");
        assert_eq!(held.get("held"), Some("1"));
        say(alice, open, "open-end");
        let case = lookers.iter().find(|one| one.name == "vic").unwrap();
        let (case, own) = (&case.open.clone(), case.own);
        say(alice, case, "open-word");
        alice.publish(&format!("chat/c/{case}/m/{own}/react"), "open-emoji");
        alice.publish(&format!("chat/c/{case}/m/{own}/pin"), "1");
        alice.publish(&format!("chat/c/{case}/typing"), "1");
        alice.publish(&format!("chat/c/{case}/read"), "");
        let last = say(alice, case, "open-end");
        alice.publish(&format!("chat/c/{case}/read"), last.to_string());
        alice.publish("chat/me/presence", "away open-presence");
        let key = json!({"user": "@dora", "device": self.doras_device, "kind": "secret-key"});
        alice.call("dev.send", &key).unwrap();
        for looker in lookers.iter_mut().filter(|one| one.name != "vic") {
            let own = looker.client.call("dev.list", &json!({"user": "me"}));
            let own = own.unwrap()["devices"][0].take();
            let user = format!("@{}", looker.handle);
            let key = json!({"user": user, "device": own, "kind": "open-key"});
            alice.call("dev.send", &key).unwrap();
        }
    }

    /// What the one with the queue gets, of all that was sent to her.
    fn queued(&mut self) -> Vec<(u64, String)> {
        let key = json!({"user": "@dora", "device": self.doras_device, "kind": "last"});
        self.alice.call("dev.send", &key).unwrap();
        let mut queued = Vec::new();
        while queued.last().is_none_or(|(_, kind)| kind != "last") {
            let event = self.dora.next_on(QUEUE);
            let event: Value = serde_json::from_slice(&event.payload).unwrap();
            let kind = event["kind"].as_str().unwrap().to_owned();
            queued.push((event["dseq"].as_u64().unwrap(), kind));
        }
        queued
    }
}

/// What is done to a message of Bob in a group.
fn act(
    alice: &mut Client,
    bob: &mut Client,
    (cid, seq): (&str, u64),
    (word, everybody): (&str, &str),
) {
    let on = |action: &str| format!("chat/c/{cid}/m/{seq}/{action}");
    bob.publish(&on("edit"), format!("{word}-edit {everybody}"));
    alice.publish(&on("react"), format!("{word}-emoji"));
    alice.publish(&on("pin"), "1");
    let title = json!({"cid": cid, "title": format!("{word}-title")});
    alice.call("conv.settings", &title).unwrap();
    for client in [&mut *alice, &mut *bob] {
        client.publish(&format!("chat/c/{cid}/typing"), "1");
    }
    alice.publish(&format!("chat/c/{cid}/read"), seq.to_string());
}

fn holds(message: &Publish, text: &str) -> bool {
    let text = text.as_bytes();
    let mut parts = message.payload.windows(text.len());
    parts.any(|part| part == text)
}

/// What was heard under topics that begin so, topics and payloads.
fn under<'a>(heard: &'a [Publish], topic: &'a str) -> impl Iterator<Item = &'a Publish> {
    heard
        .iter()
        .filter(move |message| message.topic.starts_with(topic))
}

/// An answer, to which method.
#[derive(Debug)]
struct Told(
    #[expect(dead_code, reason = "read by whoever sees the failure")] String,
    String,
);

impl Told {
    fn has(&self, text: &str) -> bool {
        self.1.contains(text)
    }

    /// Is it exactly this?
    fn shows(&self, all: &Value) -> bool {
        serde_json::from_str(&self.1).is_ok_and(|told: Value| told == *all)
    }

    /// Is it this refusal?
    fn is(&self, code: &str) -> bool {
        self.1.strip_prefix("refused: ") == Some(code)
    }
}

/// What comes by one way.
#[derive(Default)]
struct Seen {
    shown: Vec<String>,
    /// What may be seen was there, behind everything else.
    is_there: bool,
    /// Answers that are not as they should be.
    wrong: Vec<String>,
}

impl Seen {
    fn note(&mut self, told: Told) {
        self.shown.push(told.1);
    }

    fn must(&mut self, be: bool, told: &Told) {
        if !be {
            self.wrong.push(format!("{told:?}"));
        }
    }
}

impl Looker {
    /// Subscribes to everything. What is refused is not heard.
    fn listen(&mut self, world: &World) {
        for filter in [
            "chat/me/in/+",
            "chat/me/txt/+",
            "chat/me/pb/+",
            "chat/me/rcpt/+",
            "chat/me/ev/account",
        ] {
            self.client.subscribe(filter);
        }
        if self.name != "vic" {
            self.client.subscribe(QUEUE);
        }
        let mine = format!("chat/c/{}/log", self.open);
        self.client.subscribe(&mine);
        for log in [
            format!("chat/c/{}/log/from/1", world.group),
            format!("chat/c/{}/log", world.group),
            format!("chat/c/{}/log/from/1", world.direct),
            format!("chat/c/{}/log/from/1", world.case),
            format!("chat/c/{}/log/from/1", world.channel),
            format!("chat/c/{}/log", world.channel),
            format!("chat/c/{}/log/from/1", world.list),
            format!("$share/bots/chat/c/{}/log/from/1", world.channel),
            format!("$share/bots/chat/c/{}/log/from/1", world.group),
            format!("$share/bots/chat/c/{}/log/from/1", world.direct),
            format!("chat/me/in/{}", world.channel),
            "chat/u/@bob/presence".to_owned(),
            "chat/u/@alice/presence".to_owned(),
            "chat/me/ev/typing/+".to_owned(),
        ] {
            self.client.try_subscribe(&log, Qos::AtLeastOnce);
        }
    }

    /// What shows that everything before it has come by this way; `None`: nothing may come to him by it.
    fn is_last(&self, way: &str, heard: &[Publish]) -> Option<bool> {
        let ends = |topic: String, text: &str| under(heard, &topic).any(|one| holds(one, text));
        let open = &self.open;
        Some(match way {
            "inbox" => ["in", "txt", "pb"]
                .into_iter()
                .all(|form| ends(format!("chat/me/{form}/{open}"), "open-end")),
            "log" => ends(format!("chat/c/{open}/log"), "open-end"),
            "receipts" => under(heard, &format!("chat/me/rcpt/{open}")).any(|one| {
                let told: Value = serde_json::from_slice(&one.payload).unwrap();
                let moves = told["moves"].as_array().unwrap();
                moves.iter().any(|one| one["r"].as_u64() >= Some(self.own))
            }),
            "typing" => ends(format!("chat/me/ev/typing/{open}"), "\"typing\":\"1\""),
            "presence" if self.name == "vic" => return None,
            "presence" => ends("chat/u/@alice/presence".to_owned(), "open-presence"),
            "account events" => ends("chat/me/ev/account".to_owned(), "open-end"),
            QUEUES if self.name != "vic" => ends(QUEUE.to_owned(), "open-key"),
            _ => return None,
        })
    }

    fn hear(&mut self) {
        let mut heard = std::mem::take(&mut self.heard);
        while !WAYS
            .iter()
            .all(|way| self.is_last(way, &heard).unwrap_or(true))
        {
            heard.push(self.client.next_message());
        }
        self.heard = heard;
    }

    /// What must not be in anything that comes by this way.
    fn forbidden(&self, way: &str, world: &World) -> Vec<String> {
        let mut words = vec![
            "doubtful secret",
            "secret-direct",
            "secret-case",
            "secret-plan",
            "secret-channel",
            "secret-list",
        ];
        words.extend(["secret-presence", "secret-status", "secret-phone"]);
        words.extend(["secret-key", "secret-tablet", "forged"]);
        words.push(&world.doras_device);
        let is_former = ["rex", "ben"].contains(&self.name);
        match self.name {
            "rita" => words.push("old-"),
            _ if is_former => words.push("secret-"),
            _ => words.extend(["secret-", "old-"]),
        }
        let mut all: Vec<String> = words.into_iter().map(str::to_owned).collect();
        all.extend([&world.direct, &world.case, &world.list].map(Clone::clone));
        if !is_former {
            all.push(world.channel.clone());
        }
        let knows_of_it = is_former || ["rita", "vic"].contains(&self.name);
        let is_news = ["receipts", "typing"].contains(&way);
        if !knows_of_it || (is_former && is_news) || (self.name == "rita" && way == "receipts") {
            all.push(world.group.clone());
        }
        if self.name == "mal" {
            match way {
                "typing" => all.push(world.blocked.clone()),
                "receipts" => all.push(world.uids["bob"].clone()),
                "presence" => all.extend(
                    ["online", "dnd"].map(|state| format!("\"bob\",\"state\":\"{state}\"")),
                ),
                _ => {}
            }
        }
        match way {
            "search.users" => all.push("hidda".to_owned()),
            "search.conversations" if self.name == "ben" => all.push("hushed".to_owned()),
            "devices" => all.push(world.bobs_device.clone()),
            _ => {}
        }
        all
    }

    /// Looks by one way.
    fn look(&mut self, way: &str, world: &World) -> Seen {
        let mut seen = Seen::default();
        if let Some(is_there) = self.is_last(way, &self.heard) {
            seen.shown = self.heard_by(way);
            seen.is_there = is_there;
            if way != QUEUES {
                return seen;
            }
        }
        let (open, group, own) = (self.open.as_str(), world.group.as_str(), self.own);
        let is_reader = self.name == "rita";
        let is_former = ["rex", "ben"].contains(&self.name);
        let is_visitor = self.name == "vic";
        let client = &mut self.client;
        let mut ask = |method: &str, request: Value| match client.call(method, &request) {
            Ok(found) => Told(method.to_owned(), found.to_string()),
            Err(code) => Told(method.to_owned(), format!("refused: {code}")),
        };
        // Of what is not there for him; a visitor may be told that he may not ask, a reader that he has not the right.
        let no = |told: &Told| told.is("not_found") || (is_visitor && told.is("forbidden"));
        let others = [world.direct.as_str(), world.case.as_str()];
        match way {
            "presence" => {
                seen.shown = self.heard_by(way); // a visitor hears nothing
                seen.is_there = is_visitor;
            }
            "sync.changes" => {
                let all = ask(way, json!({"limit": 200, "badge": true}));
                seen.is_there = all.has("open-end");
                seen.note(all);
            }
            "conversations" => {
                for cid in others {
                    let one = ask("conv.get", json!({"cid": cid}));
                    seen.must(no(&one), &one);
                }
                let one = ask("conv.get", json!({"cid": group}));
                seen.must(is_reader != no(&one), &one);
                let listed = ask("conv.list", json!({}));
                seen.is_there = listed.has(open);
                seen.note(one);
                seen.note(listed);
            }
            "history" => {
                for cid in others {
                    let page = ask("msg.history", json!({"cid": cid}));
                    seen.must(no(&page), &page);
                }
                let page = ask("msg.history", json!({"cid": group}));
                seen.must(no(&page) != (is_former || is_reader), &page);
                seen.must(page.has("old-word") == is_former, &page);
                seen.must(page.has("secret-edit") == is_reader, &page);
                seen.note(page);
                seen.is_there = ask("msg.history", json!({"cid": open})).has("open-end");
            }
            "msg.status" => {
                for seq in [world.old, world.new] {
                    let status = ask(way, json!({"cid": group, "seq": seq}));
                    let is_refused = no(&status) || (is_reader && status.is("forbidden"));
                    seen.must(is_refused, &status);
                }
                if self.name == "mal" {
                    // Written before and after Bob has blocked him, and Bob has said that he has read the first.
                    for seq in [1, 2] {
                        let status = ask(way, json!({"cid": world.blocked, "seq": seq}));
                        let nothing = [r#""delivered":0,"#, r#""of":1,"read":0,"#, r#""ts":0"#];
                        seen.must(nothing.iter().all(|part| status.has(part)), &status);
                    }
                }
                let status = ask(way, json!({"cid": open, "seq": own}));
                seen.is_there = status.has("\"read\":true");
            }
            "pins" | "reactions" => {
                let method = format!("msg.{way}");
                let request = |cid: &str, seq: u64| match way {
                    "pins" => json!({"cid": cid}),
                    _ => json!({"cid": cid, "seq": seq}),
                };
                for seq in [world.old, world.new] {
                    let found = ask(&method, request(group, seq));
                    let is_shown = is_reader && (way == "pins" || seq == world.new);
                    seen.must(no(&found) != is_shown, &found);
                    seen.must(!found.has(&format!("\"seq\":{},", world.old)), &found);
                    seen.note(found);
                }
                let on = if is_visitor { own } else { world.open };
                let found = ask(&method, request(open, on));
                seen.is_there = found.has("\"by\"") || found.has("open-emoji");
            }
            "mentions" => {
                let here = ask("msg.mentions", json!({"cid": group}));
                seen.must(is_reader != no(&here), &here);
                let all = ask("msg.mentions", json!({}));
                seen.is_there = all.has("open-edit") || (is_visitor && no(&all));
                seen.note(here);
                seen.note(all);
            }
            "search.users" => {
                let all = ["hid", "bob", "secret", "findable"].map(|q| ask(way, json!({"q": q})));
                seen.is_there = all[3].has("alice") || (is_visitor && no(&all[3]));
                seen.must(is_visitor || all[1].has("\"bob\""), &all[1]); // also by whom he has blocked
                for found in all {
                    seen.note(found);
                }
            }
            "search.conversations" => {
                let all = ["secret", "hushed", "open"].map(|q| ask(way, json!({"q": q})));
                seen.is_there = all[2].has("open-title") || (is_visitor && no(&all[2]));
                for found in all {
                    seen.note(found);
                }
            }
            "what strangers are shown of conversations" => {
                for cid in others.into_iter().chain([group]) {
                    let peeked = ask("conv.peek", json!({"cid": cid}));
                    seen.must(no(&peeked), &peeked);
                }
                if self.name == "cody" {
                    let by_code = ask("conv.peek", json!({"code": world.code}));
                    let all = json!({"title": "secret-title", "members": 3, "approval": false});
                    seen.must(by_code.shows(&all), &by_code); // that is all
                }
                let peeked = ask("conv.peek", json!({"cid": open}));
                seen.is_there = peeked.has("open-title") || (is_visitor && no(&peeked));
            }
            "scheduled" => {
                let mine = ask("msg.scheduled", json!({}));
                seen.is_there = mine.has("open-plan") || (is_visitor && no(&mine));
                seen.note(mine);
                let theirs = json!({"mid": "secret-plan"});
                let later = json!({"mid": "secret-plan", "at": in_a_day()});
                for (method, theirs) in [("msg.unschedule", theirs), ("msg.reschedule", later)] {
                    let theirs = ask(method, theirs);
                    seen.must(no(&theirs) || theirs.has("\"cancelled\":false"), &theirs);
                }
            }
            "profile" => {
                let bob = ask("people.get", json!({"user": "@bob"}));
                if self.name == "mal" {
                    seen.must(bob.shows(&self.known_of_bob), &bob); // as before
                }
                let alice = ask("people.get", json!({"user": "@alice"}));
                seen.is_there = alice.has("open-status") || (is_visitor && no(&alice));
                seen.note(bob);
            }
            "devices" => {
                let theirs = ask("me.revoke", json!({"device": world.bobs_device}));
                seen.must(no(&theirs), &theirs);
                let mine = ask("me.devices", json!({}));
                seen.is_there = mine.has("\"connected\":true") || (is_visitor && no(&mine));
                seen.note(mine);
            }
            "held messages" => {
                let theirs = ask("mod.held", json!({"cid": group}));
                let is_refused = no(&theirs) || (is_reader && theirs.is("forbidden"));
                seen.must(is_refused, &theirs);
                let here = ask("mod.held", json!({"cid": open}));
                seen.is_there = here.has("open-held") || (is_visitor && no(&here));
            }
            "channels and lists" => {
                for cid in [world.channel.as_str(), world.list.as_str()] {
                    for (method, request) in [
                        ("msg.history", json!({"cid": cid})),
                        ("msg.reactions", json!({"cid": cid, "seq": 2})),
                        ("msg.pins", json!({"cid": cid})),
                        ("msg.status", json!({"cid": cid, "seq": 2})),
                        ("msg.mentions", json!({"cid": cid})),
                        ("conv.get", json!({"cid": cid})),
                        ("conv.readers", json!({"cid": cid})),
                        ("conv.peek", json!({"cid": cid})),
                        ("mod.held", json!({"cid": cid})),
                        ("conv.join", json!({"cid": cid})),
                    ] {
                        let told = ask(method, request);
                        // Who read there sees what he saw.
                        let is_known = is_former && cid == world.channel && method == "msg.history";
                        seen.must(no(&told) != is_known, &told);
                        seen.note(told);
                    }
                }
                seen.is_there = ask("msg.history", json!({"cid": open})).has("open-end");
            }
            QUEUES => {
                let listed = ask("dev.list", json!({"user": "@dora"}));
                seen.must(
                    no(&listed) || listed.shows(&json!({"devices": []})),
                    &listed,
                );
                for device in [&world.doras_device, &world.bobs_device] {
                    let key = json!({"user": "@dora", "device": device, "kind": "forged"});
                    let sent = ask("dev.send", key);
                    seen.must(no(&sent), &sent);
                }
                seen.is_there |= is_visitor;
                let mine = ask("dev.list", json!({"user": "me"}));
                seen.must(is_visitor || !mine.shows(&json!({"devices": []})), &mine);
                seen.note(listed);
                seen.note(mine);
                for filter in [
                    "chat/u/@dora/dev",
                    "chat/me/dev/+",
                    "$share/bots/chat/me/dev",
                    &format!("chat/me/dev/{}", world.doras_device),
                ] {
                    let refused = client.try_subscribe(filter, Qos::AtLeastOnce);
                    let told = Told(filter.to_owned(), format!("{refused:?}"));
                    seen.must(refused.is_error(), &told);
                }
                client.publish(QUEUE, "{\"kind\":\"forged\"}");
            }
            way => unreachable!("{way}"),
        }
        seen
    }

    fn heard_by(&self, way: &str) -> Vec<String> {
        let topics: &[&str] = match way {
            "inbox" => &["chat/me/in/", "chat/me/txt/", "chat/me/pb/"],
            "log" => &["chat/c/"],
            "receipts" => &["chat/me/rcpt/"],
            "typing" => &["chat/me/ev/typing/"],
            "presence" => &["chat/u/"],
            QUEUES => &[QUEUE],
            _ => &["chat/me/ev/account"],
        };
        let heard = topics.iter().flat_map(|topic| under(&self.heard, topic));
        let text = |one: &Publish| {
            let payload = String::from_utf8_lossy(&one.payload).into_owned();
            format!("{} {payload}", one.topic)
        };
        heard.map(text).collect()
    }
}

#[test]
fn nothing_leaks_to_whom_it_does_not_concern() {
    for version in VERSIONS {
        let (mut world, mut lookers) = World::new(version);
        for looker in &mut lookers {
            looker.listen(&world);
        }
        world.go_on(&mut lookers);
        let mut failed = Vec::new();
        for (looker, (_, what)) in lookers.iter_mut().zip(LOOKERS) {
            looker.hear();
            for way in WAYS {
                let seen = looker.look(way, &world);
                if !seen.is_there {
                    failed.push(format!("{what} × {way}: shows nothing"));
                }
                let wrong = seen.wrong.into_iter();
                failed.extend(wrong.map(|told| format!("{what} × {way}: {told}")));
                for word in looker.forbidden(way, &world) {
                    let leaks = seen.shown.iter().filter(|text| text.contains(&word));
                    failed.extend(leaks.map(|text| format!("{what} × {way}: {word} in {text}")));
                }
            }
        }
        let queued = world.queued();
        if queued != [(1, "secret-key".to_owned()), (2, "last".to_owned())] {
            failed.push(format!("somebody put something in: {queued:?}"));
        }
        assert!(failed.is_empty(), "{version:?}:\n{}", failed.join("\n"));
    }
}
