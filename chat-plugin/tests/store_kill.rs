//! Acknowledged entries survive SIGKILL: a child process appends and tells what was acknowledged, until it is killed.
//!
//! With `MQCHAT_POWERCUT=<library>` (built from `server/tests/powercut/powercut.c`), each kill is a power cut instead.

#![cfg(any(feature = "fjall", feature = "sled"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, helpers included"
)]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use chat_plugin::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Mentioned, Outcome};
use chat_plugin::domain::member::Role;
use chat_plugin::store::{ChatStore, EngineKind, PageRange, StoreOptions, open};
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId, digest16};

const ROUNDS: usize = 6;
const SENDERS: u8 = 4;
const ENGINE: &str = "MQCHAT_TEST_ENGINE";
const DIRECTORY: &str = "MQCHAT_TEST_DIRECTORY";
const POWERCUT: &str = "MQCHAT_POWERCUT";
const ROUND: &str = "MQCHAT_TEST_ROUND";

fn options(engine: &str, directory: &Path) -> StoreOptions {
    StoreOptions {
        engine: match engine {
            "sled" => EngineKind::Sled,
            _ => EngineKind::Fjall,
        },
        directory: directory.to_owned(),
        memory_bytes: 32 * 1024 * 1024,
        ..StoreOptions::default()
    }
}

fn group() -> ConversationId {
    ConversationId::from_parts(ConversationKind::Group, [1; 16])
}

fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn message(from: u8, mid: &str) -> Draft {
    Draft {
        conversation: group(),
        basis: Basis::Create,
        from: user(from),
        peer: None,
        device: DeviceId::from_bytes([from; 16]),
        mid: mid.parse().unwrap(),
        digest: digest16(&[mid.as_bytes()]),
        ts_ms: 1,
        kind: EntryKind::Message,
        format: BodyFormat::Text,
        opaque: false,
        body: Bytes::from(mid.repeat(20)),
        target: None,
        thread: None,
        expires_ms: None,
        mentions: Mentioned::default(),
        source: None,
        scheduled: None,
        was_held: false,
        act: None,
        slow_ms: 0,
        exchange: None,
        changes: (1..=SENDERS)
            .map(|number| Change::Join {
                user: user(number),
                role: Role::Member,
                history_from: None,
            })
            .collect(),
        audit: None,
    }
}

/// What the child does: it sends until it is killed, and says what was acknowledged, line by line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process that is killed: every other test of this file runs it, as `--exact child --ignored`"]
async fn child() {
    let Ok(engine) = std::env::var(ENGINE) else {
        return;
    };
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let round = std::env::var(ROUND).unwrap();
    let store = open(&options(&engine, Path::new(&directory))).unwrap();
    let senders: Vec<_> = (1..=SENDERS)
        .map(|sender| send_for_ever(Arc::clone(&store), sender, round.clone()))
        .collect();
    futures_util::future::join_all(senders).await;
}

async fn send_for_ever(store: Arc<dyn ChatStore>, sender: u8, round: String) {
    for number in 0u64.. {
        let mid = format!("r{round}-{sender}-{number}");
        let outcomes = store.append(vec![message(sender, &mid)]).await.unwrap();
        let Outcome::Stored { seq, .. } = outcomes[0] else {
            panic!("{outcomes:?}");
        };
        let line = format!("\nACK {sender} {mid} {seq}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// Lets a child send until so many lines have come, kills it, and adds all of its lines.
fn kill_one(
    engine: &str,
    directory: &Path,
    round: usize,
    acknowledged: &mut BTreeMap<u64, (u8, String)>,
) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if let Some(emulator) = std::env::var_os(POWERCUT) {
        let shadow = directory.with_extension("shadow");
        std::fs::create_dir_all(directory).unwrap();
        std::fs::create_dir(&shadow).unwrap();
        command
            .env("LD_PRELOAD", emulator)
            .env("POWERCUT_ROOT", directory)
            .env("POWERCUT_SHADOW", shadow);
    }
    let mut child = command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(ENGINE, engine)
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let enough = 37 + 211 * round;
    let mut seen = 0;
    while let Some(Ok(line)) = lines.next() {
        let Some(rest) = line.strip_prefix("ACK ") else {
            continue;
        };
        let parts: Vec<_> = rest.split(' ').collect();
        let [sender, mid, seq] = parts[..] else {
            continue; // the last line may be torn
        };
        let (Ok(sender), Ok(seq)) = (sender.parse(), seq.parse()) else {
            continue;
        };
        let before = acknowledged.insert(seq, (sender, mid.to_owned()));
        assert_eq!(before, None, "place {seq} was given twice");
        seen += 1;
        if seen == enough {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    if std::env::var_os(POWERCUT).is_some() {
        std::fs::remove_dir_all(directory).unwrap();
        let shadow = directory.with_extension("shadow");
        std::fs::rename(shadow.join("tree"), directory).unwrap();
        std::fs::remove_dir_all(shadow).unwrap();
    }
    assert!(seen >= enough, "the child ended by itself after {seen}");
}

async fn survives(engine: &str) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        kill_one(engine, &directory, round, &mut acknowledged);
        let store = open(&options(engine, &directory)).unwrap();
        let range = PageRange {
            from: Seq::ZERO,
            to: Seq::MAX,
            newest: false,
            limit: usize::MAX,
            bytes: usize::MAX,
            as_of: Seq::MAX,
        };
        let entries = store.page(group(), range).await.unwrap();
        let mut stored = HashSet::new();
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(entry.seq.get(), index as u64 + 1, "dense");
            let once = stored.insert((entry.from, entry.mid.clone()));
            assert!(once, "{} is stored twice", entry.mid);
            assert_eq!(entry.body, entry.mid.as_str().repeat(20), "not torn");
        }
        for (seq, (sender, mid)) in &acknowledged {
            let entry = &entries[usize::try_from(*seq).unwrap() - 1];
            assert_eq!(
                (entry.from, entry.mid.as_str()),
                (user(*sender), mid.as_str())
            );
        }
        let retries = acknowledged
            .values()
            .map(|(sender, mid)| message(*sender, mid));
        let outcomes = store.append(retries.collect()).await.unwrap();
        assert_eq!(outcomes.len(), acknowledged.len());
        for (outcome, seq) in outcomes.iter().zip(acknowledged.keys()) {
            let Outcome::Duplicate { seq: first, .. } = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(first.get(), *seq);
        }
        let head = store.conversations(&[group()]).await.unwrap()[0].clone();
        let head = head.unwrap().head.get();
        assert_eq!(head, entries.len() as u64, "retries stored nothing");
        store.close().await.unwrap();
    }
}

#[cfg(feature = "fjall")]
#[tokio::test]
async fn acknowledged_entries_survive_kills_on_fjall() {
    survives("fjall").await;
}

#[cfg(feature = "sled")]
#[tokio::test]
async fn acknowledged_entries_survive_kills_on_sled() {
    survives("sled").await;
}
