//! Entries as they come over the wire, in the words of [`super::rules::Conversation::shown`].

use broker::codec::packet::Publish;
use proto::schema::{LogEntry, Message};
use serde_json::{Value, json};

/// An entry in JSON. Left out is what nobody can foresee: times, ids that the server chose, the bytes of a body.
pub(super) fn of_json(entry: &Value) -> Value {
    let mut shown = json!({
        "seq": entry["seq"],
        "mseq": entry["mseq"],
        "from": entry["from"]["handle"],
        "kind": entry["kind"],
    });
    for name in ["reply_to", "target", "thread", "reason", "data", "pinned"] {
        if !entry[name].is_null() {
            shown[name] = entry[name].clone();
        }
    }
    let text = entry.get("t").or_else(|| entry["m"].get("t"));
    if let Some(text) = text {
        shown["text"] = text.clone();
        shown["format"] = entry["format"].clone();
    }
    if let Some(edited) = entry["edited"].get("seq") {
        shown["edited"] = edited.clone();
    }
    if let Some(reactions) = entry["reactions"].as_array() {
        let reaction = |reaction: &Value| {
            json!({
                "emoji": reaction["emoji"],
                "count": reaction["count"],
                "mine": reaction["mine"] == true,
            })
        };
        shown["reactions"] = reactions.iter().map(reaction).collect();
    }
    shown
}

/// An entry in protobuf.
pub(super) fn of_protobuf(message: &Publish) -> Value {
    let entry = LogEntry::decode(&*message.payload).unwrap();
    let entry = LogEntry {
        json: String::new(),
        ..entry
    };
    of_json(&serde_json::to_value(&entry).unwrap())
}

/// As it is delivered: shared by all receivers, so that nobody's own reactions are marked; and what protobuf does not
/// write is not there.
pub(super) fn delivered(mut shown: Value) -> Value {
    if let Some(reactions) = shown["reactions"].as_array_mut() {
        for reaction in reactions {
            reaction["mine"] = json!(false);
        }
    }
    if let Some(fields) = shown.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    without_defaults(&mut shown);
    shown
}

/// Leaves out what protobuf leaves out: fields with their default value.
fn without_defaults(value: &mut Value) {
    let is_default =
        |value: &Value| [json!(0), json!(""), json!(false), json!([]), json!(null)].contains(value);
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !is_default(field));
            fields.values_mut().for_each(without_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_defaults),
        _ => {}
    }
}
