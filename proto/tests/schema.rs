//! What is made of `proto/mqchat/*.proto`: the Rust types in `src/schema/generated.rs`. It has to be made anew when the
//! schema changes:
//!
//! ```text
//! MQCHAT_GENERATE=1 cargo test -p proto --test schema
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[path = "schema/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};
use proto::schema;
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
            Type::Message if field.type_name().ends_with("Entry") && is_map(field) => {
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

fn is_map(field: &FieldDescriptorProto) -> bool {
    field.name() == "roles"
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
        ClientMessage Media Location Contact Poll
        LogEntry User Member Change History Edited Reaction Gap
        Receipts WatermarkMove SenderCount AccountEvent ChangedConversation TypingEvent PresenceEvent DeviceEvent Error
        RpcError ConvCreate ConvGet ConvList ConvAdd ConvRemove ConvLeave ConvRole ConvSettings MsgHistory MsgStatus
        MeGet MeSet Changed Conversation ConversationList HistoryPage MessageStatus MemberStatus Me
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
