//! Kills, damage, second processes, dumps.

use std::path::Path;

use broker::store::offline::{Compacted, Dumped};
use sha2::Digest as _;

use super::world::*;
use crate::domain::audit::AuditKeep;
use crate::domain::device::Device;
use crate::domain::entry::Draft;
use crate::domain::user::User;
use crate::store::{ChatStore, Durability, EngineKind, Health, Move, StoreError, StoreOptions};

super::stories![
    what_was_acknowledged_survives_a_kill,
    a_store_dropped_without_closing_is_whole,
    a_closed_store_refuses_everything,
    a_second_opening_is_refused,
    a_newer_schema_is_refused,
    a_strange_directory_is_refused,
    another_engine_is_refused,
    an_unfinished_creation_is_begun_anew,
    missing_files_are_no_empty_store,
    a_missing_table_is_no_empty_one,
    a_store_behind_its_watermark_is_refused,
    a_damaged_store_is_an_error,
    a_lost_watermark_is_made_anew,
    the_disk_budget_makes_it_read_only,
    a_dump_moves_between_engines,
    a_damaged_dump_is_refused,
    compaction_loses_nothing,
];

/// Some of everything; what [`check`] looks for.
async fn fill(store: &dyn ChatStore) {
    make_group(store, cid(1), &[1, 2]).await;
    for chunk in 0..10 {
        let drafts =
            (0..20).map(|number| draft(cid(1), 1, &format!("m{}", chunk * 20 + number), 1));
        store.append(drafts.collect()).await.unwrap();
    }
    store.create_user(user(1, "alice")).await.unwrap();
    store.put_token(token(1, "t1")).await.unwrap();
    let cursor = Move::Cursor {
        device: dev(1),
        conversation: cid(1),
        seq: seq(44),
    };
    store
        .advance(vec![cursor], Durability::Durable)
        .await
        .unwrap();
}

async fn check(store: &dyn ChatStore) {
    let entries = all(store, cid(1)).await;
    assert_eq!(entries.len(), 201);
    for (index, entry) in entries.iter().enumerate().skip(1) {
        assert_eq!(entry.mid.as_str(), format!("m{}", index - 1));
        assert_eq!(entry.mseq, index as u64);
    }
    let again = append(store, draft(cid(1), 1, "m77", 1)).await;
    assert_eq!(first(again), seq(79));
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(user(1, "alice")));
    assert_eq!(store.tokens(uid(1)).await.unwrap(), [token(1, "t1")]);
    assert_eq!(
        store.cursors(dev(1), None).await.unwrap(),
        [(cid(1), seq(44))]
    );
    assert_eq!(store.members(cid(1), None, 9).await.unwrap().len(), 2);
    let counts = store.count_up_to(cid(1), uid(1), seq(101)).await.unwrap();
    assert_eq!((counts.all, counts.own), (100, 100));
}

async fn what_was_acknowledged_survives_a_kill(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    let killed = world.killed();
    let other = killed.open();
    check(&*other).await;
    assert_eq!(say(&*other, cid(1), 2, "later").await, seq(202));
    let again = killed.killed();
    assert_eq!(all(&*again.open(), cid(1)).await.len(), 202, "killed twice");
}

async fn a_store_dropped_without_closing_is_whole(world: World) {
    let store = world.open();
    fill(&*store).await;
    drop(store);
    check(&*world.open()).await;
}

async fn a_closed_store_refuses_everything(world: World) {
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    store.close().await.unwrap();
    let refused = |result: Result<(), StoreError>| {
        assert!(
            matches!(result, Err(StoreError::Unavailable(_))),
            "{result:?}"
        );
    };
    refused(
        store
            .append(vec![draft(cid(1), 1, "a", 1)])
            .await
            .map(|_| ()),
    );
    refused(store.user(uid(1)).await.map(|_| ()));
    refused(store.flush().await);
    refused(store.close().await);
    assert!(matches!(store.health(), Health::Poisoned(_)));
}

async fn a_second_opening_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    assert_eq!(world.try_open().err(), Some(StoreError::Locked));
    let file = world.home.path().join("dump");
    assert_eq!(dump(&world.options, &file), Err(StoreError::Locked));
    assert!(!file.exists());
    store.close().await.unwrap();
    assert!(world.try_open().is_ok(), "closing lets go of it");
}

async fn a_newer_schema_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    store.close().await.unwrap();
    drop(store);
    // A dump is the way to a row that this program would not write.
    let file = world.home.path().join("dump");
    dump(&world.options, &file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let place = bytes.windows(6).position(|part| part == b"schema").unwrap();
    let mut newer = bytes[..bytes.len() - 32].to_vec();
    newer[place + 10] = 77;
    let sum = sha2::Sha256::digest(&newer);
    newer.extend_from_slice(&sum);
    std::fs::write(&file, newer).unwrap();
    let options = beside(&world.options, "newer");
    let expected = StoreError::NewerSchema {
        found: 77,
        known: 1,
    };
    assert_eq!(load(&options, &file), Err(expected.clone()));
    let world = world.with_options(options);
    assert!(
        world.try_open().is_ok(),
        "that directory was never finished"
    );
}

fn beside(options: &StoreOptions, name: &str) -> StoreOptions {
    StoreOptions {
        directory: options.directory.with_file_name(name),
        ..options.clone()
    }
}

async fn a_strange_directory_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let directory = &world.options.directory;
    std::fs::create_dir(directory).unwrap();
    std::fs::write(directory.join("thesis.txt"), "mine").unwrap();
    let error = world.try_open().err().unwrap().to_string();
    assert!(error.contains("thesis.txt"), "{error}");
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing but the lock was added");
}

fn other_engine(options: &StoreOptions) -> EngineKind {
    match options.engine {
        EngineKind::Fjall => EngineKind::Sled,
        _ => EngineKind::Fjall,
    }
}

async fn another_engine_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    store.close().await.unwrap();
    drop(store);
    let mut options = world.options.clone();
    options.engine = other_engine(&options);
    let error = crate::store::open(&options).err().unwrap().to_string();
    assert!(error.contains(world.options.engine.name()), "{error}");
    assert!(world.try_open().is_ok());
}

async fn an_unfinished_creation_is_begun_anew(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let directory = &world.options.directory;
    let name = world.options.engine.name();
    std::fs::create_dir_all(directory.join(name)).unwrap();
    std::fs::write(directory.join(name).join("db"), "torn").unwrap();
    let marker = format!("mqchat store 1\nengine {name}\nstate creating\n");
    std::fs::write(directory.join("MQCHAT"), marker).unwrap();
    std::fs::write(directory.join("watermark"), "torn").unwrap();
    make_group(&*world.open(), cid(1), &[1]).await;
    assert_eq!(all(&*world.open(), cid(1)).await.len(), 1);
}

async fn missing_files_are_no_empty_store(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let engine = world.options.directory.join(world.options.engine.name());
    std::fs::remove_dir_all(&engine).unwrap();
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(!engine.exists(), "nothing was made");
    std::fs::create_dir(&engine).unwrap();
    assert!(world.try_open().is_err());

    let mut accepting = World::new(world.options.engine);
    accepting.options = world.options.clone();
    accepting.options.accept_loss = true;
    assert!(all(&*accepting.open(), cid(1)).await.is_empty());
}

async fn a_missing_table_is_no_empty_one(world: World) {
    if world.options.engine != EngineKind::Fjall {
        return; // the others have all tables in one
    }
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let whole = world.killed();
    let tables = world.options.directory.join("fjall/keyspaces");
    let mut names: Vec<_> = std::fs::read_dir(&tables)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let damaged = whole.killed();
        let tables = damaged.options.directory.join("fjall/keyspaces");
        std::fs::remove_dir_all(tables.join(&name)).unwrap();
        let error = damaged.try_open().err().unwrap();
        assert!(
            matches!(error, StoreError::Corrupt(_) | StoreError::Unavailable(_)),
            "{name:?}: {error}"
        );
    }
    check(&*whole.open()).await;
}

async fn a_store_behind_its_watermark_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    let early = world.killed();
    for number in 0..10 {
        say(&*store, cid(1), 2, &format!("late{number}")).await;
    }
    store.close().await.unwrap();
    drop(store);
    // The engine's files as they were before the last commits, with the watermark from after them.
    let watermark = |world: &World| world.options.directory.join("watermark");
    std::fs::copy(watermark(&world), watermark(&early)).unwrap();
    let error = early.try_open().err().unwrap();
    let StoreError::Behind { found, known } = error else {
        panic!("{error}");
    };
    assert!(found + 10 <= known, "{found} {known}");
    let mut accepting = World::new(early.options.engine);
    accepting.options = early.options.clone();
    accepting.options.accept_loss = true;
    let store = accepting.open();
    assert_eq!(all(&*store, cid(1)).await.len(), 201);
    store.close().await.unwrap();
    drop(store);
    assert_eq!(
        all(&*early.open(), cid(1)).await.len(),
        201,
        "accepted once"
    );
}

async fn a_lost_watermark_is_made_anew(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let watermark = world.options.directory.join("watermark");
    std::fs::remove_file(&watermark).unwrap();
    check(&*world.open()).await;
    std::fs::write(&watermark, [7; 8192]).unwrap();
    assert!(matches!(
        world.try_open().err(),
        Some(StoreError::Corrupt(_))
    ));
}

async fn a_damaged_store_is_an_error(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    let killed = world.killed();
    drop(store);
    let log = largest(&killed.options.directory.join(killed.options.engine.name()));
    let mut bytes = std::fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for byte in &mut bytes[used / 3..used / 3 + 16] {
        *byte ^= 0x5A;
    }
    std::fs::write(&log, bytes).unwrap();
    match killed.try_open() {
        Err(StoreError::Corrupt(_) | StoreError::Behind { .. } | StoreError::Unavailable(_)) => {}
        Err(other) => panic!("{other}"),
        // The engine took the damage for a torn tail that was never acknowledged; then nothing makes no sense.
        Ok(store) => {
            let entries = all(&*store, cid(1)).await;
            assert!(
                entries
                    .iter()
                    .enumerate()
                    .all(|(index, entry)| entry.seq.get() == index as u64 + 1)
            );
        }
    }
}

/// The largest file below a directory.
fn largest(path: &Path) -> std::path::PathBuf {
    let mut files = vec![];
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_by_key(|path| path.metadata().unwrap().len());
    files.pop().unwrap()
}

async fn the_disk_budget_makes_it_read_only(mut world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    make_group(&*store, cid(1), &[1]).await;
    store.put_token(token(1, "t1")).await.unwrap();
    store.create_user(user(1, "alice")).await.unwrap();
    let known = device(1, 1);
    store
        .put_device(known.clone(), None, Durability::Durable)
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);
    world.options.max_disk_bytes = 1;
    let store = world.open();
    store.maintain(0, 0, AuditKeep::ALL).await.unwrap();
    let refused = store.append(vec![draft(cid(1), 1, "a", 1)]).await;
    assert!(
        matches!(refused, Err(StoreError::ReadOnly(_))),
        "{refused:?}"
    );
    assert!(matches!(store.health(), Health::ReadOnly(_)));
    assert_eq!(all(&*store, cid(1)).await.len(), 1, "reads stay");
    assert!(
        store.remove_token(uid(1), "t1").await.unwrap(),
        "removals, too"
    );
    let cursor = Move::Cursor {
        device: dev(1),
        conversation: cid(1),
        seq: seq(1),
    };
    for durability in [Durability::Relaxed, Durability::Durable] {
        store.advance(vec![cursor], durability).await.unwrap();
    }
    let gone = Device {
        connected: false,
        ..known.clone()
    };
    store
        .put_device(gone.clone(), None, Durability::Relaxed)
        .await
        .unwrap();
    let another = Device {
        id: dev(2),
        ..known
    };
    let refused = store.put_device(another, None, Durability::Relaxed).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))));
    let renamed = User {
        password_hash: None,
        ..user(1, "alice")
    };
    store.update_user(renamed.clone()).await.unwrap();
    let refused = store.create_user(user(2, "bob")).await;
    assert!(matches!(refused, Err(StoreError::ReadOnly(_))));
    store.put_token(token(1, "t2")).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    world.options.max_disk_bytes = 1 << 40;
    let store = world.open();
    assert_eq!(say(&*store, cid(1), 1, "a").await, seq(2));
    let cursors = store.cursors(dev(1), None).await.unwrap();
    assert_eq!(cursors, [(cid(1), seq(1))], "acks are not forgotten");
    assert_eq!(store.devices(uid(1)).await.unwrap(), [gone]);
    assert_eq!(store.user(uid(1)).await.unwrap(), Some(renamed));
    assert_eq!(store.tokens(uid(1)).await.unwrap(), [token(1, "t2")]);
}

pub(super) fn dump(options: &StoreOptions, file: &Path) -> Result<Dumped, StoreError> {
    Ok(options.place().dump(file)?)
}

fn load(options: &StoreOptions, file: &Path) -> Result<Dumped, StoreError> {
    Ok(options.place().load(file)?)
}

fn compact(options: &StoreOptions) -> Result<Compacted, StoreError> {
    Ok(options.place().compact()?)
}

async fn a_dump_moves_between_engines(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let file = world.home.path().join("dump");
    let dumped = dump(&world.options, &file).unwrap();
    assert!(
        dump(&world.options, &file).is_err(),
        "no file is overwritten"
    );

    let mut options = beside(&world.options, "copy");
    options.engine = other_engine(&options);
    assert_eq!(load(&options, &file), Ok(dumped));
    let twice = load(&options, &file).err().unwrap().to_string();
    assert!(twice.contains("already"), "{twice}");
    let again = world.home.path().join("again");
    assert_eq!(dump(&options, &again), Ok(dumped), "the same rows");

    let copy = world.with_options(options);
    let store = copy.open();
    check(&*store).await;
    assert_eq!(say(&*store, cid(1), 2, "later").await, seq(202));
}

async fn a_damaged_dump_is_refused(world: World) {
    if !world.is_on_disk() {
        return;
    }
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    let file = world.home.path().join("dump");
    dump(&world.options, &file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let options = beside(&world.options, "copy");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for damaged in [&flipped[..], &bytes[..bytes.len() - 1], &bytes[..3], b""] {
        std::fs::write(&file, damaged).unwrap();
        let error = load(&options, &file).err().unwrap();
        assert!(matches!(error, StoreError::File(_)), "{error}");
        assert!(
            !options.directory.exists(),
            "checked before anything is made"
        );
    }
}

async fn compaction_loses_nothing(world: World) {
    if !world.is_on_disk() {
        assert!(compact(&world.options).is_err());
        return;
    }
    assert_eq!(compact(&world.options), Err(StoreError::NotFound));
    let store = world.open();
    fill(&*store).await;
    store.close().await.unwrap();
    drop(store);
    compact(&world.options).unwrap();
    let store = world.open();
    check(&*store).await;
    let large = Draft {
        body: vec![1; 100_000].into(),
        ..draft(cid(1), 1, "large", 1)
    };
    assert_eq!(place(append(&*store, large).await), seq(202));
    store.close().await.unwrap();
    drop(store);
    compact(&world.options).unwrap();
    check_length(&*world.open(), 202).await;
}

async fn check_length(store: &dyn ChatStore, expected: usize) {
    assert_eq!(all(store, cid(1)).await.len(), expected);
}

#[cfg(feature = "sled")]
mod sled_only {
    use super::*;

    /// A store with some data, closed.
    async fn filled() -> World {
        let world = World::sled();
        let store = world.open();
        fill(&*store).await;
        store.close().await.unwrap();
        world
    }

    #[tokio::test]
    async fn unfinished_and_damaged_snapshots_are_put_away() {
        let world = filled().await;
        let sled = world.options.directory.join("sled");
        std::fs::write(sled.join("snap.00000000000000FF.generating"), "torn").unwrap();
        let snapshot = std::fs::read_dir(&sled).unwrap().find_map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name.starts_with("snap.") && !name.ends_with("generating")).then_some(path)
        });
        let snapshot = snapshot.unwrap_or_else(|| sled.join("snap.0000000000000001"));
        std::fs::write(&snapshot, "damaged").unwrap();
        check(&*world.open()).await;
        assert!(world.options.directory.join("snapshots-aside").exists());
    }

    #[tokio::test]
    async fn a_compaction_that_was_cut_off_is_undone_or_finished() {
        let world = filled().await;
        let at = |name: &str| world.options.directory.join(name);
        std::fs::create_dir(at("sled.compact")).unwrap();
        std::fs::rename(at("sled"), at("sled.old")).unwrap();
        let store = world.open();
        check(&*store).await;
        store.close().await.unwrap();
        drop(store);
        assert!(!at("sled.compact").exists() && !at("sled.old").exists());
        std::fs::create_dir(at("sled.old")).unwrap();
        check(&*world.open()).await;
        assert!(!at("sled.old").exists());
    }

    #[tokio::test]
    async fn without_its_conf_sled_is_not_taken_for_empty() {
        let world = filled().await;
        let conf = world.options.directory.join("sled").join("conf");
        std::fs::write(&conf, "").unwrap();
        let error = world.try_open().err();
        assert!(matches!(error, Some(StoreError::Corrupt(_))), "{error:?}");
        std::fs::remove_file(&conf).unwrap();
        let error = world.try_open().err();
        assert!(matches!(error, Some(StoreError::Corrupt(_))), "{error:?}");
    }

    #[tokio::test]
    async fn large_bodies_stay_in_the_synced_file() {
        let world = World::sled();
        let store = world.open();
        make_group(&*store, cid(1), &[1]).await;
        for number in 0..200 {
            let body = vec![number; 128 * 1024].into();
            append(
                &*store,
                Draft {
                    body,
                    ..draft(cid(1), 1, &format!("m{number}"), 1)
                },
            )
            .await;
        }
        let blobs = world.options.directory.join("sled").join("blobs");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    }
}
