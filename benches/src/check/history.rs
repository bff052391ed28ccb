//! What a worker did and was told, one JSON object a line (`docs/checker.md`).
//!
//! A line is written in one piece before anything follows from it, so that a kill leaves whole lines, and perhaps a torn one at
//! the end, which counts as not written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::BenchError;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Monotonic clock of the machine in microseconds.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A life of the worker begins.
    Began { user: String, kind: Kind },
    /// CONNACK. With `present` the server has the session of before.
    Connected { present: bool },
    /// The session has its subscriptions, for these conversations or topics: from here on nothing may pass it by.
    Ready { to: Vec<String> },
    /// A connection is over.
    Lost { why: String },
    /// A message goes out, not for the first time perhaps.
    Send {
        id: String,
        to: String,
        text: String,
        qos: u8,
        packet_id: u16,
    },
    /// The SDK has it in its outbox.
    Queued {
        id: String,
        to: String,
        text: String,
    },
    /// PUBACK or PUBREC with success, or the SDK tells that it is stored.
    Acked {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        #[serde(default, skip_serializing_if = "is_false")]
        dup: bool,
    },
    /// PUBCOMP.
    Completed { id: String },
    /// Settled, and not stored.
    Refused { id: String, reason: String },
    /// A delivery is safe here. `packet_id` of one at QoS 2.
    Got {
        #[serde(flatten)]
        seen: Seen,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        packet_id: Option<u16>,
    },
    /// PUBREL came: the packet identifier of a delivery at QoS 2 is free.
    Released { packet_id: u16 },
    /// The SDK handed these to the app, which is at this position then.
    Shown { position: u64, entries: Vec<Seen> },
    /// A read mark goes out.
    Mark { to: String, seq: u64, private: bool },
    /// And was acknowledged.
    Marked { to: String, seq: u64, private: bool },
    /// What the server says of a conversation, asked at that time.
    State {
        to: String,
        asked: u64,
        #[serde(flatten)]
        state: State,
    },
    /// How far another user has got and read, as the server tells it.
    Receipt {
        to: String,
        user: String,
        delivered: u64,
        read: u64,
    },
    /// A call that changes something goes out.
    Called { id: String, method: String },
    /// Its reply, with the place of its entry.
    Answered { id: String, to: String, seq: u64 },
    /// Everything that was sent is settled: nothing more is sent.
    Quiet,
    /// The log of a conversation as this user sees it, when all are quiet.
    Log {
        to: String,
        head: u64,
        entries: Vec<Seen>,
    },
    /// The worker has seen all that it was to see.
    Ended,
    /// Of the nemesis. With `crash` the server lost what it had in memory.
    Fault { fault: String, crash: bool },
    /// The server listens.
    Up,
    /// The server did not start.
    Down { why: String },
    /// The server is well and this worker does not come to an end.
    Stuck { user: String },
}

/// What kind of client a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A client of mqchat on plain MQTT.
    Chat,
    /// An app on the SDK.
    Sdk,
    /// A client of ordinary topics.
    Plain,
    /// No client: who breaks things.
    Nemesis,
}

/// A message or entry as somebody was shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Conversation, or topic.
    pub(crate) to: String,
    /// Its place; 0 in plain topics. Of a gap the last one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) seq: u64,
    /// Of a gap the first one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) first: u64,
    /// `message`, `added` …
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) from: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) ts: u64,
    /// Users who come or go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) about: Vec<String>,
}

impl Seen {
    /// The first place that it stands for.
    pub(crate) const fn begin(&self) -> u64 {
        if self.first == 0 {
            self.seq
        } else {
            self.first
        }
    }

    /// It counts as a message.
    pub(crate) fn is_message(&self) -> bool {
        self.kind == "message"
    }
}

/// `conv.get`, as far as it is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) head: u64,
    pub(crate) mseq: u64,
    pub(crate) read: u64,
    pub(crate) private_read: u64,
    pub(crate) delivered: u64,
    pub(crate) unread: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The history of one worker, over all of its lives.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) records: Vec<Record>,
}

impl History {
    /// Reads one; a torn line at its end is passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).unwrap_or_default().lines();
        let records = lines.enumerate().map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| BenchError::History {
                place: format!("{}:{}", path.display(), number + 1),
                error,
            })
        });
        Ok(Self {
            name: name_of(path),
            records: records.collect::<Result<_, _>>()?,
        })
    }

    /// Reads all of a folder, by name.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>, BenchError> {
        let listed = fs::read_dir(folder).map_err(|error| failed(folder, error))?;
        let mut paths = Vec::new();
        for entry in listed {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

/// Where a worker writes.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Goes on where the last life ended, without what was torn then; gives what it wrote.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<(Self, Vec<Record>), BenchError> {
        let path = path(folder, name);
        let before = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(&path, error)),
        };
        let opened = File::options().create(true).append(true).open(&path);
        let file = opened.map_err(|error| failed(&path, error))?;
        let whole = before.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end as u64 + 1);
        file.set_len(whole).map_err(|error| failed(&path, error))?;
        let records = History::read(&path)?.records;
        Ok((Self { path, file }, records))
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, event: Event) -> Result<(), BenchError> {
        self.write_all([event])
    }

    /// Writes several lines at once.
    pub(crate) fn write_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<(), BenchError> {
        let at = clock::monotonic_micros();
        let mut text = Vec::new();
        for event in events {
            let line = serde_json::to_writer(&mut text, &Record { at, event });
            line.map_err(|error| BenchError::History {
                place: self.path.display().to_string(),
                error,
            })?;
            text.push(b'\n');
        }
        let written = self.file.write_all(&text);
        written.map_err(|error| failed(&self.path, error))
    }
}

/// The history of this name.
pub(crate) fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension(ENDING)
}

/// Messages of a worker that are not settled yet, from what it wrote: number of the first new one, and those.
pub(crate) fn unsettled(records: &[Record]) -> (u64, BTreeMap<String, Event>) {
    let (mut next, mut open) = (0, BTreeMap::new());
    for Record { event, .. } in records {
        match event {
            Event::Send { id, .. } | Event::Queued { id, .. } => {
                let number = id.rsplit('-').next().and_then(|last| last.parse().ok());
                next = number.map_or(next, |number: u64| next.max(number + 1));
                open.insert(id.clone(), event.clone());
            }
            Event::Acked { id, .. } | Event::Refused { id, .. } => {
                open.remove(id);
            }
            _ => {}
        }
    }
    (next, open)
}

fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn failed(path: &Path, error: io::Error) -> BenchError {
    BenchError::File {
        path: path.display().to_string(),
        error,
    }
}

const ENDING: &str = "jsonl";
/// Ids that begin so are of messages that were there before any history.
pub(crate) const SETUP: &str = "setup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_not_written_and_the_next_life_goes_on_behind_the_last_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, before) = Journal::open(folder.path(), "w").unwrap();
        assert_eq!(before, []);
        journal.write(Event::Quiet).unwrap();
        let path = path(folder.path(), "w");
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"at\":1,\"event\":\"qui");
        fs::write(&path, text).unwrap();
        assert_eq!(History::read(&path).unwrap().records.len(), 1);
        let (mut journal, before) = Journal::open(folder.path(), "w").unwrap();
        assert_eq!(before.len(), 1);
        journal.write(Event::Ended).unwrap();
        let all = History::read_all(folder.path()).unwrap();
        let events: Vec<_> = all[0].records.iter().map(|one| &one.event).collect();
        assert_eq!(events, [&Event::Quiet, &Event::Ended]);
        assert_eq!(all[0].name, "w");
    }

    #[test]
    fn every_event_reads_as_it_was_written() {
        let seen = Seen {
            to: "g.1".to_owned(),
            seq: 3,
            kind: "message".to_owned(),
            ..Seen::default()
        };
        let events = [
            Event::Got {
                seen: seen.clone(),
                packet_id: Some(2),
            },
            Event::Shown {
                position: 4,
                entries: vec![seen],
            },
            Event::State {
                to: "g.1".to_owned(),
                asked: 1,
                state: State::default(),
            },
        ];
        for event in events {
            let record = Record { at: 5, event };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(
                serde_json::from_str::<Record>(&text).unwrap(),
                record,
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_no_answer_is_open() {
        let send = |id: &str| Event::Send {
            id: id.to_owned(),
            to: "g.1".to_owned(),
            text: "x".to_owned(),
            qos: 1,
            packet_id: 1,
        };
        let acked = Event::Acked {
            id: "w-0".to_owned(),
            seq: None,
            dup: false,
        };
        let events = [send("w-0"), send("w-1"), acked];
        let records: Vec<_> = events.map(|event| Record { at: 0, event }).into();
        let (next, open) = unsettled(&records);
        assert_eq!(next, 2);
        assert_eq!(open.keys().collect::<Vec<_>>(), ["w-1"]);
    }
}
