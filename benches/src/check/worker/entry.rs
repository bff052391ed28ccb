//! What came, as it is recorded: entries of mqchat in JSON, messages of ordinary topics.

use std::collections::BTreeMap;

use broker::codec::packet::Publish;
use serde_json::Value;

use crate::check::history::{Seen, State};

/// A `LogEntry` in JSON.
pub(super) fn of_json(entry: &Value, users: &BTreeMap<String, String>) -> Seen {
    let text = |value: &Value, name: &str| {
        let found = value.get(name).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let place = |value: &Value, name: &str| number(value, name);
    let gap = entry.get("gap").filter(|gap| gap.is_object());
    let body = entry
        .get("m")
        .filter(|body| body.is_object())
        .unwrap_or(entry);
    let kind = text(entry, "kind");
    Seen {
        to: text(entry, "cid"),
        seq: gap.map_or_else(|| place(entry, "seq"), |gap| place(gap, "to")),
        first: gap.map_or(0, |gap| place(gap, "from")),
        about: if COMINGS.contains(&kind.as_str()) {
            about(entry.get("data").unwrap_or(&Value::Null), users)
        } else {
            Vec::new()
        },
        kind,
        from: entry
            .get("from")
            .map(|from| text(from, "handle"))
            .unwrap_or_default(),
        id: text(entry, "mid"),
        text: text(body, "t"),
        ts: place(entry, "ts"),
    }
}

/// Handles of those who come or go.
fn about(data: &Value, users: &BTreeMap<String, String>) -> Vec<String> {
    let members = data.get("members").and_then(Value::as_array);
    let uids = members
        .into_iter()
        .flatten()
        .filter_map(|member| member.get("uid"));
    let uids = uids.chain(data.get("uid")).filter_map(Value::as_str);
    let handle = |uid: &str| users.get(uid).map_or(uid, String::as_str).to_owned();
    uids.map(handle).collect()
}

/// A message of an ordinary topic: its id is the first word.
pub(super) fn of_publish(publish: &Publish) -> Seen {
    let text = String::from_utf8_lossy(&publish.payload).into_owned();
    Seen {
        to: publish.topic.to_string(),
        kind: "message".to_owned(),
        id: text.split(' ').next().unwrap_or_default().to_owned(),
        text,
        ..Seen::default()
    }
}

/// A conversation in a result.
pub(super) fn state(conversation: &Value) -> State {
    State {
        head: number(conversation, "head"),
        mseq: number(conversation, "mseq"),
        read: number(conversation, "read"),
        private_read: number(conversation, "private_read"),
        delivered: number(conversation, "delivered"),
        unread: number(conversation, "unread"),
    }
}

/// 0 if it is not there.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Kinds of entries with which somebody comes or goes.
const COMINGS: [&str; 6] = ["created", "added", "joined", "removed", "left", "banned"];
