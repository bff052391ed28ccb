//! Who may do what: each role and each action, in a group, in a direct conversation and in a support case, with the result
//! that three kinds of clients are told.
//!
//! The tables say what DESIGN and `docs/protocol.md` say, not what the server does: a letter for each role.

use std::sync::atomic::{AtomicU32, Ordering};

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use proto::payload::PROTOBUF;
use proto::schema::{ClientMessage, Message as _};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server, reply_in_protobuf, request_in_protobuf};

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// MQTT 3.1.1: text, and refusals by notice only.
    Old,
    /// MQTT 5 and JSON.
    Json,
    /// MQTT 5 and protobuf.
    Protobuf,
}

impl Kind {
    fn version(self) -> Version {
        match self {
            Self::Old => Version::V311,
            Self::Json | Self::Protobuf => Version::V5,
        }
    }
}

/// What is done. `{cid}`, `{own}` and `{theirs}` stand for the conversation and for two messages in it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A message, in the form of the client, under this topic.
    Write(&'static str),
    /// Exactly this payload under this topic.
    Publish(&'static str, &'static str),
    /// A call.
    Call(&'static str, &'static str),
}

use Deed::{Call, Publish as Put, Write};

/// In which conversation, and two messages there.
struct Ground {
    cid: String,
    own: u64,
    theirs: u64,
}

impl Ground {
    fn fill(&self, text: &str) -> String {
        text.replace("{cid}", &self.cid)
            .replace("{own}", &self.own.to_string())
            .replace("{theirs}", &self.theirs.to_string())
    }
}

/// What letters mean.
fn code(letter: u8) -> &'static str {
    match letter {
        b'o' => "ok",
        b'f' => "forbidden",
        b'n' => "not_found",
        b'c' => "conflict",
        letter => panic!("what is {}?", char::from(letter)),
    }
}

fn reason(code: &str) -> (u64, ReasonCode) {
    match code {
        "ok" => (0, ReasonCode::Success),
        "forbidden" => (0x87, ReasonCode::NotAuthorized),
        "not_found" => (0x90, ReasonCode::TopicNameInvalid),
        other => panic!("no refusal of a publish: {other}"),
    }
}

/// One who acts.
struct Actor {
    kind: Kind,
    client: Client,
}

impl Actor {
    fn connect(kind: Kind, server: &Server, login: Login) -> Self {
        let mut client = login.version(kind.version()).connect(server.address());
        client.subscribe("chat/me/err/+");
        client.subscribe("chat/me/rpc/+");
        Self { kind, client }
    }

    /// Does it, and says what it was told.
    fn does(&mut self, deed: Deed, ground: &Ground) -> String {
        match deed {
            Write(topic) => {
                let (body, properties) = match self.kind {
                    Kind::Old => (b"a word".to_vec(), PublishProperties::default()),
                    Kind::Json => (br#"{"t":"a word"}"#.to_vec(), PublishProperties::default()),
                    Kind::Protobuf => (word().encode_to_vec(), in_protobuf()),
                };
                self.publish(&ground.fill(topic), &body, properties)
            }
            Put(topic, payload) => {
                let none = PublishProperties::default();
                self.publish(&ground.fill(topic), payload.as_bytes(), none)
            }
            Call(method, request) => {
                let request = serde_json::from_str(&ground.fill(request)).unwrap();
                self.call(method, &request)
            }
        }
    }

    fn publish(&mut self, topic: &str, body: &[u8], properties: PublishProperties) -> String {
        let answer = self.client.publish_with(topic, body, properties);
        let Some(notice) = self.client.arrived() else {
            assert_eq!(answer.reason, ReasonCode::Success, "{topic}: {answer:?}");
            return "ok".to_owned();
        };
        let told: Value = serde_json::from_slice(&notice.payload).unwrap();
        let code = told["error"].as_str().unwrap().to_owned();
        let (number, expected) = reason(&code);
        assert_eq!(told["reason"], number, "{topic}: {told}");
        if self.kind != Kind::Old {
            let said = (answer.reason, answer.get("error"));
            assert_eq!(said, (expected, Some(code.as_str())), "{topic}");
        }
        code
    }

    fn call(&mut self, method: &str, request: &Value) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        if self.kind != Kind::Protobuf {
            let called = self.client.call(method, request);
            return called.err().unwrap_or_else(|| "ok".to_owned());
        }
        let topic = format!("chat/me/rpc/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let properties = PublishProperties {
            response_topic: Some(topic.as_str().into()),
            ..in_protobuf()
        };
        let request = request_in_protobuf(method, request);
        let answer = self
            .client
            .publish_with(&format!("chat/rpc/{method}"), request, properties);
        assert_eq!(answer.reason, ReasonCode::Success, "{method}");
        let reply = self.client.next_on(&topic);
        match reply_in_protobuf(&reply.payload) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error["code"].as_str().unwrap().to_owned(),
        }
    }
}

fn word() -> ClientMessage {
    ClientMessage {
        t: "a word".into(),
        ..ClientMessage::default()
    }
}

fn in_protobuf() -> PublishProperties {
    PublishProperties {
        content_type: Some(PROTOBUF.into()),
        ..PublishProperties::default()
    }
}

/// What is done to messages. The columns are those of the table that asks.
const WRITE: Deed = Write("chat/to/{cid}");
const REPLY: Deed = Write("chat/c/{cid}/m/{theirs}/reply");
const THREAD: Deed = Write("chat/c/{cid}/m/{theirs}/thread");
const EDIT_OWN: Deed = Write("chat/c/{cid}/m/{own}/edit");
const EDIT_THEIRS: Deed = Write("chat/c/{cid}/m/{theirs}/edit");
const DELETE_OWN: Deed = Put("chat/c/{cid}/m/{own}/del", "all");
const DELETE_THEIRS: Deed = Put("chat/c/{cid}/m/{theirs}/del", "all");
const HIDE: Deed = Put("chat/c/{cid}/m/{theirs}/del", "me");
const REACT: Deed = Put("chat/c/{cid}/m/{theirs}/react", "+1");
const PIN: Deed = Put("chat/c/{cid}/m/{theirs}/pin", "1");
const REPORT: Deed = Put("chat/c/{cid}/m/{theirs}/report", "rude");
const READ: Deed = Put("chat/c/{cid}/read", "1");
const READ_ALONE: Deed = Put("chat/c/{cid}/read", r#"{"seq":1,"private":true}"#);
const UNREAD: Deed = Put("chat/c/{cid}/unread", "1");
const RECEIVED: Deed = Put("chat/c/{cid}/recv", "1");
const TYPE: Deed = Put("chat/c/{cid}/typing", "1");

const SEND_BY_CALL: Deed = Call("msg.send", r#"{"cid":"{cid}","t":"a word"}"#);
const EDIT_BY_CALL: Deed = Call("msg.edit", r#"{"cid":"{cid}","seq":{own},"t":"a word"}"#);
const DELETE_BY_CALL: Deed = Call(
    "msg.delete",
    r#"{"cid":"{cid}","seq":{theirs},"for":"all"}"#,
);
const HIDE_BY_CALL: Deed = Call("msg.delete", r#"{"cid":"{cid}","seq":{theirs},"for":"me"}"#);
const REACT_BY_CALL: Deed = Call(
    "msg.react",
    r#"{"cid":"{cid}","seq":{theirs},"emoji":"+1"}"#,
);
const PIN_BY_CALL: Deed = Call("msg.pin", r#"{"cid":"{cid}","seq":{theirs},"pinned":true}"#);
const REPORT_BY_CALL: Deed = Call(
    "msg.report",
    r#"{"cid":"{cid}","seq":{theirs},"text":"rude"}"#,
);

const LOOK: Deed = Call("conv.get", r#"{"cid":"{cid}"}"#);
const HISTORY: Deed = Call("msg.history", r#"{"cid":"{cid}"}"#);
const PINS: Deed = Call("msg.pins", r#"{"cid":"{cid}"}"#);
const REACTIONS: Deed = Call("msg.reactions", r#"{"cid":"{cid}","seq":{theirs}}"#);
const MENTIONS: Deed = Call("msg.mentions", r#"{"cid":"{cid}"}"#);
const STATUS_OF_OWN: Deed = Call("msg.status", r#"{"cid":"{cid}","seq":{own}}"#);
const STATUS_OF_THEIRS: Deed = Call("msg.status", r#"{"cid":"{cid}","seq":{theirs}}"#);
const PREFER: Deed = Call("conv.prefs", r#"{"cid":"{cid}","pinned":true}"#);

const ADD: Deed = Call("conv.add", r#"{"cid":"{cid}","members":["@nina"]}"#);
const ADD_ADMIN: Deed = Call(
    "conv.add",
    r#"{"cid":"{cid}","members":["@nina"],"role":"admin"}"#,
);
const REMOVE_MEMBER: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@tom"}"#);
const REMOVE_MODERATOR: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@mona"}"#);
const REMOVE_ADMIN: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@ada"}"#);
const REMOVE_OWNER: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@olga"}"#);
const RAISE_TO_MODERATOR: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@tom","role":"moderator"}"#,
);
const RAISE_TO_ADMIN: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@tom","role":"admin"}"#,
);
const RAISE_TO_OWNER: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@tom","role":"owner"}"#,
);
const LOWER_ADMIN: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@ada","role":"member"}"#,
);
const GIVE_RIGHTS: Deed = Call(
    "conv.rights",
    r#"{"cid":"{cid}","member":"@tom","given":"send"}"#,
);
const TAKE_RIGHTS_OF_ADMIN: Deed = Call(
    "conv.rights",
    r#"{"cid":"{cid}","member":"@ada","given":""}"#,
);
const WANT_LESS: Deed = Call("conv.rights", r#"{"cid":"{cid}","want":"send"}"#);
const TITLE: Deed = Call("conv.settings", r#"{"cid":"{cid}","title":"another"}"#);
const CLOSE: Deed = Call("conv.settings", r#"{"cid":"{cid}","closed":true}"#);
const RETAIN: Deed = Call("conv.settings", r#"{"cid":"{cid}","retention_days":9}"#);
const TRANSFER: Deed = Call("conv.transfer", r#"{"cid":"{cid}","member":"@tom"}"#);
const LEAVE: Deed = Call("conv.leave", r#"{"cid":"{cid}"}"#);
const TRIM: Deed = Call("conv.trim", r#"{"cid":"{cid}","to":1}"#);
const PURGE: Deed = Call("mod.purge_user", r#"{"cid":"{cid}","user":"@tom"}"#);
const INVITE: Deed = Call("conv.invite", r#"{"cid":"{cid}"}"#);
const INVITATIONS: Deed = Call("conv.invitations", r#"{"cid":"{cid}"}"#);
const BAN: Deed = Call("conv.ban", r#"{"cid":"{cid}","member":"@tom"}"#);
const UNBAN: Deed = Call("conv.unban", r#"{"cid":"{cid}","member":"@zed"}"#);
const BANS: Deed = Call("conv.bans", r#"{"cid":"{cid}"}"#);
const REQUESTS: Deed = Call("conv.requests", r#"{"cid":"{cid}"}"#);
const HELD: Deed = Call("mod.held", r#"{"cid":"{cid}"}"#);

const CLAIM: Deed = Call("case.claim", r#"{"cid":"{cid}"}"#);
const HAND_ON: Deed = Call("case.transfer", r#"{"cid":"{cid}","to":"@otto"}"#);
const CLOSE_CASE: Deed = Call("case.close", r#"{"cid":"{cid}"}"#);

/// In a group. A former member sees what there was to see (`msg.history`, own marks, hiding, reporting), and nothing else is
/// there for him; but that he may not write is said to him as to a reader: he knows the group.
const IN_GROUP: [&str; 7] = [
    "owner",
    "admin",
    "moderator",
    "member",
    "reader",
    "former",
    "stranger",
];
const GROUP: [(Deed, &[u8; 7]); 58] = [
    (WRITE, b"ooooffn"),
    (SEND_BY_CALL, b"ooooffn"),
    (REPLY, b"ooooffn"),
    (THREAD, b"ooooffn"),
    (TYPE, b"oooofnn"),
    (EDIT_OWN, b"oooofnn"),
    (EDIT_BY_CALL, b"oooofnn"),
    (EDIT_THEIRS, b"fffffnn"),
    (DELETE_OWN, b"ooooonn"),
    (DELETE_THEIRS, b"oooffnn"),
    (DELETE_BY_CALL, b"oooffnn"),
    (HIDE, b"oooooon"),
    (HIDE_BY_CALL, b"oooooon"),
    (REACT, b"oooofnn"),
    (REACT_BY_CALL, b"oooofnn"),
    (PIN, b"oooffnn"),
    (PIN_BY_CALL, b"oooffnn"),
    (REPORT, b"oooooon"),
    (REPORT_BY_CALL, b"oooooon"),
    (READ, b"oooooon"),
    (READ_ALONE, b"oooooon"),
    (UNREAD, b"oooooon"),
    (RECEIVED, b"oooooon"),
    (LOOK, b"ooooonn"),
    (HISTORY, b"oooooon"),
    (PINS, b"ooooonn"),
    (REACTIONS, b"ooooonn"),
    (MENTIONS, b"ooooonn"),
    (STATUS_OF_OWN, b"ooooonn"),
    (STATUS_OF_THEIRS, b"fffffnn"),
    (PREFER, b"ooooonn"),
    (ADD, b"oofffnn"),
    (ADD_ADMIN, b"offffnn"),
    (REMOVE_MEMBER, b"oofffnn"),
    (REMOVE_MODERATOR, b"oofffnn"),
    (REMOVE_ADMIN, b"offffnn"),
    (REMOVE_OWNER, b"fffffnn"),
    (RAISE_TO_MODERATOR, b"oofffnn"),
    (RAISE_TO_ADMIN, b"offffnn"),
    (RAISE_TO_OWNER, b"offffnn"),
    (LOWER_ADMIN, b"offffnn"),
    (GIVE_RIGHTS, b"oofffnn"),
    (TAKE_RIGHTS_OF_ADMIN, b"offffnn"),
    (WANT_LESS, b"ooooonn"),
    (TITLE, b"oofffnn"),
    (CLOSE, b"offffnn"),
    (RETAIN, b"offffnn"),
    (TRANSFER, b"offffnn"),
    (LEAVE, b"ooooonn"),
    (TRIM, b"oofffnn"),
    (PURGE, b"oooffnn"),
    (INVITE, b"oofffnn"),
    (INVITATIONS, b"oofffnn"),
    (BAN, b"oofffnn"),
    (UNBAN, b"oofffnn"),
    (BANS, b"oofffnn"),
    (REQUESTS, b"oofffnn"),
    (HELD, b"oooffnn"),
];

/// In a direct conversation: of the two, and of anybody else. Both may the same, and nobody is over anybody.
const IN_DIRECT: [&str; 3] = ["tom", "mona", "stranger"];
const DIRECT: [(Deed, &[u8; 3]); 45] = [
    (WRITE, b"oon"),
    (SEND_BY_CALL, b"oon"),
    (REPLY, b"oon"),
    (THREAD, b"oon"),
    (TYPE, b"oon"),
    (EDIT_OWN, b"oon"),
    (EDIT_BY_CALL, b"oon"),
    (EDIT_THEIRS, b"ffn"),
    (DELETE_OWN, b"oon"),
    (DELETE_THEIRS, b"ffn"),
    (DELETE_BY_CALL, b"ffn"),
    (HIDE, b"oon"),
    (REACT, b"oon"),
    (PIN, b"oon"),
    (REPORT, b"oon"),
    (READ, b"oon"),
    (READ_ALONE, b"oon"),
    (UNREAD, b"oon"),
    (RECEIVED, b"oon"),
    (LOOK, b"oon"),
    (HISTORY, b"oon"),
    (PINS, b"oon"),
    (REACTIONS, b"oon"),
    (MENTIONS, b"oon"),
    (STATUS_OF_OWN, b"oon"),
    (STATUS_OF_THEIRS, b"ffn"),
    (PREFER, b"oon"),
    (ADD, b"ffn"),
    (WANT_LESS, b"ffn"),
    (TITLE, b"ffn"),
    (CLOSE, b"ffn"),
    (RETAIN, b"ffn"),
    (LEAVE, b"ffn"),
    (TRIM, b"ffn"),
    (INVITE, b"ffn"),
    (INVITATIONS, b"ffn"),
    (UNBAN, b"ffn"),
    (BANS, b"ffn"),
    (REQUESTS, b"ffn"),
    (HELD, b"ffn"),
    (REMOVE_OTHER, b"ffn"),
    (RAISE_OTHER, b"ffn"),
    (BAN_OTHER, b"ffn"),
    (TRANSFER_TO_OTHER, b"ffn"),
    (PURGE_OTHER, b"ffn"),
];
const REMOVE_OTHER: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@olga"}"#);
const RAISE_OTHER: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@olga","role":"admin"}"#,
);
const BAN_OTHER: Deed = Call("conv.ban", r#"{"cid":"{cid}","member":"@olga"}"#);
const TRANSFER_TO_OTHER: Deed = Call("conv.transfer", r#"{"cid":"{cid}","member":"@olga"}"#);
const PURGE_OTHER: Deed = Call("mod.purge_user", r#"{"cid":"{cid}","user":"@olga"}"#);

/// In a support case that an agent has taken: one who asks and has an account, a visitor who asks, the agent, another one,
/// the head of the desk, one who only reads there, and a stranger. Who has not taken the case does not see it.
const IN_CASE: [&str; 7] = [
    "asker", "visitor", "agent", "other", "head", "looker", "stranger",
];
const CASE: [(Deed, &[u8; 7]); 47] = [
    (WRITE, b"ooonnnn"),
    (SEND_BY_CALL, b"ofonnnn"),
    (REPLY, b"ooonnnn"),
    (THREAD, b"ooonnnn"),
    (TYPE, b"ooonnnn"),
    (EDIT_OWN, b"ooonnnn"),
    (EDIT_BY_CALL, b"ooonnnn"),
    (EDIT_THEIRS, b"fffnnnn"),
    (DELETE_OWN, b"ooonnnn"),
    (DELETE_THEIRS, b"ffonnnn"),
    (HIDE, b"ooonnnn"),
    (REACT, b"ooonnnn"),
    (REACT_BY_CALL, b"ooonnnn"),
    (PIN, b"ffonnnn"),
    (REPORT, b"ofonnnn"),
    (READ, b"ooonnnn"),
    (READ_ALONE, b"ooonnnn"),
    (UNREAD, b"ooonnnn"),
    (RECEIVED, b"ooonnnn"),
    (LOOK, b"ooonnnn"),
    (HISTORY, b"ooonnnn"),
    (PINS, b"ooonnnn"),
    (REACTIONS, b"ooonnnn"),
    (MENTIONS, b"ofonnnn"),
    (STATUS_OF_OWN, b"ooonnnn"),
    (STATUS_OF_THEIRS, b"fffnnnn"),
    (PREFER, b"ooonnnn"),
    (ADD, b"fffnnnn"),
    (REMOVE_AGENT, b"ff-nnnn"),
    (BAN_AGENT, b"ff-nnnn"),
    (RAISE_AGENT, b"fffnnnn"),
    (TITLE, b"fffnnnn"),
    (CLOSE, b"fffnnnn"),
    (RETAIN, b"fffnnnn"),
    (WANT_LESS, b"fffnnnn"),
    (LEAVE, b"fffnnnn"),
    (TRIM, b"fffnnnn"),
    (INVITE, b"fffnnnn"),
    (INVITATIONS, b"fffnnnn"),
    (UNBAN, b"fffnnnn"),
    (BANS, b"fffnnnn"),
    (REQUESTS, b"fffnnnn"),
    (TRANSFER_TO_AGENT, b"fffnnnn"),
    (HELD, b"ffonnnn"),
    (CLAIM, b"nfoccfn"),
    (HAND_ON, b"nfofofn"),
    (CLOSE_CASE, b"ooofofn"),
];
const REMOVE_AGENT: Deed = Call("conv.remove", r#"{"cid":"{cid}","member":"@anna"}"#);
const BAN_AGENT: Deed = Call("conv.ban", r#"{"cid":"{cid}","member":"@anna"}"#);
const RAISE_AGENT: Deed = Call(
    "conv.role",
    r#"{"cid":"{cid}","member":"@anna","role":"admin"}"#,
);
const TRANSFER_TO_AGENT: Deed = Call("conv.transfer", r#"{"cid":"{cid}","member":"@anna"}"#);

fn server() -> Server {
    Server::in_new_directory(|launch: Launch| {
        let unlimited = [
            "MQCHAT_CHAT__USER_INVITATIONS_PER_MIN",
            "MQCHAT_CHAT__USER_VISITORS_PER_MIN",
            "MQCHAT_CHAT__USER_JOINS_PER_MIN",
        ];
        let set = |launch: Launch, name: &&str| launch.variable(name, "0");
        unlimited.iter().fold(launch.dev(), set)
    })
}

fn login(server: &Server, name: &str) -> Client {
    Login::new(name).connect(server.address())
}

fn cid_of(made: &Value) -> String {
    made["cid"].as_str().unwrap().to_owned()
}

fn say(client: &mut Client, cid: &str) -> u64 {
    client.publish(&format!("chat/to/{cid}"), "a word").seq()
}

/// Goes through a table. `ground` makes a conversation for the role in this column, and says who acts; it is used again until
/// something was done there.
fn go<const N: usize>(
    table: &[(Deed, &[u8; N])],
    columns: [&str; N],
    mut ground: impl FnMut(&str) -> (Ground, Actor),
) -> Vec<String> {
    let mut failed = Vec::new();
    for (column, role) in columns.into_iter().enumerate() {
        let mut held = None;
        for (deed, letters) in table {
            if letters[column] == b'-' {
                continue;
            }
            let expected = code(letters[column]);
            let (place, mut actor) = held.take().unwrap_or_else(|| ground(role));
            let told = actor.does(*deed, &place);
            if told != expected {
                failed.push(format!("{role}: {told} instead of {expected} for {deed:?}"));
            }
            if told != "ok" {
                held = Some((place, actor));
            }
        }
    }
    failed
}

fn check(kind: Kind, failed: &[String]) {
    assert!(failed.is_empty(), "{kind:?}:\n{}", failed.join("\n"));
}

fn group(kind: Kind) {
    let server = server();
    for name in ["tom", "mona", "ada", "nina", "zed"]
        .into_iter()
        .chain(IN_GROUP)
    {
        login(&server, name).disconnect();
    }
    let mut olga = login(&server, "olga");
    let mut tom = login(&server, "tom");
    let ground = |role: &str| {
        let request = json!({"members": ["@tom", "@mona", "@ada"],
            "roles": {"@mona": "moderator", "@ada": "admin"}});
        let cid = cid_of(&olga.call("conv.create", &request).unwrap());
        let theirs = say(&mut tom, &cid);
        let actor = Actor::connect(kind, &server, Login::new(role));
        let mut own = theirs;
        let subject = format!("@{role}");
        let mut call = |method: &str, request: Value| {
            olga.call(method, &request).unwrap();
        };
        call("conv.ban", json!({"cid": cid, "member": "@zed"}));
        if role != "stranger" {
            call(
                "conv.add",
                json!({"cid": cid, "members": [subject], "history": "all"}),
            );
            own = say(&mut login(&server, role), &cid);
        }
        match role {
            "former" => call("conv.remove", json!({"cid": cid, "member": subject})),
            "stranger" | "member" => {}
            role => call(
                "conv.role",
                json!({"cid": cid, "member": subject, "role": role}),
            ),
        }
        (Ground { cid, own, theirs }, actor)
    };
    check(kind, &go(&GROUP, IN_GROUP, ground));
}

fn direct(kind: Kind) {
    let server = server();
    for name in ["nina", "zed", "olga"].into_iter().chain(IN_DIRECT) {
        login(&server, name).disconnect();
    }
    let mut olga = login(&server, "olga");
    let ground = |role: &str| {
        // With whom does not matter to a stranger.
        let name = if role == "stranger" { "tom" } else { role };
        let mut own = login(&server, name);
        let first = own.publish("chat/to/@olga", "a word");
        let cid = first.get("cid").unwrap().to_owned();
        let theirs = say(&mut olga, &cid);
        let ground = Ground {
            own: first.seq(),
            theirs,
            cid,
        };
        (ground, Actor::connect(kind, &server, Login::new(role)))
    };
    check(kind, &go(&DIRECT, IN_DIRECT, ground));
}

fn case(kind: Kind) {
    let server = server();
    for name in ["anna", "otto", "nina", "zed"].into_iter().chain(IN_CASE) {
        login(&server, name).disconnect();
    }
    let (mut head, mut anna) = (login(&server, "head"), login(&server, "anna"));
    let ground = |role: &str| {
        let request = json!({"desk": true, "members": ["@anna", "@otto", "@other", "@looker"],
            "roles": {"@looker": "reader"}});
        let desk = cid_of(&head.call("conv.create", &request).unwrap());
        let asks = if role == "visitor" {
            let made = head.call("case.visitor", &json!({"desk": desk})).unwrap();
            let handle = made["handle"].as_str().unwrap();
            Login::new(handle).password(made["token"].as_str().unwrap())
        } else {
            Login::new("asker")
        };
        let mut asking = asks.clone().connect(server.address());
        let opened = asking.call("case.open", &json!({"desk": desk})).unwrap();
        let cid = cid_of(&opened);
        anna.call("case.claim", &json!({"cid": cid})).unwrap();
        let (of_asker, of_agent) = (say(&mut asking, &cid), say(&mut anna, &cid));
        let acts = match role {
            "asker" | "visitor" => asks.clone(),
            "agent" => Login::new("anna"),
            role => Login::new(role),
        };
        let (own, theirs) = match role {
            "asker" | "visitor" => (of_asker, of_agent),
            _ => (of_agent, of_asker),
        };
        (
            Ground { cid, own, theirs },
            Actor::connect(kind, &server, acts),
        )
    };
    check(kind, &go(&CASE, IN_CASE, ground));
}

#[test]
fn each_role_may_what_the_table_of_groups_says_in_3_1_1() {
    group(Kind::Old);
}

#[test]
fn each_role_may_what_the_table_of_groups_says_in_json() {
    group(Kind::Json);
}

#[test]
fn each_role_may_what_the_table_of_groups_says_in_protobuf() {
    group(Kind::Protobuf);
}

#[test]
fn both_may_the_same_in_a_direct_conversation_in_every_form() {
    for kind in [Kind::Old, Kind::Json, Kind::Protobuf] {
        direct(kind);
    }
}

#[test]
fn each_may_what_the_table_of_cases_says_in_every_form() {
    for kind in [Kind::Old, Kind::Json, Kind::Protobuf] {
        case(kind);
    }
}
