//! What came of a request, and how the command line shows it.

use std::fmt;

use chat_plugin::domain::device::Device;
use chat_plugin::domain::user::{Token, User};
use proto::ids::{ConversationId, DeviceId, Seq, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ids::IdWeek;
use super::table::{Table, harmless};
use crate::time::Utc;

/// What came of a request.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    /// A page of users; `next` is the last one that was looked at, if there may be more.
    Users {
        users: Vec<ListedUser>,
        next: Option<UserId>,
    },
    Token {
        id: String,
        text: String,
    },
    Tokens(Vec<ListedToken>),
    Devices(Vec<ListedDevice>),
    Clients {
        clients: Vec<ClientLine>,
        next: Option<(String, String)>,
    },
    Sessions {
        sessions: Vec<SessionLine>,
        next: Option<(String, String)>,
    },
    Retained {
        messages: Vec<RetainedLine>,
        next: Option<String>,
    },
    /// So many retained messages.
    Cleared(usize),
    /// Lines of JSON.
    Exported {
        lines: Vec<String>,
        next: Option<String>,
    },
    /// A part of the message ids by which repeated messages are known.
    Ids {
        weeks: Vec<IdWeek>,
        next: Option<Vec<u8>>,
    },
    /// So many of weeks before this one are gone.
    IdsDropped {
        before: u16,
        rows: u64,
    },
    /// A page of reports.
    Reports {
        reports: Vec<ReportLine>,
        next: Option<String>,
    },
    /// One report, and the message as it is now.
    Report {
        report: ReportLine,
        message: Option<String>,
    },
    /// What a page of an erasure came to.
    Erased {
        conversations: u64,
        messages: u64,
        reactions: u64,
        reports: usize,
        next: Option<String>,
    },
    /// Lines of the audit log; `next` are the last ones that were looked at, if there may be more.
    Audit {
        lines: Vec<AuditedLine>,
        next: Option<(u64, u64)>,
    },
    /// Whether nothing that is gone is left in the files.
    Reclaimed(bool),
    /// Those that were not imported: the numbers of their lines, and why.
    Imported {
        refused: Vec<(usize, String)>,
    },
    Refused(String),
}

/// A line of `user list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedUser {
    uid: UserId,
    handle: String,
    name: String,
    password: bool,
}

/// A line of `token list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedToken {
    id: String,
    created_ms: u64,
    label: String,
}

/// A line of `device list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedDevice {
    id: DeviceId,
    first_seen_ms: u64,
    last_seen_ms: u64,
    client_id: String,
}

/// A line of `report list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReportLine {
    pub(super) id: String,
    pub(super) by: String,
    pub(super) cid: ConversationId,
    pub(super) seq: Seq,
    pub(super) ts_ms: u64,
    /// By the moderators of the conversation.
    pub(super) settled: bool,
    pub(super) text: String,
}

/// A line of `audit list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct AuditedLine {
    pub(super) id: String,
    pub(super) ts_ms: u64,
    pub(super) by: String,
    pub(super) uid: Option<UserId>,
    pub(super) device: Option<DeviceId>,
    pub(super) from: String,
    pub(super) action: String,
    pub(super) cid: Option<ConversationId>,
    pub(super) about: Option<String>,
    pub(super) about_uid: Option<UserId>,
    pub(super) outcome: String,
    pub(super) detail: Map<String, Value>,
}

/// A line of `client list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ClientLine {
    pub(super) user: String,
    pub(super) uid: String,
    pub(super) client_id: String,
    pub(super) address: String,
    pub(super) version: String,
    pub(super) connected_ms: u64,
    pub(super) keep_alive_s: u64,
    pub(super) subscriptions: usize,
    pub(super) queue_messages: usize,
    pub(super) queue_bytes: usize,
    pub(super) dropped: u64,
    pub(super) inflight: usize,
    pub(super) blocked_ms: Option<u64>,
}

/// A line of `session list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionLine {
    pub(super) user: String,
    pub(super) uid: String,
    pub(super) client_id: String,
    pub(super) connected: bool,
    pub(super) expires_in_s: Option<u64>,
    pub(super) subscriptions: usize,
    pub(super) queue_messages: usize,
    pub(super) queue_bytes: usize,
    pub(super) dropped: u64,
}

/// A line of `retained list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RetainedLine {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) payload_bytes: usize,
    pub(super) expires_in_s: Option<u64>,
}

impl Reply {
    /// Lists as JSON, an object on each line; anything else as for people.
    ///
    /// # Errors
    /// It cannot be told as JSON.
    pub(crate) fn as_json(&self) -> serde_json::Result<String> {
        match self {
            Self::Clients { clients, .. } => json_lines(clients),
            Self::Sessions { sessions, .. } => json_lines(sessions),
            Self::Retained { messages, .. } => json_lines(messages),
            Self::Reports { reports, .. } => json_lines(reports),
            Self::Ids { weeks, .. } => json_lines(weeks),
            Self::Audit { lines, .. } => json_lines(lines),
            other => Ok(other.to_string()),
        }
    }

    /// A page of at most `limit` users: those who were not removed.
    pub(super) fn users(page: Vec<User>, limit: usize) -> Self {
        let next = page.last().map(|user| user.id);
        let next = next.filter(|_| page.len() >= limit);
        let present = page.into_iter().filter(|user| user.removed_ms.is_none());
        let listed = present.map(|user| ListedUser {
            uid: user.id,
            handle: user.handle.to_string(),
            name: user.name,
            password: user.password_hash.is_some(),
        });
        Self::Users {
            users: listed.collect(),
            next,
        }
    }

    pub(super) fn devices(devices: Vec<Device>) -> Self {
        let listed = devices.into_iter().map(|device| ListedDevice {
            id: device.id,
            first_seen_ms: device.first_seen_ms,
            last_seen_ms: device.last_seen_ms,
            client_id: device.client_id,
        });
        Self::Devices(listed.collect())
    }

    pub(super) fn tokens(tokens: Vec<Token>) -> Self {
        let listed = tokens.into_iter().map(|token| ListedToken {
            id: token.id,
            created_ms: token.created_ms,
            label: token.label,
        });
        Self::Tokens(listed.collect())
    }
}

fn json_lines<T: Serialize>(lines: &[T]) -> serde_json::Result<String> {
    let lines = lines.iter().map(serde_json::to_string);
    lines.map(|line| line.map(|line| line + "\n")).collect()
}

fn clients(clients: &[ClientLine]) -> Table<10> {
    let line = |client: &ClientLine| {
        [
            client.user.clone(),
            harmless(&client.client_id),
            client.address.clone(),
            client.version.clone(),
            Utc(client.connected_ms).to_string(),
            format!("{} s", client.keep_alive_s),
            client.subscriptions.to_string(),
            client.inflight.to_string(),
            queue(client.queue_messages, client.dropped),
            client
                .blocked_ms
                .map_or_else(String::new, |ms| format!("{} s", ms / 1_000)),
        ]
    };
    Table {
        head: [
            "USER",
            "CLIENT ID",
            "ADDRESS",
            "MQTT",
            "SINCE",
            "KEEP ALIVE",
            "SUBS",
            "IN FLIGHT",
            "QUEUED",
            "BLOCKED",
        ],
        lines: clients.iter().map(line).collect(),
    }
}

fn sessions(sessions: &[SessionLine]) -> Table<5> {
    let line = |session: &SessionLine| {
        [
            session.user.clone(),
            harmless(&session.client_id),
            match session.expires_in_s {
                _ if session.connected => "connected".to_owned(),
                Some(seconds) => format!("away, ends in {seconds} s"),
                None => "away".to_owned(),
            },
            session.subscriptions.to_string(),
            queue(session.queue_messages, session.dropped),
        ]
    };
    Table {
        head: ["USER", "CLIENT ID", "STATE", "SUBS", "QUEUED"],
        lines: sessions.iter().map(line).collect(),
    }
}

fn retained(messages: &[RetainedLine]) -> Table<4> {
    let line = |message: &RetainedLine| {
        [
            harmless(&message.topic),
            message.qos.to_string(),
            message.payload_bytes.to_string(),
            message
                .expires_in_s
                .map_or_else(String::new, |seconds| format!("in {seconds} s")),
        ]
    };
    Table {
        head: ["TOPIC", "QOS", "BYTES", "ENDS"],
        lines: messages.iter().map(line).collect(),
    }
}

fn ids(weeks: &[IdWeek]) -> Table<4> {
    let line = |week: &IdWeek| {
        [
            week.week.to_string(),
            if week.present { "yes" } else { "no" }.to_owned(),
            week.rows.to_string(),
            week.bytes.to_string(),
        ]
    };
    Table {
        head: ["WEEK", "PRESENT", "ROWS", "BYTES"],
        lines: weeks.iter().map(line).collect(),
    }
}

fn reports(reports: &[ReportLine]) -> Table<7> {
    let line = |report: &ReportLine| {
        let text: String = report.text.chars().take(60).collect();
        [
            report.id.clone(),
            Utc(report.ts_ms).to_string(),
            report.by.clone(),
            report.cid.to_string(),
            report.seq.to_string(),
            if report.settled { "yes" } else { "no" }.to_owned(),
            harmless(&text),
        ]
    };
    Table {
        head: ["ID", "TIME", "BY", "CONVERSATION", "SEQ", "SETTLED", "TEXT"],
        lines: reports.iter().map(line).collect(),
    }
}

fn audit(lines: &[AuditedLine]) -> Table<8> {
    let line = |line: &AuditedLine| {
        let about = line.about.clone().unwrap_or_default();
        let cid = line.cid.map_or_else(String::new, |cid| cid.to_string());
        let details = line.detail.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name}={}", harmless(text)),
            other => format!("{name}={other}"),
        });
        let details: Vec<_> = details.collect();
        [
            line.id.clone(),
            Utc(line.ts_ms).to_string(),
            line.by.clone(),
            harmless(&line.from),
            line.action.clone(),
            [about, cid].join(" ").trim().to_owned(),
            line.outcome.clone(),
            details.join(" "),
        ]
    };
    Table {
        head: [
            "LINE", "TIME", "BY", "FROM", "ACTION", "ABOUT", "OUTCOME", "DETAILS",
        ],
        lines: lines.iter().map(line).collect(),
    }
}

fn queue(messages: usize, dropped: u64) -> String {
    match dropped {
        0 => messages.to_string(),
        dropped => format!("{messages} ({dropped} dropped)"),
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => Ok(()),
            Self::Refused(why) => f.write_str(why),
            Self::Token { text, .. } => f.write_str(text),
            Self::Imported { refused } => refused
                .iter()
                .try_for_each(|(line, why)| writeln!(f, "line {line}: {why}")),
            Self::Exported { lines, .. } => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
            Self::Erased {
                conversations,
                messages,
                reactions,
                reports,
                ..
            } => write!(
                f,
                "{messages} messages in {conversations} conversations, {reactions} reactions and the words of {reports} reports are gone"
            ),
            Self::Reclaimed(true) => f.write_str("nothing that is gone is left in the files"),
            Self::Reclaimed(false) => f.write_str(
                "the files still hold what is gone: stop the server and run `mqchat store compact`",
            ),
            Self::Ids { weeks, .. } => ids(weeks).fmt(f),
            Self::IdsDropped { before, rows } => {
                write!(
                    f,
                    "{rows} message ids of the weeks before {before} are gone"
                )
            }
            Self::Reports { reports: list, .. } => reports(list).fmt(f),
            Self::Report { report, message } => {
                let ReportLine {
                    id, by, cid, seq, ..
                } = report;
                let text = harmless(&report.text);
                writeln!(f, "{id}\nabout {cid} {seq}, by {by}: {text}")?;
                match message {
                    Some(message) => write!(f, "{}", harmless(message)),
                    None => f.write_str("the message is gone"),
                }
            }
            Self::Audit { lines, .. } => audit(lines).fmt(f),
            Self::Cleared(count) => write!(f, "{count} retained messages cleared"),
            Self::Clients { clients: list, .. } => clients(list).fmt(f),
            Self::Sessions { sessions: list, .. } => sessions(list).fmt(f),
            Self::Retained { messages, .. } => retained(messages).fmt(f),
            Self::Users { users, .. } => users.iter().try_for_each(|user| {
                let login = if user.password {
                    "password"
                } else {
                    "tokens only"
                };
                writeln!(f, "{}\t{}\t{}\t{}", user.handle, user.uid, login, user.name)
            }),
            Self::Devices(devices) => devices.iter().try_for_each(|device| {
                let [first, last] = [device.first_seen_ms, device.last_seen_ms].map(Utc);
                let client_id = harmless(&device.client_id);
                writeln!(f, "{}\t{first}\t{last}\t{client_id}", device.id)
            }),
            Self::Tokens(tokens) => tokens.iter().try_for_each(|token| {
                let created = Utc(token.created_ms);
                writeln!(f, "{}\t{created}\t{}", token.id, token.label)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_user_is_not_listed_but_looked_at() {
        let user = |number: u8, removed_ms| User {
            id: UserId::from_bytes([number; 16]),
            handle: "alice".parse().unwrap(),
            name: String::new(),
            password_hash: None,
            scram: None,
            created_ms: 0,
            removed_ms,
        };
        let page = Reply::users(vec![user(1, None), user(2, Some(7))], 2);
        assert_eq!(page.to_string().lines().count(), 1);
        let after = |page: &Reply| match page {
            Reply::Users { next, .. } => *next,
            _ => None,
        };
        assert_eq!(after(&page), Some(UserId::from_bytes([2; 16])));
        let last = Reply::users(vec![user(1, None), user(2, Some(7))], 3);
        assert_eq!(after(&last), None);
    }
}
