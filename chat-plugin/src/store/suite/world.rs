//! A store to test, and short ways to say what is done with it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{ConversationId, ConversationKind, DeviceId, Seq, UserId, digest16};
use tempfile::TempDir;

use crate::domain::device::{Device, Subscription};
use crate::domain::entry::{
    Basis, BodyFormat, Change, Draft, Entry, EntryKind, Mentioned, Outcome,
};
use crate::domain::member::Role;
use crate::domain::user::{Token, User};
use crate::store::clock::Clock;
use crate::store::embedded::EmbeddedStore;
use crate::store::{ChatStore, EngineKind, PageRange, StoreError, StoreOptions, open_with_clock};
use broker::store::memory::MemoryEngine;

/// A clock that goes on when it is told to.
#[derive(Debug, Default)]
pub(super) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(super) fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A store that can be closed and opened again.
pub(super) struct World {
    pub(super) options: StoreOptions,
    pub(super) clock: Arc<ManualClock>,
    memory: Mutex<Arc<MemoryEngine>>,
    #[cfg_attr(
        not(all(feature = "fjall", feature = "sled")),
        expect(dead_code, reason = "it keeps the directory")
    )]
    pub(super) home: TempDir,
}

impl World {
    pub(super) fn new(engine: EngineKind) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            engine,
            directory: home.path().join("store"),
            memory_bytes: 32 * 1024 * 1024,
            ..StoreOptions::default()
        };
        Self {
            options,
            clock: Arc::default(),
            memory: Mutex::default(),
            home,
        }
    }

    pub(super) fn memory() -> Self {
        Self::new(EngineKind::Memory)
    }

    #[cfg(feature = "fjall")]
    pub(super) fn fjall() -> Self {
        Self::new(EngineKind::Fjall)
    }

    #[cfg(feature = "sled")]
    pub(super) fn sled() -> Self {
        Self::new(EngineKind::Sled)
    }

    /// The same world with other options.
    #[cfg(all(feature = "fjall", feature = "sled"))]
    pub(super) fn with_options(mut self, options: StoreOptions) -> Self {
        self.options = options;
        self
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.options.engine != EngineKind::Memory
    }

    pub(super) fn try_open(&self) -> Result<Arc<dyn ChatStore>, StoreError> {
        if self.is_on_disk() {
            return open_with_clock(&self.options, self.clock.clone());
        }
        let engine = self.memory.lock().unwrap().clone();
        let store = EmbeddedStore::start(engine, None, &self.options, self.clock.clone())?;
        Ok(Arc::new(store))
    }

    pub(super) fn open(&self) -> Arc<dyn ChatStore> {
        self.try_open().unwrap()
    }

    /// Closes a store and opens it again.
    pub(super) async fn reopen(&self, store: Arc<dyn ChatStore>) -> Arc<dyn ChatStore> {
        store.close().await.unwrap();
        drop(store);
        self.open()
    }

    /// The same store as it would be found had the process been killed now: its files are copied while it is open.
    pub(super) fn killed(&self) -> Self {
        let other = Self::new(self.options.engine);
        copy(&self.options.directory, &other.options.directory);
        other.clock.advance(self.clock.elapsed());
        other
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else if let Err(error) = std::fs::copy(file.path(), &target) {
            // Engines remove files while we look.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) fn uid(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(super) fn dev(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub(super) fn cid(number: u8) -> ConversationId {
    ConversationId::from_parts(ConversationKind::Group, [number; 16])
}

pub(super) fn seq(number: u64) -> Seq {
    Seq::new(number)
}

/// A message with the body `mid`, at time 1,000.
pub(super) fn draft(conversation: ConversationId, from: u8, mid: &str, version: u32) -> Draft {
    Draft {
        conversation,
        basis: Basis::Version(version),
        from: uid(from),
        peer: None,
        device: dev(from),
        mid: mid.parse().unwrap(),
        digest: digest16(&[mid.as_bytes()]),
        ts_ms: 1_000,
        kind: EntryKind::Message,
        format: BodyFormat::Text,
        opaque: false,
        body: Bytes::copy_from_slice(mid.as_bytes()),
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
        changes: Vec::new(),
        audit: None,
    }
}

pub(super) fn join(user: u8) -> Change {
    Change::Join {
        user: uid(user),
        role: Role::Member,
        history_from: None,
    }
}

/// The entry that makes a group of these users, by the first of them.
pub(super) fn created(conversation: ConversationId, users: &[u8]) -> Draft {
    Draft {
        basis: Basis::Create,
        kind: EntryKind::Created,
        format: BodyFormat::Json,
        changes: users.iter().map(|user| join(*user)).collect(),
        ..draft(conversation, users[0], "created", 0)
    }
}

/// Makes a group; its version is 1, its head 1.
pub(super) async fn make_group(store: &dyn ChatStore, conversation: ConversationId, users: &[u8]) {
    let outcome = append(store, created(conversation, users)).await;
    assert!(
        matches!(outcome, Outcome::Stored { seq, .. } if seq == Seq::new(1)),
        "{outcome:?}"
    );
}

pub(super) async fn append(store: &dyn ChatStore, draft: Draft) -> Outcome {
    let mut outcomes = store.append(vec![draft]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// Appends a message to a group of version 1 and says where it went.
pub(super) async fn say(
    store: &dyn ChatStore,
    conversation: ConversationId,
    from: u8,
    mid: &str,
) -> Seq {
    place(append(store, draft(conversation, from, mid, 1)).await)
}

/// The place of a stored entry.
pub(super) fn place(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Stored { seq, .. } => seq,
        other => panic!("not stored: {other:?}"),
    }
}

/// The place of a duplicate.
pub(super) fn first(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Duplicate { seq, .. } => seq,
        other => panic!("no duplicate: {other:?}"),
    }
}

pub(super) async fn all(store: &dyn ChatStore, conversation: ConversationId) -> Vec<Entry> {
    let range = PageRange {
        from: Seq::ZERO,
        to: Seq::MAX,
        newest: false,
        limit: usize::MAX,
        bytes: usize::MAX,
        as_of: Seq::MAX,
    };
    store.page(conversation, range).await.unwrap()
}

pub(super) fn user(number: u8, handle: &str) -> User {
    User {
        id: uid(number),
        handle: handle.parse().unwrap(),
        name: String::new(),
        password_hash: Some("$argon2id$".to_owned()),
        scram: None,
        created_ms: 1_000,
        removed_ms: None,
    }
}

pub(super) fn token(user: u8, id: &str) -> Token {
    let mut hash = [user; 32];
    hash[..id.len()].copy_from_slice(id.as_bytes());
    Token {
        hash,
        id: id.to_owned(),
        user: uid(user),
        label: "laptop".to_owned(),
        created_ms: 7,
    }
}

/// A device of a user with one subscription.
pub(super) fn device(user: u8, number: u8) -> Device {
    Device {
        id: dev(number),
        user: uid(user),
        client_id: format!("phone-{number}"),
        subscriptions: vec![Subscription {
            filter: "chat/me/in/+".to_owned(),
            qos: 1,
            no_local: false,
            retain_as_published: true,
            identifier: None,
            slot: 0,
            made_ms: 11,
        }],
        session_expiry: 3_600,
        has_inbox: true,
        has_queue: true,
        connected: false,
        receipts_ms: 10,
        account: 3,
        first_seen_ms: 9,
        token: None,
        last_seen_ms: 12,
    }
}
