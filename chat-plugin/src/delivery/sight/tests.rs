//! What somebody sees of a direct conversation with one whom he has blocked, whatever memory knows of it.

use std::time::Duration;

use bytes::Bytes;
use proto::ids::{ConversationId, DeviceId, digest16};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::super::*;
use crate::conversations::RingLimits;
use crate::domain::contact::{ContactChange, ContactCounts, Decided};
use crate::domain::entry::{Basis, BodyFormat, Change, Draft, EntryKind, Mentioned, Outcome};
use crate::domain::member::Role;
use crate::domain::overlay::{Act, GoneReason, React};
use crate::domain::user::User;
use crate::receipts::ReceiptLimits;
use crate::store::{EngineKind, StoreOptions};

const MALLORY: u8 = 1;
const BOB: u8 = 2;

pub(in crate::delivery) fn uid(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

fn direct() -> ConversationId {
    ConversationId::direct(uid(MALLORY), uid(BOB))
}

/// A store with two users, and what carries entries to them; the feed of the store goes on when it is told to.
pub(in crate::delivery) struct World {
    pub(in crate::delivery) store: Arc<dyn ChatStore>,
    feed: mpsc::Receiver<Committed>,
    pub(in crate::delivery) delivery: Arc<Delivery>,
}

impl World {
    async fn new() -> Self {
        let options = StoreOptions {
            engine: EngineKind::Memory,
            ..StoreOptions::default()
        };
        Self::on(crate::store::open(&options).unwrap()).await
    }

    pub(in crate::delivery) async fn on(store: Arc<dyn ChatStore>) -> Self {
        for (number, handle) in [(MALLORY, "mallory"), (BOB, "bob")] {
            let user = User {
                id: uid(number),
                handle: handle.parse().unwrap(),
                name: String::new(),
                password_hash: None,
                scram: None,
                created_ms: 1_000,
                removed_ms: None,
            };
            store.create_user(user).await.unwrap();
        }
        let ring = RingLimits {
            entries_max: 8,
            bytes_max: usize::MAX,
            total_bytes_max: usize::MAX,
        };
        let limits = ReceiptLimits {
            interval: Duration::ZERO,
            interval_max: Duration::ZERO,
            moves_max: 8,
            counts_max: 8,
        };
        let conversations = Arc::new(Conversations::new(Arc::clone(&store), 16, ring));
        let names = Arc::new(Names::new(Arc::clone(&store), 16));
        let progress = Arc::new(Progress::new(Arc::clone(&store)));
        let online = Arc::new(Online::default());
        let receipts = Arc::new(Receipts::new(
            Arc::clone(&store),
            Arc::clone(&online),
            Arc::clone(&progress),
            limits,
        ));
        let delivery = Arc::new(Delivery::new(
            Arc::clone(&store),
            (conversations, names),
            progress,
            (receipts, online),
            TaskTracker::new(),
            0,
        ));
        Self {
            feed: store.feed(),
            store,
            delivery,
        }
    }

    async fn blocks(&self, change: ContactChange) {
        let max = ContactCounts {
            contacts: 9,
            blocked: 9,
        };
        let (bob, mallory) = (uid(BOB), uid(MALLORY));
        let changed = self.store.change_contact(bob, mallory, change, max, 50);
        assert_eq!(changed.await.unwrap(), Decided::Changed);
        if let Some(live) = self.delivery.conversations.in_memory(direct()) {
            live.invalidate();
        }
    }

    pub(in crate::delivery) async fn append(&self, draft: Draft) -> Seq {
        match self.store.append(vec![draft]).await.unwrap()[..] {
            [Outcome::Stored { seq, .. }] => seq,
            ref other => panic!("not stored: {other:?}"),
        }
    }

    async fn say(&self, from: u8, text: &'static str) -> Seq {
        self.append(message(from, text)).await
    }

    async fn act(&self, from: u8, mid: &'static str, (act, target): (Act, Seq)) -> Seq {
        let kind = match act {
            Act::Edit => EntryKind::Edit,
            Act::Delete => EntryKind::Deleted,
            Act::React(_) => EntryKind::Reaction,
            Act::Pin(_) => EntryKind::Pin,
        };
        let draft = Draft {
            kind,
            target: Some(target),
            act: Some(act),
            ..message(from, mid)
        };
        self.append(draft).await
    }

    async fn live(&self) -> Arc<Live> {
        self.delivery
            .conversations
            .load(direct())
            .await
            .unwrap()
            .unwrap()
    }

    /// Memory hears of everything that was stored.
    async fn follow(&mut self) {
        while let Ok(committed) = self.feed.try_recv() {
            self.delivery.committed(committed).await.unwrap();
        }
    }

    /// Memory hears of the next commit.
    pub(in crate::delivery) async fn follow_one(&mut self) {
        let committed = self.feed.try_recv().unwrap();
        self.delivery.committed(committed).await.unwrap();
    }

    async fn seen(&self, by: u8) -> Vec<Entry> {
        let live = self.live().await;
        self.seen_through(by, &live).await
    }

    /// All entries, as they are seen by whoever holds the conversation already.
    async fn seen_through(&self, by: u8, live: &Live) -> Vec<Entry> {
        let range = page((Seq::new(1), Seq::MAX), false);
        let entries = self.store.page(direct(), range).await.unwrap();
        let seen = self.delivery.as_seen(uid(by), live, entries).await;
        seen.unwrap()
    }
}

pub(in crate::delivery) fn message(from: u8, text: &'static str) -> Draft {
    let join = |number| Change::Join {
        user: uid(number),
        role: Role::Member,
        history_from: Some(Seq::new(1)),
    };
    Draft {
        conversation: direct(),
        basis: Basis::Create,
        from: uid(from),
        peer: Some(uid(3 - from)),
        device: DeviceId::from_bytes([from; 16]),
        mid: text.parse().unwrap(),
        digest: digest16(&[text.as_bytes()]),
        ts_ms: 1_000,
        kind: EntryKind::Message,
        format: BodyFormat::Text,
        opaque: false,
        body: Bytes::from_static(text.as_bytes()),
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
        changes: vec![join(MALLORY), join(BOB)],
        audit: None,
    }
}

fn texts(entries: &[Entry]) -> Vec<&str> {
    let texts = entries.iter().map(|entry| match entry.gone {
        Some(GoneReason::Hidden) => "(hidden)",
        Some(_) => "(gone)",
        None => str::from_utf8(&entry.body).unwrap(),
    });
    texts.collect()
}

#[tokio::test]
async fn what_a_block_hides_is_not_seen_before_memory_has_heard_of_it() {
    let mut world = World::new().await;
    let before = world.say(MALLORY, "before").await;
    world.follow().await;
    let live = world.live().await;
    world.blocks(ContactChange::Block).await;
    world.say(MALLORY, "meanwhile").await;
    world.act(MALLORY, "worse", (Act::Edit, before)).await;
    let seen = ["before", "(hidden)", "(hidden)"];
    assert_eq!(texts(&world.seen_through(BOB, &live).await), seen);
    // His own words are known of before hers, which stand before them.
    let own = world.say(BOB, "own").await;
    live.stored((own, 0, 0), None, false);
    let seen = ["before", "(hidden)", "(hidden)", "own"];
    assert_eq!(texts(&world.seen_through(BOB, &live).await), seen);
    world.follow().await;
    assert_eq!(texts(&world.seen(BOB).await), seen);
    let all = ["worse", "meanwhile", "worse", "own"];
    assert_eq!(texts(&world.seen(MALLORY).await), all);
}

#[tokio::test]
async fn what_is_in_memory_is_taken_as_it_is_only_where_nothing_is_hidden() {
    let mut world = World::new().await;
    let before = world.say(MALLORY, "before").await;
    let live = world.live().await;
    world.follow().await;
    let is_there = |by, seq| live.recent_for(uid(by), seq).is_some();
    assert!(is_there(BOB, before));
    world.blocks(ContactChange::Block).await;
    live.refreshed(&world.delivery.conversations).await.unwrap();
    assert!(!is_there(BOB, before), "perhaps she has reacted to it");
    let meanwhile = world.say(MALLORY, "meanwhile").await;
    world.follow().await;
    assert!(!is_there(BOB, before) && !is_there(BOB, meanwhile));
    assert!(is_there(MALLORY, before) && is_there(MALLORY, meanwhile));
    world.blocks(ContactChange::Unblock).await;
    let edit = world.act(MALLORY, "edit", (Act::Edit, meanwhile)).await;
    let after = world.say(MALLORY, "after").await;
    world.follow().await;
    assert!(is_there(BOB, after));
    assert!(!is_there(BOB, meanwhile) && !is_there(BOB, edit));
    let seen = ["before", "(hidden)", "(hidden)", "after"];
    assert_eq!(texts(&world.seen(BOB).await), seen);
}

#[tokio::test]
async fn what_is_gone_is_handed_out_to_nobody_though_the_feed_is_behind() {
    let mut world = World::new().await;
    world.say(MALLORY, "before").await;
    world.follow().await;
    let said = world.say(MALLORY, "said").await;
    world.act(MALLORY, "del", (Act::Delete, said)).await;
    let live = world.live().await;
    world.delivery.take_back(&live, &[said]);
    let committed = world.feed.try_recv().unwrap();
    world.delivery.committed(committed).await.unwrap();
    assert!(live.recent_for(uid(BOB), said).is_none(), "as it was said");
    world.follow().await;
    let line = live.recent_for(uid(BOB), said).unwrap();
    assert_eq!(line.entry.gone, Some(GoneReason::Deleted));
}

#[tokio::test]
async fn an_entry_that_is_known_of_but_not_followed_is_looked_up() {
    let mut world = World::new().await;
    let before = world.say(MALLORY, "before").await;
    let live = world.live().await;
    world.follow().await;
    let meanwhile = world.say(MALLORY, "meanwhile").await;
    let places = vec![before, meanwhile];
    assert_eq!(live.may_be_hidden(uid(BOB), places.clone()), [meanwhile]);
    live.stored((meanwhile, 0, 0), None, false); // a retry of hers was answered
    assert_eq!(live.may_be_hidden(uid(BOB), places.clone()), [meanwhile]);
    world.follow().await;
    assert_eq!(live.may_be_hidden(uid(BOB), places), []);
}

#[tokio::test]
async fn what_a_blocked_user_pins_and_how_he_reacts_is_seen_when_he_is_blocked_no_longer() {
    let mut world = World::new().await;
    let (first, second) = (
        world.say(BOB, "first").await,
        world.say(BOB, "second").await,
    );
    world.act(BOB, "own-pin", (Act::Pin(true), first)).await;
    world.blocks(ContactChange::Block).await;
    let mut acts = Vec::new();
    acts.push(world.act(MALLORY, "pin", (Act::Pin(true), second)).await);
    let react = Act::React(React::Add("+".into()));
    acts.push(world.act(MALLORY, "react", (react, second)).await);
    let told = world.say(MALLORY, "meanwhile").await;
    acts.push(world.act(MALLORY, "pin-own", (Act::Pin(true), told)).await);
    world.follow().await;
    let live = world.live().await;
    let pins = |by| {
        let (delivery, live) = (&world.delivery, Arc::clone(&live));
        async move {
            let pins = delivery.pins(uid(by), &live).await.unwrap();
            pins.iter().map(|pin| pin.seq).collect::<Vec<_>>()
        }
    };
    assert_eq!(pins(BOB).await, [first]);
    assert_eq!(pins(MALLORY).await, [first, second, told]);
    let seen = world.seen(BOB).await;
    assert!(seen[0].overlay.as_deref().is_some_and(|it| it.pinned));
    assert_eq!(seen[1].overlay, None);
    world.blocks(ContactChange::Unblock).await;
    live.refreshed(&world.delivery.conversations).await.unwrap();
    assert_eq!(pins(BOB).await, [first, second], "not what he never sees");
    let seen = world.seen(BOB).await;
    let overlay = seen[1].overlay.as_deref().unwrap();
    assert_eq!((overlay.pinned, overlay.reactions.len()), (true, 1));
    for act in acts {
        let entry = seen.iter().find(|entry| entry.seq == act).unwrap();
        assert_eq!(entry.gone, Some(GoneReason::Hidden), "that it was done");
    }
}

#[tokio::test]
async fn what_a_reader_may_see_is_known_as_long_as_somebody_works_with_it() {
    const MANY: u8 = 200;
    let mut world = World::new().await;
    let channel = ConversationId::from_parts(ConversationKind::Channel, [7; 16]);
    let join = |number: u16, role| Change::Join {
        user: reader(number),
        role,
        history_from: Some(Seq::new(1)),
    };
    let readers = (1..=2 * u16::from(MANY)).map(|number| join(number, Role::Reader));
    let made = Draft {
        conversation: channel,
        kind: EntryKind::Created,
        peer: None,
        changes: readers.chain([join(0, Role::Owner)]).collect(),
        ..message(MALLORY, "made")
    };
    let said = world.append(made).await;
    world.follow().await;
    let load = |number| {
        world
            .delivery
            .conversations
            .load_for(channel, reader(number))
    };
    let first = load(1).await.unwrap().unwrap();
    let range = page((said, said), false);
    let entries = world.store.page(channel, range).await.unwrap();
    for number in 2..=2 * u16::from(MANY) {
        load(number).await.unwrap();
    }
    let seen = world.delivery.as_seen(reader(1), &first, entries).await;
    assert_eq!(seen.unwrap()[0].gone, None);
}

fn reader(number: u16) -> UserId {
    let mut bytes = [9; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    UserId::from_bytes(bytes)
}
