//! Makes `docs/asyncapi.yaml`: the topics from [`CHANNELS`], the messages from the schema.

use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use self::Yaml::{List, Map, Number, Text};

/// One topic.
#[derive(Clone, Copy)]
pub(crate) struct Channel {
    name: &'static str,
    pub(crate) address: &'static str,
    /// From the client to the server.
    pub(crate) is_sent: bool,
    summary: &'static str,
    messages: &'static [&'static str],
}

const fn sent(
    (name, address): (&'static str, &'static str),
    summary: &'static str,
    messages: &'static [&'static str],
) -> Channel {
    Channel {
        name,
        address,
        is_sent: true,
        summary,
        messages,
    }
}

const fn received(
    (name, address): (&'static str, &'static str),
    summary: &'static str,
    messages: &'static [&'static str],
) -> Channel {
    Channel {
        is_sent: false,
        ..sent((name, address), summary, messages)
    }
}

const BODY: &[&str] = &["BodyText", "BodyJson", "BodyProtobuf"];
const WORD: &[&str] = &["Word"];
const NUMBER: &[&str] = &["Place"];
const ENTRY: &[&str] = &["EntryJson"];
const CALL: &[&str] = &["RequestJson", "RequestProtobuf"];

/// Every topic of chat, as `docs/protocol.md` tells of it.
pub(crate) const CHANNELS: &[Channel] = &[
    sent(("to", "chat/to/{target}"), "Send a message.", BODY),
    sent(
        ("toWithMid", "chat/to/{target}/{mid}"),
        "Send a message with the message id in the topic.",
        BODY,
    ),
    sent(
        ("reply", "chat/c/{cid}/m/{seq}/reply"),
        "Quote a message.",
        BODY,
    ),
    sent(
        ("thread", "chat/c/{cid}/m/{seq}/thread"),
        "Write in the thread of a message.",
        BODY,
    ),
    sent(
        ("edit", "chat/c/{cid}/m/{seq}/edit"),
        "Edit one's own message.",
        BODY,
    ),
    sent(
        ("delete", "chat/c/{cid}/m/{seq}/del"),
        "Delete for everybody (`all`), or hide for oneself (`me`).",
        WORD,
    ),
    sent(
        ("react", "chat/c/{cid}/m/{seq}/react"),
        "Add a reaction, or take it back (`-` before it); empty takes back all.",
        WORD,
    ),
    sent(
        ("pin", "chat/c/{cid}/m/{seq}/pin"),
        "Pin (`1`) or unpin (`0`).",
        WORD,
    ),
    sent(
        ("report", "chat/c/{cid}/m/{seq}/report"),
        "Report abuse.",
        WORD,
    ),
    sent(
        ("read", "chat/c/{cid}/read"),
        "I have read everything up to here; empty: all that this device was delivered.",
        &["Place", "ReadMark"],
    ),
    sent(
        ("unread", "chat/c/{cid}/unread"),
        "Show it as unread (`1`), or no longer (`0`).",
        WORD,
    ),
    sent(
        ("recv", "chat/c/{cid}/recv"),
        "This device has everything up to here.",
        NUMBER,
    ),
    sent(
        ("typing", "chat/c/{cid}/typing"),
        "Typing (`1`), recording (`rec`), no more (`0`).",
        WORD,
    ),
    sent(
        ("presence", "chat/me/presence"),
        "`online`, `away`, `dnd` or `invisible`, then optional text.",
        WORD,
    ),
    sent(
        ("call", "chat/rpc/{method}"),
        "Call a method; the reply goes to the Response Topic (MQTT 5).",
        CALL,
    ),
    sent(
        ("callWithId", "chat/rpc/{method}/{req}"),
        "Call a method; the reply comes on `chat/me/rpc/{req}`.",
        CALL,
    ),
    received(
        ("inboxJson", "chat/me/in/{cid}"),
        "Entries of my conversations in JSON; `+` for all.",
        ENTRY,
    ),
    received(
        ("inboxText", "chat/me/txt/{cid}"),
        "Messages as lines of text; `+` for all.",
        &["Line"],
    ),
    received(
        ("inboxProtobuf", "chat/me/pb/{cid}"),
        "Entries of my conversations in protobuf; `+` for all.",
        &["EntryProtobuf"],
    ),
    received(
        ("receipts", "chat/me/rcpt/{cid}"),
        "How far the others have got with what I sent; `+` for all.",
        &["Receipts"],
    ),
    received(
        ("account", "chat/me/ev/account"),
        "Changes of the list of conversations.",
        &["AccountEvent"],
    ),
    received(
        ("typingEvents", "chat/me/ev/typing/{cid}"),
        "Who is typing; `+` for all.",
        &["TypingEvent"],
    ),
    received(
        ("device", "chat/me/dev"),
        "The private queue of this device; in protobuf for who reads protobuf only.",
        &["DeviceEvent", "DeviceEventProtobuf"],
    ),
    received(
        ("replyToCall", "chat/me/rpc/{req}"),
        "Replies to calls of this connection; `+` for all.",
        &["ReplyJson", "ReplyProtobuf"],
    ),
    received(
        ("refusalOfMessage", "chat/me/err/{mid}"),
        "Refusals of publishes of this connection that have a message id; `+` for all.",
        &["Error"],
    ),
    received(
        ("refusalOfPacket", "chat/me/err/@{packet}"),
        "Refusals of publishes without a message id.",
        &["Error"],
    ),
    received(
        ("log", "chat/c/{cid}/log"),
        "Entries of one conversation from now on.",
        ENTRY,
    ),
    received(
        ("logFrom", "chat/c/{cid}/log/from/{seq}"),
        "Entries of one conversation from this one on.",
        ENTRY,
    ),
    received(
        ("logLast", "chat/c/{cid}/log/last/{n}"),
        "Entries of one conversation, beginning with the newest `n`.",
        ENTRY,
    ),
    received(
        ("presenceOf", "chat/u/{target}/presence"),
        "How somebody is, now and when it changes.",
        &["PresenceEvent"],
    ),
];

/// What may stand in a topic, with an example.
pub(crate) const PARAMETERS: &[(&str, &str, &str)] = &[
    ("target", "`@handle`, `u.{uid}`, `{cid}` or `me`.", "@alice"),
    (
        "cid",
        "The id of a conversation.",
        "g.01arz3ndektsv4rrffq69g5fav",
    ),
    ("seq", "The place of an entry.", "17"),
    (
        "mid",
        "1 to 64 characters of A-Z, a-z, 0-9 and . _ ~ : -",
        "my-id-1",
    ),
    (
        "req",
        "1 to 64 characters of A-Z, a-z, 0-9 and . _ ~ : -",
        "req-1",
    ),
    ("method", "The name of a method.", "conv.create"),
    ("packet", "A Packet Identifier; 0 for QoS 0.", "7"),
    ("n", "How many.", "50"),
];

/// The messages: name, Content Type, schema (of the schema if it begins with a capital, else a type of JSON), and what it
/// is.
const MESSAGES: &[(&str, &str, &str, &str)] = &[
    ("BodyText", TEXT, "string", "A message as text."),
    ("BodyJson", JSON, "ClientMessage", "A message in JSON."),
    (
        "BodyProtobuf",
        PROTOBUF,
        "ClientMessage",
        "A message in protobuf; without a Content Type the byte 0xC1 goes before it.",
    ),
    ("Word", TEXT, "string", "A word."),
    (
        "Place",
        TEXT,
        "string",
        "The place of an entry, in decimal digits.",
    ),
    (
        "ReadMark",
        JSON,
        "object",
        "`seq` and `private`, both optional.",
    ),
    ("EntryJson", JSON, "LogEntry", "An entry in JSON."),
    (
        "EntryProtobuf",
        PROTOBUF,
        "LogEntry",
        "An entry in protobuf.",
    ),
    ("Line", TEXT, "string", "`bob: hello`, escaped."),
    ("Receipts", JSON, "Receipts", "How far the others have got."),
    (
        "AccountEvent",
        JSON,
        "AccountEvent",
        "Changes of the chat list.",
    ),
    ("TypingEvent", JSON, "TypingEvent", "Who is typing."),
    ("PresenceEvent", JSON, "PresenceEvent", "How somebody is."),
    (
        "DeviceEvent",
        JSON,
        "DeviceEvent",
        "One piece of the queue of this device.",
    ),
    (
        "DeviceEventProtobuf",
        PROTOBUF,
        "DeviceEvent",
        "The same in protobuf.",
    ),
    (
        "RequestJson",
        JSON,
        "object",
        "The parameters of the method: a schema named after it, as ConvCreate for `conv.create`.",
    ),
    (
        "RequestProtobuf",
        PROTOBUF,
        "RpcRequest",
        "A request in protobuf; without a Content Type the byte 0xC1 goes before it.",
    ),
    (
        "ReplyJson",
        JSON,
        "object",
        "`ok` with the result of the method, or `error` with an RpcError.",
    ),
    (
        "ReplyProtobuf",
        PROTOBUF,
        "RpcReply",
        "A reply in protobuf.",
    ),
    ("Error", JSON, "Error", "A refusal."),
];

const TEXT: &str = proto::payload::TEXT;
const JSON: &str = proto::payload::JSON;
const PROTOBUF: &str = proto::payload::PROTOBUF;

const ABOUT: &str = "A durable chat between stock MQTT clients. Seen from a client: it sends what is under `send` and \
receives what is under `receive`. Rules, results and limits are in protocol.md; the schema is in proto/mqchat. This file \
is made of the topic grammar and the schema: MQCHAT_GENERATE=1 cargo test -p proto --test schema.";

/// The whole document.
pub(crate) fn document(schema: &FileDescriptorSet) -> String {
    let info = map([
        ("title", text("mqchat")),
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("description", text(ABOUT)),
    ]);
    let server = map([
        ("host", text("localhost:1883")),
        ("protocol", text("mqtt")),
        (
            "description",
            text("MQTT 3.1.1 and 5.0; User Name is the handle."),
        ),
    ]);
    let components = map([
        ("messages", Map(MESSAGES.iter().map(message).collect())),
        (
            "schemas",
            Map(schema.file.iter().flat_map(schemas).collect()),
        ),
    ]);
    let document = map([
        ("asyncapi", text("3.0.0")),
        ("info", info),
        ("defaultContentType", text(JSON)),
        ("servers", map([("mqchat", server)])),
        ("channels", Map(CHANNELS.iter().map(channel).collect())),
        ("operations", Map(CHANNELS.iter().map(operation).collect())),
        ("components", components),
    ]);
    let mut out = String::new();
    document.write(&mut out, 0);
    out.trim_start().to_owned()
}

fn channel(channel: &Channel) -> (String, Yaml) {
    let mut fields = vec![
        ("address".to_owned(), text(channel.address)),
        ("summary".to_owned(), text(channel.summary)),
    ];
    let named = |name: &str| channel.address.contains(&format!("{{{name}}}"));
    let parameters: Vec<_> = PARAMETERS
        .iter()
        .filter(|(name, ..)| named(name))
        .map(|(name, description, example)| {
            let parameter = map([
                ("description", text(description)),
                ("examples", List(vec![text(example)])),
            ]);
            ((*name).to_owned(), parameter)
        })
        .collect();
    if !parameters.is_empty() {
        fields.push(("parameters".to_owned(), Map(parameters)));
    }
    let messages = channel.messages.iter().map(|name| {
        let reference = reference(&format!("#/components/messages/{name}"));
        ((*name).to_owned(), reference)
    });
    fields.push(("messages".to_owned(), Map(messages.collect())));
    (channel.name.to_owned(), Map(fields))
}

fn operation(channel: &Channel) -> (String, Yaml) {
    let operation = map([
        (
            "action",
            text(if channel.is_sent { "send" } else { "receive" }),
        ),
        (
            "channel",
            reference(&format!("#/channels/{}", channel.name)),
        ),
        ("summary", text(channel.summary)),
    ]);
    (channel.name.to_owned(), operation)
}

fn message(&(name, content_type, schema, summary): &(&str, &str, &str, &str)) -> (String, Yaml) {
    let payload = if schema.starts_with(char::is_uppercase) {
        reference(&format!("#/components/schemas/{schema}"))
    } else {
        map([("type", text(schema))])
    };
    let message = map([
        ("contentType", text(content_type)),
        ("summary", text(summary)),
        ("payload", payload),
    ]);
    (name.to_owned(), message)
}

fn schemas(file: &FileDescriptorProto) -> Vec<(String, Yaml)> {
    let messages = (0..).zip(&file.message_type);
    let schema = |(index, message): (i32, &DescriptorProto)| {
        let properties = (0..).zip(&message.field).map(|(place, field)| {
            let described = comment(file, &[4, index, 2, place]);
            (
                field.name().to_owned(),
                property(message, field, &described),
            )
        });
        let properties: Vec<_> = properties.collect();
        let mut fields = vec![
            ("description".to_owned(), text(&comment(file, &[4, index]))),
            ("type".to_owned(), text("object")),
        ];
        if !properties.is_empty() {
            fields.push(("properties".to_owned(), Map(properties)));
        }
        (message.name().to_owned(), Map(fields))
    };
    messages.map(schema).collect()
}

fn property(of: &DescriptorProto, field: &FieldDescriptorProto, described: &str) -> Yaml {
    let kind = match field.r#type() {
        Type::String => vec![("type", text("string"))],
        Type::Uint64 => whole_number("uint64"),
        Type::Uint32 => whole_number("uint32"),
        Type::Double => vec![("type", text("number"))],
        Type::Bool => vec![("type", text("boolean"))],
        Type::Bytes => vec![
            ("type", text("string")),
            ("contentEncoding", text("base64")),
        ],
        Type::Message if super::is_map(of, field) => {
            let strings = map([("type", text("string"))]);
            return map([
                ("description", text(described)),
                ("type", text("object")),
                ("additionalProperties", strings),
            ]);
        }
        Type::Message if field.type_name().ends_with(".History") => {
            let last = map([("last", Map(owned(whole_number("uint32"))))]);
            let words = map([("enum", List(vec![text("all"), text("joined")]))]);
            let number = map([("type", text("object")), ("properties", last)]);
            vec![("oneOf", List(vec![words, number]))]
        }
        Type::Message => {
            let name = field.type_name().rsplit('.').next().unwrap();
            let target = text(&format!("#/components/schemas/{name}"));
            vec![("$ref", target)]
        }
        other => panic!("{}: {other:?} has no JSON form yet", field.name()),
    };
    let mut fields = owned(vec![("description", text(described))]);
    if field.label() == Label::Repeated {
        fields.extend(owned(vec![
            ("type", text("array")),
            ("items", Map(owned(kind))),
        ]));
    } else {
        // Beside a reference nothing else counts.
        let is_reference = kind.iter().any(|(name, _)| *name == "$ref");
        let kind = Map(owned(kind));
        match kind {
            Map(kind) if !is_reference => fields.extend(kind),
            kind => fields.push(("allOf".to_owned(), List(vec![kind]))),
        }
    }
    Map(fields)
}

fn whole_number(format: &str) -> Vec<(&'static str, Yaml)> {
    vec![
        ("type", text("integer")),
        ("format", text(format)),
        ("minimum", Number(0)),
    ]
}

/// What the schema says of something, in one line.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = &file.source_code_info.as_ref().unwrap().location;
    let location = locations.iter().find(|location| location.path == path);
    let comment = location.map(Location::leading_comments).unwrap_or_default();
    let words: Vec<_> = comment.split_whitespace().collect();
    assert!(
        !words.is_empty(),
        "{}: {path:?} is not described",
        file.name()
    );
    words.join(" ")
}

/// As much of YAML as is needed.
enum Yaml {
    Text(String),
    Number(u32),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

fn text(text: &str) -> Yaml {
    Text(text.to_owned())
}

fn map<const N: usize>(fields: [(&str, Yaml); N]) -> Yaml {
    Map(owned(fields.into()))
}

fn owned(fields: Vec<(&str, Yaml)>) -> Vec<(String, Yaml)> {
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn reference(target: &str) -> Yaml {
    map([("$ref", text(target))])
}

impl Yaml {
    /// Writes what stands behind `key:` or `-`, with its line end.
    fn write(&self, out: &mut String, indent: usize) {
        match self {
            // A text of JSON is one of YAML.
            Text(text) => writeln!(out, " {}", serde_json::to_string(text).unwrap()).unwrap(),
            Number(number) => writeln!(out, " {number}").unwrap(),
            List(items) => {
                out.push('\n');
                for item in items {
                    write!(out, "{:indent$}-", "").unwrap();
                    match item {
                        // Its first field stands behind the dash.
                        Map(fields) => write_fields(fields, out, indent + 2, " "),
                        other => other.write(out, indent + 2),
                    }
                }
            }
            Map(fields) => {
                out.push('\n');
                let first = format!("{:indent$}", "");
                write_fields(fields, out, indent, &first);
            }
        }
    }
}

fn write_fields(fields: &[(String, Yaml)], out: &mut String, indent: usize, first: &str) {
    let other = format!("{:indent$}", "");
    for (index, (name, value)) in fields.iter().enumerate() {
        let before = if index == 0 { first } else { &other };
        write!(out, "{before}{name}:").unwrap();
        value.write(out, indent + 2);
    }
}
