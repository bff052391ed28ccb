//! What is made of `proto/mqchat/*.proto`: the Rust types in `src/schema/generated.rs`, and `docs/asyncapi.yaml`, which
//! also has the topics. They have to be made anew when the schema changes:
//!
//! ```text
//! MQCHAT_GENERATE=1 cargo test -p proto --test schema
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[path = "schema/asyncapi.rs"]
mod asyncapi;
#[path = "schema/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use proto::schema;
use proto::topics::{ErrorKey, FilterTopic, Form, LogStart, MessageAction, Names, PublishTopic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a committed file with what it should be, or writes it.
fn compare(path: &str, wanted: &str) {
    let path = crate_file(path);
    if std::env::var_os("MQCHAT_GENERATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(wanted.lines())
        .position(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "{} is not what the schema says, from line {:?}; MQCHAT_GENERATE=1 makes it anew",
        path.display(),
        differs.map(|line| line + 1)
    );
}

#[test]
fn committed_types_are_those_of_the_schema() {
    compare("src/schema/generated.rs", &generate::rust());
}

#[test]
fn asyncapi_document_is_that_of_the_topics_and_the_schema() {
    compare(
        "../docs/asyncapi.yaml",
        &asyncapi::document(&generate::schema()),
    );
}

/// The address under which the document has a topic. A new topic has to be entered here, and below.
fn address_of_publish(topic: &PublishTopic<'_>) -> String {
    match topic {
        PublishTopic::To { mid: None, .. } => "chat/to/{target}".into(),
        PublishTopic::To { mid: Some(_), .. } => "chat/to/{target}/{mid}".into(),
        PublishTopic::Message { action, .. } => {
            format!("chat/c/{{cid}}/m/{{seq}}/{}", action.name())
        }
        PublishTopic::Read { .. } => "chat/c/{cid}/read".into(),
        PublishTopic::Unread { .. } => "chat/c/{cid}/unread".into(),
        PublishTopic::Recv { .. } => "chat/c/{cid}/recv".into(),
        PublishTopic::Typing { .. } => "chat/c/{cid}/typing".into(),
        PublishTopic::Presence => "chat/me/presence".into(),
        PublishTopic::Rpc { req: None, .. } => "chat/rpc/{method}".into(),
        PublishTopic::Rpc { req: Some(_), .. } => "chat/rpc/{method}/{req}".into(),
    }
}

fn address_of_filter(filter: &FilterTopic) -> String {
    match filter {
        FilterTopic::Inbox { form, .. } => format!("chat/me/{}/{{cid}}", form.name()),
        FilterTopic::Receipts(_) => "chat/me/rcpt/{cid}".into(),
        FilterTopic::Account => "chat/me/ev/account".into(),
        FilterTopic::Typing(_) => "chat/me/ev/typing/{cid}".into(),
        FilterTopic::Device => "chat/me/dev".into(),
        FilterTopic::Rpc(_) => "chat/me/rpc/{req}".into(),
        FilterTopic::Errors(Names::All | Names::One(ErrorKey::Mid(_))) => {
            "chat/me/err/{mid}".into()
        }
        FilterTopic::Errors(Names::One(ErrorKey::Packet(_))) => "chat/me/err/@{packet}".into(),
        FilterTopic::Log { start, .. } => match start {
            LogStart::Live => "chat/c/{cid}/log".into(),
            LogStart::From(_) => "chat/c/{cid}/log/from/{seq}".into(),
            LogStart::Last(_) => "chat/c/{cid}/log/last/{n}".into(),
        },
        FilterTopic::Presence(_) => "chat/u/{target}/presence".into(),
    }
}

#[test]
fn asyncapi_document_has_the_topics_of_the_grammar_and_no_others() {
    let example = |address: &str| {
        let filled = asyncapi::PARAMETERS.iter();
        filled.fold(address.to_owned(), |topic, (name, _, example)| {
            topic.replace(&format!("{{{name}}}"), example)
        })
    };
    for channel in asyncapi::CHANNELS {
        let topic = example(channel.address);
        let found = if channel.is_sent {
            PublishTopic::parse(&topic).map(|topic| address_of_publish(&topic))
        } else {
            FilterTopic::parse(&topic).map(|filter| address_of_filter(&filter))
        };
        assert_eq!(found.as_deref(), Ok(channel.address), "{topic}");
    }
    let documented: Vec<_> = asyncapi::CHANNELS
        .iter()
        .map(|channel| channel.address)
        .collect();
    let actions =
        MessageAction::ALL.map(|action| format!("chat/c/{{cid}}/m/{{seq}}/{}", action.name()));
    let inboxes = Form::ALL.map(|form| format!("chat/me/{}/{{cid}}", form.name()));
    for address in actions.iter().chain(&inboxes) {
        assert!(documented.contains(&address.as_str()), "{address}");
    }
    // As many as there are arms above, with each action and form.
    assert_eq!(
        documented.len(),
        9 + MessageAction::ALL.len() + 11 + Form::ALL.len()
    );
}

/// A value for every field of a message, recursively, as JSON.
fn filled(messages: &BTreeMap<String, DescriptorProto>, name: &str, depth: usize) -> Value {
    if name == "History" {
        return json!({"last": 7});
    }
    let mut object = Map::new();
    for (index, field) in messages[name].field.iter().enumerate() {
        let one = match field.r#type() {
            Type::String => json!(format!("{}-{index} ä", field.name())),
            Type::Uint64 => json!(u64::MAX - index as u64),
            Type::Uint32 => json!(u32::MAX),
            Type::Double => json!(0.25),
            Type::Bool => json!(true),
            Type::Bytes => json!("AAH/"),
            Type::Message if is_map(&messages[name], field) => {
                object.insert(field.name().to_owned(), json!({"@bob": "admin"}));
                continue;
            }
            Type::Message => {
                let inner = field.type_name().rsplit('.').next().unwrap();
                assert!(depth < 5, "{name} is endless");
                filled(messages, inner, depth + 1)
            }
            other => panic!("{}: {other:?} has no JSON form yet", field.name()),
        };
        let value = match field.label() {
            Label::Repeated => json!([one.clone(), one]),
            _ => one,
        };
        object.insert(field.name().to_owned(), value);
    }
    Value::Object(object)
}

/// Is it a map? Then its type is nested in its message.
fn is_map(of: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let nested = of.nested_type.iter().map(DescriptorProto::name);
    field.r#type() == Type::Message
        && nested.into_iter().any(|name| {
            field
                .type_name()
                .ends_with(&format!(".{}.{name}", of.name()))
        })
}

/// JSON to the type, to protobuf and back, to JSON.
fn around<T: Message + Default + PartialEq + Serialize + DeserializeOwned>(
    filled: &Value,
) -> Value {
    let read: T = serde_json::from_value(filled.clone()).unwrap();
    let bytes = read.encode_to_vec();
    let again = T::decode(&*bytes).unwrap();
    assert!(again == read, "{filled}");
    serde_json::to_value(&again).unwrap()
}

macro_rules! around_each {
    ($messages:expr, $($name:ident)*) => {{
        let messages = $messages;
        $(
            let name = stringify!($name);
            let value = filled(messages, name, 0);
            assert_eq!(around::<schema::$name>(&value), value, "{name}");
        )*
        [$(stringify!($name)),*]
    }};
}

#[test]
fn every_field_has_one_name_and_one_value_in_json_and_in_protobuf() {
    let messages: BTreeMap<String, DescriptorProto> = generate::schema()
        .file
        .into_iter()
        .flat_map(|file| file.message_type)
        .map(|message| (message.name().to_owned(), message))
        .collect();
    let walked = around_each!(&messages,
        ClientMessage Media Location Contact Poll LogEntry User Member Change History Edited Reaction Gap Receipts
        WatermarkMove SenderCount AccountEvent ChangedConversation TypingEvent PresenceEvent DeviceEvent Error RpcError
        ConvCreate ConvGet ConvList ConvAdd ConvRemove ConvLeave ConvRole ConvSettings ConvPrefs MsgHistory MsgStatus
        SyncChanges MsgSend MsgEdit MsgDelete MsgReact MsgPin MsgReport MsgPins MsgReactions Pins Pin ReactionsPage
        UserReactions MsgMentions MentionsPage PeopleAdd PeopleRemove PeopleList PeopleBlock PeopleUnblock PeopleBlocks
        ConvTransfer ConvRights ConvBan ConvUnban ConvBans ConvInvite ConvInvitations ConvRevoke ConvPeek ConvJoin
        ConvRequests ConvApprove ConvRefuse ConvWithdraw BanList Ban Invitation InvitationList Glimpse Joined
        JoinRequestList JoinRequest
        MsgScheduled MsgReschedule MsgUnschedule ScheduledPage ScheduledMessage Unscheduled
        CaseOpen CaseQueue CaseClaim CaseTransfer CaseClose CaseVisitor CaseStanding CaseList ListedCase Visitor
        Acquaintance Acquaintances MeGet MeSet MePrivacy Privacy Audience Changed Conversation ConversationList
         HistoryPage MessageStatus MemberStatus Me MeHandle MeDevices MeRevoke MeDelete PeopleGet SearchUsers Person Users
         Devices Device Done ConvReaders ReaderList SearchConversations FoundConversations FoundConversation
         DevList DeviceIds DevSend
         ConvTrim ModPurgeUser Purged MeExport ExportPage MeErase Erased ModHeld HeldPage HeldMessage ModDecide
         ModReports ReportList ListedReport ModSettle
    );
    let named = messages.keys().map(String::as_str);
    let missing: Vec<_> = named
        .filter(|name| !walked.contains(name) && !generate::ONLY_PROTOBUF.contains(name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn what_later_members_may_see_is_a_word_or_a_number() {
    for (json, seen, last) in [
        (json!("all"), "all", 0),
        (json!("joined"), "joined", 0),
        (json!({"last": 100}), "last", 100),
    ] {
        let history: schema::History = serde_json::from_value(json.clone()).unwrap();
        assert_eq!((history.seen.as_str(), history.last), (seen, last));
        assert_eq!(serde_json::to_value(&history).unwrap(), json);
    }
}
