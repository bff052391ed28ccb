//! Each row of the topic map, by three kinds of client that share one conversation: text in 3.1.1, JSON in 5.0, protobuf in
//! 5.0. What one does the two others see, and at the end all have the same history.

use broker::codec::packet::{Publish, Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use proto::payload::{JSON, PROTOBUF, PROTOBUF_MARK};
use proto::schema::{ClientMessage, LogEntry, Message as _};
use serde_json::{Value, json};

use super::harness::{Answer, Client, Login, Server, reply_in_protobuf, request_in_protobuf};

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Json,
    Protobuf,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Protobuf];

    pub(super) fn version(self) -> Version {
        match self {
            Self::Text => Version::V311,
            Self::Json | Self::Protobuf => Version::V5,
        }
    }

    /// The form of the inbox.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "in",
            Self::Protobuf => "pb",
        }
    }

    /// A text as the bytes of a body, which show by themselves what they are.
    pub(super) fn body(self, text: &str) -> Vec<u8> {
        match self {
            Self::Text => text.into(),
            Self::Json => json!({"t": text}).to_string().into(),
            Self::Protobuf => [&[PROTOBUF_MARK], &*in_protobuf(text)].concat(),
        }
    }
}

fn in_protobuf(text: &str) -> Vec<u8> {
    let message = ClientMessage {
        t: text.into(),
        ..ClientMessage::default()
    };
    message.encode_to_vec()
}

/// Somebody with an inbox in a form of their own.
pub(super) struct Person {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) client: Client,
    calls: u32,
}

/// What somebody is to be told of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) kind: String,
    pub(super) from: String,
    pub(super) text: String,
    pub(super) reply_to: u64,
    pub(super) thread: u64,
    pub(super) target: u64,
}

impl Person {
    pub(super) fn connect(server: &Server, kind: Kind, name: &'static str) -> Self {
        Self::on_device(server, kind, name, "phone")
    }

    /// A device that subscribes to refusals, and to an inbox in the own form.
    pub(super) fn on_device(server: &Server, kind: Kind, name: &'static str, device: &str) -> Self {
        let login = Login::new(name).version(kind.version()).device(device);
        let mut client = login.connect(server.address());
        client.subscribe("chat/me/err/+");
        client.subscribe(&format!("chat/me/{}/+", kind.form()));
        let calls = 0;
        Self {
            kind,
            name,
            client,
            calls,
        }
    }

    /// The phone connects again, and finds its session.
    pub(super) fn resume(&mut self, server: &Server) {
        let login = Login::new(self.name).version(self.kind.version());
        self.client = login.device("phone").connect(server.address());
        assert!(self.client.session_present, "{}", self.name);
    }

    /// A body in the own form, and how it says what it is.
    fn body(&self, text: &str) -> (Vec<u8>, PublishProperties) {
        let with = |content_type: &'static str| PublishProperties {
            content_type: Some(content_type.into()),
            ..PublishProperties::default()
        };
        match self.kind {
            Kind::Text => (text.into(), PublishProperties::default()),
            Kind::Json => (self.kind.body(text), with(JSON)),
            Kind::Protobuf => (in_protobuf(text), with(PROTOBUF)),
        }
    }

    /// Publishes a body in the own form.
    pub(super) fn say(&mut self, topic: &str, text: &str) {
        let (body, properties) = self.body(text);
        let answer = self.client.publish_with(topic, body, properties);
        self.is_done(topic, &answer);
    }

    /// The same, without waiting: the packet identifier.
    pub(super) fn begin_to_say(&mut self, topic: &str, text: &str) -> u16 {
        let (body, properties) = self.body(text);
        self.client.send_publish(topic, body, properties)
    }

    /// Publishes what is no body.
    pub(super) fn act(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let answer = self.client.publish(topic, payload);
        self.is_done(topic, &answer);
    }

    fn is_done(&mut self, topic: &str, answer: &Answer) {
        assert_eq!(answer.reason, ReasonCode::Success, "{topic}: {answer:?}");
        let refusal = self.client.arrived_below("chat/me/err/");
        assert_eq!(refusal, None, "{} to {topic}", self.name);
    }

    /// Publishes a body in the own form, which is refused: how that is told.
    pub(super) fn says_in_vain(&mut self, topic: &str, text: &str) -> Value {
        let (body, properties) = self.body(text);
        let answer = self.client.publish_with(topic, body, properties);
        self.refusal(topic, &answer)
    }

    /// Publishes something that is refused: how that is told.
    pub(super) fn acts_in_vain(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Value {
        let answer = self.client.publish(topic, payload);
        self.refusal(topic, &answer)
    }

    /// The refusal that came before this answer: in 5.0 the answer says the same.
    pub(super) fn refusal(&mut self, topic: &str, answer: &Answer) -> Value {
        let told = self.client.arrived_below("chat/me/err/");
        let told = told.unwrap_or_else(|| panic!("{} to {topic}: {answer:?}", self.name));
        let told: Value = serde_json::from_slice(&told.payload).unwrap();
        assert_eq!(told["topic"], topic);
        if self.kind == Kind::Text {
            assert_eq!(answer.reason, ReasonCode::Success, "3.1.1 knows no other");
        } else {
            assert_eq!(json!(answer.reason as u8), told["reason"], "{topic}");
            assert_eq!(answer.get("error"), told["error"].as_str(), "{topic}");
            let retry_ms = told["retry_ms"].as_u64().map(|ms| ms.to_string());
            assert_eq!(answer.get("retry_ms"), retry_ms.as_deref(), "{topic}");
        }
        told
    }

    /// The next thing in the inbox is this one, as far as the own form shows it.
    pub(super) fn sees(&mut self, expected: &Seen) {
        if self.shows(expected) {
            let publish = self.client.next_message();
            self.is(&publish, expected);
        }
    }

    /// The next thing in the inbox from this conversation is this one, as far as the own form shows it.
    pub(super) fn sees_in(&mut self, cid: &str, expected: &Seen) {
        if self.shows(expected) {
            let topic = format!("chat/me/{}/{cid}", self.kind.form());
            let publish = self.client.next_on(&topic);
            self.is(&publish, expected);
        }
    }

    /// Who said what in the next message.
    pub(super) fn hears(&mut self) -> (String, String) {
        let publish = self.client.next_message();
        let seen = match self.kind {
            Kind::Text => {
                let line = std::str::from_utf8(&publish.payload).unwrap();
                let (from, text) = line.split_once(": ").unwrap();
                return (from.to_owned(), text.to_owned());
            }
            Kind::Json => seen_in(&serde_json::from_slice(&publish.payload).unwrap()),
            Kind::Protobuf => seen_in(&as_json(&publish)),
        };
        (seen.from, seen.text)
    }

    fn shows(&self, entry: &Seen) -> bool {
        self.kind != Kind::Text || ["message", "edit"].contains(&entry.kind.as_str())
    }

    pub(super) fn is(&self, publish: &Publish, expected: &Seen) {
        let name = self.name;
        if self.kind == Kind::Text {
            let Seen { from, text, .. } = expected;
            let sign = if expected.kind == "edit" { "* " } else { "" };
            let line = format!("{from}: {sign}{text}");
            let told = std::str::from_utf8(&publish.payload);
            assert_eq!(told, Ok(line.as_str()), "{name} sees");
            return;
        }
        let found = match self.kind {
            Kind::Protobuf => seen_in(&as_json(publish)),
            Kind::Text | Kind::Json => seen_in(&serde_json::from_slice(&publish.payload).unwrap()),
        };
        assert_eq!(found, *expected, "{name} sees");
    }

    /// Calls a method in the own form; the result as JSON without defaults, or the code of the refusal.
    pub(super) fn call(&mut self, method: &str, request: &Value) -> Result<Value, String> {
        self.try_call(method, request)
            .map_err(|error| error["code"].as_str().unwrap().to_owned())
    }

    /// The same; of a refusal all that is told.
    pub(super) fn try_call(&mut self, method: &str, request: &Value) -> Result<Value, Value> {
        let mut told = match self.kind {
            Kind::Protobuf => self.call_in_protobuf(method, request),
            Kind::Text | Kind::Json => self.client.try_call(method, request),
        }?;
        plain(&mut told);
        Ok(told)
    }

    fn call_in_protobuf(&mut self, method: &str, request: &Value) -> Result<Value, Value> {
        self.client.subscribe("chat/me/rpc/pb");
        self.calls += 1;
        let properties = PublishProperties {
            content_type: Some(PROTOBUF.into()),
            response_topic: Some("chat/me/rpc/pb".into()),
            correlation_data: Some(self.calls.to_be_bytes().to_vec().into()),
            ..PublishProperties::default()
        };
        let request = request_in_protobuf(method, request);
        let topic = format!("chat/rpc/{method}");
        let answer = self.client.publish_with(&topic, request, properties);
        assert_eq!(answer.reason, ReasonCode::Success, "{method}: {answer:?}");
        let reply = self.client.next_on("chat/me/rpc/pb");
        reply_in_protobuf(&reply.payload)
    }

    /// All that there is, by the call in the own form.
    pub(super) fn history(&mut self, cid: &str) -> Vec<Value> {
        let request = json!({"cid": cid, "after": 0, "limit": 500});
        let mut page = self.call("msg.history", &request).unwrap();
        assert_ne!(page["more"], true);
        match page["entries"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        }
    }
}

fn as_json(publish: &Publish) -> Value {
    let entry = LogEntry::decode(&*publish.payload).unwrap();
    serde_json::to_value(entry).unwrap()
}

fn seen_in(entry: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |name: &str| entry[name].as_u64().unwrap_or(0);
    let body = [&entry["t"], &entry["m"]["t"]].map(text);
    Seen {
        seq: number("seq"),
        kind: text(&entry["kind"]),
        from: text(&entry["from"]["handle"]),
        text: body.concat(),
        reply_to: number("reply_to"),
        thread: number("thread"),
        target: number("target"),
    }
}

/// Leaves out what a form leaves out, and what is the reader's own.
pub(super) fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("json");
            fields.remove("mine");
            fields.retain(|_, field| {
                ![json!(0), json!(""), json!(false), json!([]), json!(null)].contains(field)
            });
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// Why there is nothing to see at this place, if so.
pub(super) fn gone_at(history: &[Value], seq: u64) -> Option<&str> {
    let found = history.iter().find(|entry| {
        let gap = &entry["gap"];
        let covers = gap["from"].as_u64() <= Some(seq) && gap["to"].as_u64() >= Some(seq);
        entry["seq"] == seq || covers
    });
    let found = found.unwrap_or_else(|| panic!("no {seq} in {history:?}"));
    match found["kind"].as_str().unwrap() {
        "gone" => found["reason"].as_str(),
        "gap" => found["gap"]["reason"].as_str(),
        _ => None,
    }
}

/// Three people in a group; each may do everything in it.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) people: [Person; 3],
    pub(super) cid: String,
    pub(super) head: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(Server::dev())
    }

    pub(super) fn of(server: Server) -> Self {
        let mut people = [
            (Kind::Text, "text"),
            (Kind::Json, "json"),
            (Kind::Protobuf, "proto"),
        ]
        .map(|(kind, name)| Person::connect(&server, kind, name));
        let request = json!({
            "title": "Three",
            "members": ["@text", "@proto"],
            "roles": {"@text": "moderator", "@proto": "moderator"},
        });
        let made = people[1].client.call("conv.create", &request).unwrap();
        let cid = made["cid"].as_str().unwrap().to_owned();
        let mut world = Self {
            server,
            people,
            cid,
            head: 0,
        };
        world.all_see(Seen {
            kind: "created".into(),
            from: "json".into(),
            ..Seen::default()
        });
        world
    }

    /// Everybody sees this as the next entry; where it is.
    pub(super) fn all_see(&mut self, expected: Seen) -> u64 {
        self.head += 1;
        let expected = Seen {
            seq: self.head,
            ..expected
        };
        for person in &mut self.people {
            person.sees(&expected);
        }
        self.head
    }

    /// One says something below `chat/`, and all see it.
    pub(super) fn say(&mut self, who: usize, topic: &str, text: &str, expected: &Seen) -> u64 {
        let person = &mut self.people[who];
        person.say(topic, text);
        let from = person.name.to_owned();
        let kind = match expected.kind.as_str() {
            "" => "message".to_owned(),
            kind => kind.to_owned(),
        };
        let text = text.to_owned();
        self.all_see(Seen {
            kind,
            from,
            text,
            ..expected.clone()
        })
    }

    /// One acts on a message, and all see an entry of this kind.
    pub(super) fn act(&mut self, who: usize, seq: u64, action: &str, payload: &str, kind: &str) {
        let topic = self.on(seq, action);
        let person = &mut self.people[who];
        person.act(&topic, payload);
        let from = person.name.to_owned();
        let kind = kind.to_owned();
        self.all_see(Seen {
            kind,
            from,
            target: seq,
            ..Seen::default()
        });
    }

    pub(super) fn on(&self, seq: u64, action: &str) -> String {
        format!("chat/c/{}/m/{seq}/{action}", self.cid)
    }

    /// One more connection of somebody, in his version.
    pub(super) fn another(&self, who: usize, client_id: &str) -> Client {
        let person = &self.people[who];
        let login = Login::new(person.name).version(person.kind.version());
        login.client_id(client_id).connect(self.server.address())
    }

    /// The handle of somebody, as a target.
    pub(super) fn handle(&self, who: usize) -> String {
        format!("@{}", self.people[who].name)
    }

    pub(super) fn overview(&mut self, who: usize) -> Value {
        let request = json!({"cid": self.cid});
        let client = &mut self.people[who].client;
        client.call("conv.get", &request).unwrap()
    }

    pub(super) fn all_have_the_same_history(&mut self) {
        let cid = self.cid.clone();
        self.all_see_the_same_of(&cid);
    }

    /// The history of this conversation, which is the same for all.
    pub(super) fn all_see_the_same_of(&mut self, cid: &str) -> Vec<Value> {
        let [text, json, proto] = &mut self.people;
        let expected = json.history(cid);
        assert!(!expected.is_empty());
        assert_eq!(text.history(cid), expected);
        assert_eq!(proto.history(cid), expected);
        expected
    }
}

pub(super) const EVERYBODY: [usize; 3] = [0, 1, 2];

/// The two others.
pub(super) fn others(who: usize) -> [usize; 2] {
    [(who + 1) % 3, (who + 2) % 3]
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A number that may not be there, as it is zero.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[test]
fn what_is_sent_is_seen_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let first = world.say(who, &to, "one", &Seen::default());
        let named = format!("{to}/mid-{who}");
        world.say(who, &named, "two", &Seen::default());
        world.people[who].say(&named, "two"); // the same again: nobody sees it
        let reply_to = first;
        world.say(
            who,
            &world.on(first, "reply"),
            "three",
            &Seen {
                reply_to,
                ..Seen::default()
            },
        );
        let thread = first;
        world.say(
            who,
            &world.on(first, "thread"),
            "four",
            &Seen {
                thread,
                ..Seen::default()
            },
        );
    }
    world.all_have_the_same_history();
}

#[test]
fn what_is_done_to_a_message_is_seen_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    let mut own = Vec::new();
    for who in EVERYBODY {
        let seq = world.say(who, &to, "a mesage", &Seen::default());
        let edit = Seen {
            kind: "edit".into(),
            target: seq,
            ..Seen::default()
        };
        world.say(who, &world.on(seq, "edit"), "a message", &edit);
        for payload in ["👍", "🎉", "-👍", ""] {
            world.act(who, seq, "react", payload, "reaction");
        }
        world.act(who, seq, "react", "👍", "reaction");
        world.act(who, seq, "pin", "1", "pin");
        world.act(who, seq, "pin", "0", "pin");
        world.act(who, seq, "pin", "1", "pin");
        world.people[who].act(&world.on(seq, "report"), "for a test");
        own.push(seq);
        let doomed = world.say(who, &to, "a mistake", &Seen::default());
        world.act(who, doomed, "del", "all", "deleted");
    }
    world.all_have_the_same_history();
    let cid = world.cid.clone();
    for (who, seq) in own.into_iter().enumerate() {
        world.people[who].act(&world.on(seq, "del"), "me");
        for reader in EVERYBODY {
            let history = world.people[reader].history(&cid);
            let hidden = gone_at(&history, seq);
            assert_eq!(hidden, (reader == who).then_some("hidden"));
        }
    }
}

#[test]
fn a_user_is_written_to_by_handle_by_id_and_as_oneself() {
    let server = Server::dev();
    let people = [
        (Kind::Text, "text"),
        (Kind::Json, "json"),
        (Kind::Protobuf, "proto"),
    ];
    let mut people = people.map(|(kind, name)| Person::connect(&server, kind, name));
    let uids: Vec<String> = people
        .iter_mut()
        .map(|person| {
            let me = person.client.call("me.get", &json!({})).unwrap();
            me["uid"].as_str().unwrap().to_owned()
        })
        .collect();
    for who in EVERYBODY {
        let other = (who + 1) % 3;
        let handle = people[other].name;
        let from = people[who].name.to_owned();
        let targets = [
            format!("@{handle}"),
            format!("u.{}", uids[other]),
            "me".into(),
        ];
        for (target, receiver) in targets.iter().zip([other, other, who]) {
            people[who].say(&format!("chat/to/{target}"), target);
            let request = json!({"cid": target});
            let found = people[who].client.call("conv.get", &request).unwrap();
            let expected = Seen {
                seq: found["head"].as_u64().unwrap(),
                kind: "message".into(),
                from: from.clone(),
                text: target.clone(),
                ..Seen::default()
            };
            people[receiver].sees(&expected);
            if receiver != who {
                people[who].sees(&expected); // one's own, too
            }
        }
    }
}

#[test]
fn marks_are_set_in_every_form() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let sender = (who + 1) % 3;
        let first = world.say(sender, &to, "one", &Seen::default());
        let second = world.say(sender, &to, "two", &Seen::default());
        let third = world.say(sender, &to, "three", &Seen::default());
        let mark = |name: &str| format!("chat/c/{}/{name}", world.cid);
        let (read, unread, recv) = (mark("read"), mark("unread"), mark("recv"));
        let numbers = |seen: &Value| {
            ["read", "private_read", "unread"].map(|name| seen[name].as_u64().unwrap())
        };

        world.people[who].act(&recv, third.to_string());
        assert_eq!(world.overview(who)["delivered"], third);
        world.people[who].act(&read, first.to_string());
        assert_eq!(numbers(&world.overview(who)), [first, 0, 2]);
        let private = json!({"seq": second, "private": true}).to_string();
        world.people[who].act(&read, &private);
        assert_eq!(numbers(&world.overview(who)), [first, second, 1]);
        world.people[who].act(&unread, "1");
        assert_eq!(world.overview(who)["unread_flag"], true);
        world.people[who].act(&unread, "0");
        assert_eq!(world.overview(who)["unread_flag"], false);
        world.people[who].act(&read, ""); // all that was delivered
        assert_eq!(numbers(&world.overview(who)), [third, second, 0]);
    }
}

#[test]
fn a_log_is_the_same_for_every_kind_of_client() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        world.say(who, &to, "before", &Seen::default());
    }
    let server = &world.server;
    let mut readers: Vec<_> = world
        .people
        .iter()
        .flat_map(|person| {
            let filters = ["log", "log/from/2", "log/last/2"];
            filters.map(|filter| {
                let login = Login::new(person.name).version(person.kind.version());
                let mut reader = login.client_id(filter).connect(server.address());
                let filter = format!("chat/c/{}/{filter}", world.cid);
                reader.subscribe(&filter);
                (filter, reader)
            })
        })
        .collect();
    world.say(1, &to, "after", &Seen::default());
    for (filter, reader) in &mut readers {
        let expected: &[u64] = if filter.ends_with("log") {
            &[5]
        } else if filter.ends_with("from/2") {
            &[2, 3, 4, 5]
        } else {
            &[3, 4, 5]
        };
        for seq in expected {
            let publish = reader.next_message();
            assert_eq!(*publish.topic, *filter);
            let entry: Value = serde_json::from_slice(&publish.payload).unwrap();
            assert_eq!(entry["seq"], *seq);
        }
    }
}

#[test]
fn receipts_typing_presence_and_changes_come_to_every_kind_of_client() {
    let mut world = World::new();
    let to = format!("chat/to/{}", world.cid);
    for who in EVERYBODY {
        let (reader, other) = ((who + 1) % 3, (who + 2) % 3);
        let seq = world.say(who, &to, "who reads this?", &Seen::default());
        let name = world.people[who].name;
        let mut watcher = Login::new(name)
            .client_id("watcher")
            .connect(world.server.address());
        let cid = world.cid.clone();

        watcher.subscribe(&format!("chat/me/rcpt/{cid}"));
        for index in [reader, other] {
            let topic = format!("chat/c/{cid}/read");
            world.people[index].act(&topic, seq.to_string());
        }
        let told = format!("chat/me/rcpt/{cid}");
        while json_on(&mut watcher, &told)["read_all"] != seq {}
        watcher.unsubscribe(&told);

        let at_qos_0 = |watcher: &mut Client, filter: &str| {
            let granted = watcher.try_subscribe(filter, Qos::AtMostOnce);
            assert_eq!(granted, ReasonCode::Success, "{filter}");
        };
        at_qos_0(&mut watcher, "chat/me/ev/typing/+");
        world.people[reader].act(&format!("chat/c/{cid}/typing"), "rec");
        let event = json_on(&mut watcher, &format!("chat/me/ev/typing/{cid}"));
        assert_eq!(event["typing"], "rec");
        assert_eq!(event["handle"], world.people[reader].name);

        world.people[who].act("chat/me/presence", "dnd In a test");
        let filter = "chat/u/me/presence";
        at_qos_0(&mut watcher, filter);
        let state = json_on(&mut watcher, filter);
        assert_eq!(
            (&state["state"], &state["text"]),
            (&json!("dnd"), &json!("In a test"))
        );

        watcher.subscribe("chat/me/ev/account");
        let changes = json_on(&mut watcher, "chat/me/ev/account");
        let listed = changes["conversations"].as_array().unwrap();
        let ours = listed.iter().find(|one| one["cid"] == cid).unwrap();
        assert_eq!(ours["head"], seq);
    }
}

pub(super) fn json_on(client: &mut Client, topic: &str) -> Value {
    let publish = client.next_on(topic);
    serde_json::from_slice(&publish.payload).unwrap()
}
