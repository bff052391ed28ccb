//! The message ids by which repeated messages are known: operators count them, and forget those of weeks that are over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chat_plugin::store::clock::Clock;
use chat_plugin::store::{EngineKind, StoreOptions, open_with_clock};
use serde_json::{Value, json};

use super::harness::{Client, Launch, Login, Server};
use super::retention::run;

/// A clock that somebody sets, in days.
#[derive(Default)]
struct Days(AtomicU64);

impl Clock for Days {
    fn elapsed(&self) -> Duration {
        Duration::from_hours(24 * self.0.load(Ordering::SeqCst))
    }
}

/// A store that nobody has open has been running for so many days more.
fn let_pass(server: &Server, engine: EngineKind, days: u64) {
    let options = StoreOptions {
        engine,
        directory: server.data_dir().join("store"),
        ..StoreOptions::default()
    };
    let clock = Arc::new(Days::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open_with_clock(&options, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        clock.0.store(days, Ordering::SeqCst);
        let trusted = store.trusted_ms().await.unwrap().unwrap_or_default();
        store.trust(trusted).await.unwrap();
        store.close().await.unwrap();
    });
}

/// Says something to oneself under this message id; was it stored before?
fn repeats(client: &mut Client, mid: &str) -> bool {
    let answer = client.publish(&format!("chat/to/me/{mid}"), mid);
    assert!(!answer.reason.is_error());
    answer.get("dup") == Some("1")
}

/// Week and whether it is the present one.
fn weeks(listed: &str) -> Vec<(Value, Value)> {
    let lines = listed.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["rows"].as_u64() > Some(0) && line["bytes"].as_u64() > line["rows"].as_u64());
        (line["week"].clone(), line["present"].clone())
    });
    lines.collect()
}

#[test]
fn an_operator_forgets_message_ids_of_weeks_that_are_over() {
    for engine in [EngineKind::Fjall, EngineKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mqchat.toml");
        std::fs::write(
            &config,
            format!("[store]\nengine = \"{}\"\n", engine.name()),
        )
        .unwrap();
        let config = config.to_str().unwrap();
        let launch = |launch: Launch| launch.dev().argument("--config").argument(config);
        let run = |server: &Server, arguments: &[&str]| {
            let mut all = arguments.to_vec();
            all.extend(["--config", config]);
            run(server, &all)
        };
        let weeks = |server: &Server| weeks(&run(server, &["store", "ids", "--json"]));
        let mut server = Server::in_new_directory(launch);
        let mut alice = Login::new("alice").connect(server.address());
        assert!(!repeats(&mut alice, "old") && repeats(&mut alice, "old"));
        server.terminate();
        server.wait_for_exit();
        let_pass(&server, engine, 8);
        server.restart();
        let mut alice = Login::new("alice").connect(server.address());
        assert!(!repeats(&mut alice, "new"));
        assert!(repeats(&mut alice, "old"), "of the last week");
        let both = [(json!(0), json!(false)), (json!(1), json!(true))];
        assert_eq!(weeks(&server), both);
        let refused = server.command(&["store", "drop-ids", "--before", "2"], "");
        assert!(!refused.status.success());
        let why = String::from_utf8(refused.stderr).unwrap();
        assert!(why.contains("1 is the present week"), "{why}");
        assert_eq!(weeks(&server), both);
        let unsaid = server.command(&["store", "drop-ids"], "");
        assert!(!unsaid.status.success(), "it has to be said which");
        let told = run(&server, &["store", "drop-ids", "--before", "1"]);
        assert!(
            told.ends_with("message ids of the weeks before 1 are gone\n"),
            "{told}"
        );
        assert!(!told.starts_with("0 "), "{told}");
        assert_eq!(weeks(&server), both[1..]);
        assert!(repeats(&mut alice, "new") && !repeats(&mut alice, "old"));

        server.terminate();
        server.wait_for_exit();
        assert_eq!(weeks(&server), both[1..]);
        let_pass(&server, engine, 7);
        let told = run(&server, &["store", "drop-ids", "--before", "2"]);
        assert!(!told.starts_with("0 "), "also while no server runs: {told}");
        assert_eq!(run(&server, &["store", "ids"]), "");
        let told = run(&server, &["store", "drop-ids", "--before", "2"]);
        assert_eq!(told, "0 message ids of the weeks before 2 are gone\n");
        let listed = run(
            &server,
            &["audit", "list", "--action", "store drop-ids", "--json"],
        );
        let lines = listed.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let detail = &line["detail"];
            (
                line["outcome"].clone(),
                detail["before"].clone(),
                detail["rows"] == 0,
            )
        });
        let expected = [
            ("done", 2, true),
            ("done", 2, false),
            ("done", 1, false),
            ("refused", 2, false),
        ];
        let expected =
            expected.map(|(outcome, before, none)| (json!(outcome), json!(before), none));
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }
}
