//! The connections that act: a step becomes a publish or a call, and what comes back an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;
use proto::payload::{PROTOBUF, PROTOBUF_MARK};
use proto::schema::{ClientMessage, Message};
use serde_json::{Value, json};

use super::rules::{Kind as Conversations, NAMES, Role, User, World};
use super::step::{Client as Kind, History, How, Step, To, Way, What};
use crate::harness::{Client, Login, with_mid};

/// What a connection was told.
#[derive(Debug)]
pub(super) enum Heard {
    Placed {
        seq: u64,
        dup: bool,
        cid: Option<String>,
    },
    Done,
    /// MQTT 3.1.1: not refused; there is no more to say on PUBACK.
    Acked,
    Refused(String),
}

/// The marks that a receipt told: (delivered, read) by user.
pub(super) type Told = BTreeMap<String, (u64, u64)>;

/// The acting connection of one user: a guest without an inbox.
pub(super) struct Actor {
    user: User,
    kind: Kind,
    pub(super) client: Client,
    /// The latest receipts by conversation.
    pub(super) receipts: BTreeMap<String, Told>,
}

impl Actor {
    pub(super) fn connect(user: User, address: SocketAddr) -> Self {
        let kind = Kind::of(user);
        let version = match kind {
            Kind::Text => Version::V311,
            Kind::Json | Kind::Protobuf => Version::V5,
        };
        let login = Login::new(NAMES[user]).version(version).client_id("actor");
        let mut client = login.connect(address);
        for filter in ["chat/me/err/+", "chat/me/rpc/+", "chat/me/rcpt/+"] {
            client.subscribe(filter);
        }
        Self {
            user,
            kind,
            client,
            receipts: BTreeMap::new(),
        }
    }

    /// Does a step and says what came back.
    pub(super) fn act(&mut self, step: &Step, world: &World) -> Heard {
        let words = Words { step, world };
        match step.way {
            Way::Topic => self.publish(&words),
            Way::Call => self.call(&words),
        }
    }

    fn publish(&mut self, words: &Words<'_>) -> Heard {
        let (mut topic, payload) = words.topic();
        let mut properties = PublishProperties::default();
        match (&words.step.id, self.kind) {
            (Some(id), Kind::Text) => topic = format!("{topic}/{id}"),
            (Some(id), _) => properties = with_mid(id),
            (None, _) => {}
        }
        let payload = match payload {
            Payload::Plain(text) => text.into_bytes(),
            Payload::Body(text) => match self.kind {
                Kind::Text => text.into_bytes(),
                Kind::Json => json!({"t": text}).to_string().into_bytes(),
                Kind::Protobuf => {
                    let body = ClientMessage {
                        t: text,
                        ..ClientMessage::default()
                    };
                    // By one or the other sign that it is protobuf.
                    if self.user == NAMES.len() - 1 {
                        properties.content_type = Some(PROTOBUF.into());
                        body.encode_to_vec()
                    } else {
                        [&[PROTOBUF_MARK], &*body.encode_to_vec()].concat()
                    }
                }
            },
        };
        let answer = self.client.publish_with(&topic, payload, properties);
        let refusal = self.sort_inbox();
        match (self.kind, refusal) {
            (_, Some(refusal)) => {
                if answer.reason.is_error() {
                    assert_eq!(answer.get("error"), Some(refusal.as_str()));
                }
                Heard::Refused(refusal)
            }
            (Kind::Text, None) => Heard::Acked,
            (_, None) => {
                assert_eq!(
                    answer.reason,
                    ReasonCode::Success,
                    "without a notice of it: {answer:?}"
                );
                match answer.get("seq") {
                    Some(seq) => Heard::Placed {
                        seq: seq.parse().unwrap(),
                        dup: answer.is_duplicate(),
                        cid: answer.get("cid").map(str::to_owned),
                    },
                    None => Heard::Done,
                }
            }
        }
    }

    /// Takes what has come: receipts, and the name of a refusal, if there is one.
    pub(super) fn sort_inbox(&mut self) -> Option<String> {
        let mut refusal = None;
        while let Some(message) = self.client.arrived() {
            let told: Value = serde_json::from_slice(&message.payload).unwrap();
            if message.topic.starts_with("chat/me/rcpt/") {
                let cid = told["cid"].as_str().unwrap().to_owned();
                let moves = self.receipts.entry(cid).or_default();
                moves.extend(told["moves"].as_array().unwrap().iter().map(moved));
            } else {
                assert!(message.topic.starts_with("chat/me/err/"), "{message:?}");
                let name = told["error"].as_str().unwrap().to_owned();
                assert_eq!(refusal.replace(name), None, "two refusals at once");
            }
        }
        refusal
    }

    fn call(&mut self, words: &Words<'_>) -> Heard {
        let (method, request) = words.call();
        let answer = match &words.step.id {
            Some(id) => self.client.call_as(id, method, &request),
            None => self.client.call(method, &request),
        };
        match answer {
            Err(code) => Heard::Refused(code),
            Ok(done) if words.step.what.makes_conversation() => Heard::Placed {
                seq: 1,
                dup: false,
                cid: Some(done["cid"].as_str().unwrap().to_owned()),
            },
            Ok(done) => match done["seq"].as_u64() {
                Some(seq) => Heard::Placed {
                    seq,
                    dup: done["dup"] == true,
                    cid: done["cid"].as_str().map(str::to_owned),
                },
                None => Heard::Done,
            },
        }
    }
}

/// One member of the `moves` of a receipt.
pub(super) fn moved(one: &Value) -> (String, (u64, u64)) {
    let user = one["u"].as_str().unwrap().to_owned();
    (
        user,
        (one["d"].as_u64().unwrap(), one["r"].as_u64().unwrap()),
    )
}

/// What is published.
enum Payload {
    /// A body, in the form of the client.
    Body(String),
    /// As it is.
    Plain(String),
}

/// A step in the words of the protocol.
struct Words<'a> {
    step: &'a Step,
    world: &'a World,
}

impl Words<'_> {
    fn cid(&self) -> &str {
        let place = self.step.what.place().unwrap();
        &self.world.conversations[place].cid
    }

    /// Users are named by handle or by id, whichever.
    fn user(&self, user: User) -> String {
        if (self.step.by + user).is_multiple_of(2) {
            format!("@{}", NAMES[user])
        } else {
            format!("u.{}", self.world.uids[user])
        }
    }

    fn target(&self, to: To) -> String {
        match to {
            To::Conversation(place) => self.world.conversations[place].cid.clone(),
            To::User(user) if user == self.step.by => "me".to_owned(),
            To::User(user) => self.user(user),
        }
    }

    fn topic(&self) -> (String, Payload) {
        let on = |seq: u64, action: &str| format!("chat/c/{}/m/{seq}/{action}", self.cid());
        let of = |action: &str| format!("chat/c/{}/{action}", self.cid());
        let plain = |text: &str| Payload::Plain(text.to_owned());
        let one_or_zero = |flag: bool| plain(if flag { "1" } else { "0" });
        match &self.step.what {
            What::Send { to, how, text } => {
                let topic = match how {
                    How::Plain => format!("chat/to/{}", self.target(*to)),
                    How::Reply(seq) => on(*seq, "reply"),
                    How::Thread(seq) => on(*seq, "thread"),
                };
                (topic, Payload::Body(text.clone()))
            }
            What::Edit { seq, text, .. } => (on(*seq, "edit"), Payload::Body(text.clone())),
            What::Delete { seq, .. } => (on(*seq, "del"), plain("all")),
            What::Hide { seq, .. } => (on(*seq, "del"), plain("me")),
            What::React {
                seq, emoji, add, ..
            } => {
                let sign = if *add { "" } else { "-" };
                let payload = emoji.as_ref().map(|emoji| format!("{sign}{emoji}"));
                (on(*seq, "react"), plain(&payload.unwrap_or_default()))
            }
            What::Pin {
                seq, on: pinned, ..
            } => (on(*seq, "pin"), one_or_zero(*pinned)),
            What::Report { seq, .. } => (on(*seq, "report"), plain("rude")),
            What::Read { seq, private, .. } => {
                let payload = match (seq, private) {
                    (Some(seq), false) => seq.to_string(),
                    (None, false) => String::new(),
                    (seq, true) => with(json!({"private": true}), &json!({"seq": seq})).to_string(),
                };
                (of("read"), plain(&payload))
            }
            What::Unread { flag, .. } => (of("unread"), one_or_zero(*flag)),
            What::Received { seq, .. } => (of("recv"), plain(&seq.to_string())),
            what => unreachable!("by call only: {what:?}"),
        }
    }

    fn call(&self) -> (&'static str, Value) {
        let on = |seq: u64| json!({"cid": self.cid(), "seq": seq});
        match &self.step.what {
            What::Send { to, how, text } => {
                let mut request = json!({"cid": self.target(*to), "t": text});
                match how {
                    How::Plain => {}
                    How::Reply(seq) => request["reply_to"] = json!(seq),
                    How::Thread(seq) => request["thread"] = json!(seq),
                }
                ("msg.send", request)
            }
            What::Edit { seq, text, .. } => ("msg.edit", with(on(*seq), &json!({"t": text}))),
            What::Delete { seq, .. } => ("msg.delete", with(on(*seq), &json!({"for": "all"}))),
            What::Hide { seq, .. } => ("msg.delete", with(on(*seq), &json!({"for": "me"}))),
            What::React {
                seq, emoji, add, ..
            } => {
                let asked = match emoji {
                    Some(emoji) if *add => json!({"emoji": emoji}),
                    Some(emoji) => json!({"emoji": emoji, "op": "remove"}),
                    None => json!({"op": "clear"}),
                };
                ("msg.react", with(on(*seq), &asked))
            }
            What::Pin {
                seq, on: pinned, ..
            } => ("msg.pin", with(on(*seq), &json!({"pinned": pinned}))),
            What::Report { seq, .. } => ("msg.report", with(on(*seq), &json!({"text": "rude"}))),
            _ => self.call_of_conversation(),
        }
    }

    fn call_of_conversation(&self) -> (&'static str, Value) {
        match &self.step.what {
            What::Prefer {
                muted,
                archived,
                on_top,
                watch,
                ..
            } => {
                let muted = muted.map(|muted| if muted { u64::MAX } else { 0 });
                let asked = json!({"muted_until": muted, "archived": archived, "pinned": on_top,
                    "watch": watch});
                ("conv.prefs", self.of(&asked))
            }
            What::Block { user, on } => {
                let method = if *on {
                    "people.block"
                } else {
                    "people.unblock"
                };
                (method, json!({"user": self.user(*user)}))
            }
            What::Create {
                kind,
                desk,
                public,
                title,
                history,
                members,
            } => {
                let users: Vec<String> = members.iter().map(|(user, _)| self.user(*user)).collect();
                let role = |(user, role): &(User, Role)| (self.user(*user), json!(role.name()));
                let roles: serde_json::Map<String, Value> = members.iter().map(role).collect();
                let history = (*kind != Conversations::Broadcast).then(|| history.in_json());
                let asked = json!({
                    "history": history,
                    "desk": desk.then_some(true),
                    "public": public.then_some(true),
                });
                let request = json!({
                    "kind": kind.name(),
                    "title": title,
                    "members": users,
                    "roles": roles,
                });
                ("conv.create", with(request, &asked))
            }
            What::Add { users, role, .. } => {
                let users: Vec<String> = users.iter().map(|user| self.user(*user)).collect();
                let asked = json!({"members": users, "role": role.name()});
                ("conv.add", self.of(&asked))
            }
            What::Remove { user, .. } => {
                let asked = json!({"member": self.user(*user)});
                ("conv.remove", self.of(&asked))
            }
            What::Transfer { user, .. } => {
                let asked = json!({"member": self.user(*user)});
                ("conv.transfer", self.of(&asked))
            }
            What::Ban { user, .. } => {
                let asked = json!({"member": self.user(*user)});
                ("conv.ban", self.of(&asked))
            }
            What::Unban { user, .. } => {
                let asked = json!({"member": self.user(*user)});
                ("conv.unban", self.of(&asked))
            }
            What::Leave { heir, .. } => {
                let asked = json!({"owner": heir.map(|heir| self.user(heir))});
                ("conv.leave", self.of(&asked))
            }
            What::Role { user, role, .. } => {
                let asked = json!({"member": self.user(*user), "role": role.name()});
                ("conv.role", self.of(&asked))
            }
            What::Settings { title, history, .. } => {
                let history = history.map(History::in_json);
                (
                    "conv.settings",
                    self.of(&json!({"title": title, "history": history})),
                )
            }
            What::Join { .. } => ("conv.join", self.of(&json!({}))),
            what => self.call_of_case(what),
        }
    }

    fn call_of_case(&self, what: &What) -> (&'static str, Value) {
        match what {
            What::OpenCase { desk } => {
                let desk = &self.world.conversations[*desk].cid;
                ("case.open", json!({"desk": desk, "title": "a case"}))
            }
            What::Claim { .. } => ("case.claim", self.of(&json!({}))),
            What::HandOn { to, .. } => {
                let asked = json!({"to": to.map(|to| self.user(to))});
                ("case.transfer", self.of(&asked))
            }
            What::CloseCase { .. } => ("case.close", self.of(&json!({}))),
            What::Approve { from, id, .. } => {
                let asked = json!({"from": self.user(*from), "mid": id});
                ("mod.approve", self.of(&asked))
            }
            What::Reject { from, id, .. } => {
                let asked = json!({"from": self.user(*from), "mid": id});
                ("mod.reject", self.of(&asked))
            }
            what => self.call_about_time(what),
        }
    }

    fn call_about_time(&self, what: &What) -> (&'static str, Value) {
        match what {
            What::Schedule { to, text, id } => {
                let at = self.world.far_ms;
                let cid = self.target(*to);
                (
                    "msg.send",
                    json!({"cid": cid, "t": text, "mid": id, "at": at}),
                )
            }
            What::Reschedule { id, text } => ("msg.reschedule", json!({"mid": id, "t": text})),
            What::SendNow { id } => ("msg.reschedule", json!({"mid": id, "at": 1})),
            What::Cancel { id } => ("msg.unschedule", json!({"mid": id})),
            what => unreachable!("by topic only: {what:?}"),
        }
    }

    /// About this conversation; what is not asked for is not said.
    fn of(&self, asked: &Value) -> Value {
        with(json!({"cid": self.cid()}), asked)
    }
}

fn with(mut request: Value, asked: &Value) -> Value {
    for (name, value) in asked.as_object().unwrap() {
        if !value.is_null() {
            request[name] = value.clone();
        }
    }
    request
}
