//! What an operator does: users, clients, sessions, retained messages, the log; stop, a second start, configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use broker::codec::packet::{Qos, Version};
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;

use serde_json::Value;

use super::harness::{Launch, Login, Lost, Server, VERSIONS, eventually, mqchat};

#[test]
fn users_are_managed_while_the_server_runs_and_while_it_is_stopped() {
    let mut server = Server::in_new_directory(|launch| launch);
    for stopped in [false, true] {
        if stopped {
            server.terminate();
            server.wait_for_exit();
        }
        let run = |arguments: &[&str], stdin: &str| {
            let output = server.command(arguments, stdin);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let name = if stopped { "olga" } else { "rita" };
        run(&["user", "add", name], "first\n");
        assert!(run(&["user", "list"], "").contains(name));
        let again = server.command(&["user", "add", name], "x\n");
        assert!(!again.status.success(), "the handle is taken");
        assert!(!again.stderr.is_empty());
        run(&["user", "passwd", name], "second\n");
        if !stopped {
            let login = Login::new(name);
            login.clone().password("second").connect(server.address());
            assert!(
                login
                    .clone()
                    .password("first")
                    .try_connect(server.address())
                    .is_err()
            );
            let mut connected = login.password("second").connect(server.address());
            run(&["user", "remove", name], "");
            connected.wait_for_end();
        }
    }
    server.restart();
    Login::new("olga")
        .password("second")
        .connect(server.address());
    assert!(
        Login::new("rita")
            .password("second")
            .try_connect(server.address())
            .is_err(),
        "removed"
    );
}

#[test]
fn stop_settles_what_was_admitted_and_says_goodbye() {
    for version in VERSIONS {
        let mut server = Server::dev();
        Login::new("bob").connect(server.address()).disconnect();
        let mut alice = Login::new("alice")
            .version(version)
            .connect(server.address());
        for number in 0..100 {
            alice.send_publish(
                "chat/to/@bob",
                number.to_string(),
                PublishProperties::default(),
            );
        }
        alice.next_answer().unwrap();
        server.terminate();
        let mut acked: usize = 1;
        let lost = loop {
            match alice.next_answer() {
                Ok(_) => acked += 1,
                Err(lost) => break lost,
            }
        };
        if version == broker::codec::packet::Version::V5 {
            assert!(
                matches!(lost, Lost::Disconnected(ReasonCode::ServerShuttingDown)),
                "{lost:?}"
            );
        }
        assert!(server.wait_for_exit().success(), "SIGTERM is no failure");
        server.restart();
        let mut alice = Login::new("alice").connect(server.address());
        let stored = alice.history("@bob").len();
        assert!(stored >= acked, "{acked} acked, {stored} stored");
    }
}

#[test]
fn idle_clients_do_not_hold_up_a_stop() {
    let mut server = Server::dev();
    let mut idle = Login::new("alice").connect(server.address());
    let silent = std::net::TcpStream::connect(server.address()).unwrap();
    server.terminate();
    assert!(server.wait_for_exit().success());
    assert!(matches!(
        idle.wait_for_end(),
        Lost::Disconnected(ReasonCode::ServerShuttingDown)
    ));
    drop(silent);
}

#[test]
fn second_start_on_the_same_data_is_refused() {
    let server = Server::dev();
    let output = mqchat(
        server.data_dir(),
        &["serve", "--dev", "--listen", "127.0.0.1:0"],
        "",
    );
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("in use"), "{said}");
    Login::new("alice").connect(server.address()).settle();
}

#[test]
fn an_address_in_use_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("new");
    let output = mqchat(&data_dir, &["serve", "--dev", "--listen", &address], "");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    assert!(!data_dir.exists());
    drop(taken);
    let mut server = Launch::new(&data_dir).listen(&address).dev().start();
    Login::new("alice").connect(server.address()).settle();
    // Its connections linger after a kill, which is no obstacle.
    server.restart();
    Login::new("alice").connect(server.address()).settle();
}

#[test]
fn a_dump_overwrites_nothing_and_is_loaded_into_a_new_store_only() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice")
        .device("phone")
        .connect(server.address());
    alice.publish("chat/to/me", "kept");
    alice.publish_retained("plain/topic", "kept too");
    alice.subscribe("plain/queue");
    alice.disconnect();
    let mut bob = Login::new("bob").connect(server.address());
    assert_eq!(
        bob.publish("plain/queue", "waits").reason,
        ReasonCode::Success
    );
    server.terminate();
    server.wait_for_exit();
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("dump");
    let file = dump.to_str().unwrap();
    let refused = |data_dir: &Path, command: &str, file: &str, said: &str| {
        let output = mqchat(data_dir, &["store", command, file], "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(said), "{told}");
        assert_eq!(told.lines().count(), 1, "calm: {told}");
    };
    assert!(
        server
            .command(&["store", "dump", file], "")
            .status
            .success()
    );
    let before = fs::read(&dump).unwrap();
    refused(server.data_dir(), "dump", file, "exists");
    assert_eq!(fs::read(&dump).unwrap(), before);
    refused(server.data_dir(), "load", file, "already");
    refused(server.data_dir(), "dump", "/nowhere/dump", "/nowhere/dump");
    let others = fs::read(directory.path().join("dump.sessions")).unwrap();
    assert!(others.starts_with(b"mqtt sessions dump 1\n"));

    let new = directory.path().join("new");
    refused(&new, "load", "/nowhere/dump", "/nowhere/dump");
    assert!(!new.exists(), "a mistyped name makes nothing");
    let cut = directory.path().join("cut");
    fs::write(&cut, &before[..before.len() - 40]).unwrap();
    refused(&new, "load", cut.to_str().unwrap(), "cut off");
    let damaged = directory.path().join("damaged");
    fs::write(&damaged, &before).unwrap();
    let name = directory.path().join("damaged.sessions");
    fs::write(name, &others[..others.len() - 40]).unwrap();
    refused(&new, "load", damaged.to_str().unwrap(), "cut off");
    assert!(mqchat(&new, &["store", "load", file], "").status.success());
    let compacted = mqchat(&new, &["store", "compact"], "");
    let told = String::from_utf8(compacted.stdout).unwrap();
    assert!(
        told.contains("store: ") && told.contains("sessions: "),
        "{told}"
    );
    let server = Launch::new(&new).dev().start();
    let mut alice = Login::new("alice")
        .device("phone")
        .connect(server.address());
    assert!(alice.session_present);
    assert_eq!(&*alice.next_on("plain/queue").payload, b"waits");
    alice.subscribe("plain/topic");
    assert_eq!(&*alice.next_on("plain/topic").payload, b"kept too");
    assert_eq!(alice.history("me")[0]["t"], "kept");
}

#[test]
fn damaged_store_is_never_an_empty_one() {
    let mut server = Server::dev();
    let mut alice = Login::new("alice").connect(server.address());
    for number in 0..50 {
        alice.publish("chat/to/me", format!("{number} {}", "x".repeat(2_000)));
    }
    server.terminate();
    server.wait_for_exit();
    let mut damaged = 0;
    let mut folders = vec![server.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(mut bytes) = fs::read(&path) {
                for byte in &mut bytes {
                    *byte ^= 0x5a;
                }
                fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let mut again = Launch::new(server.data_dir()).dev().spawn();
    assert!(!again.wait_for_exit().success());
    assert!(!again.log().is_empty());
}

#[test]
fn configuration_is_checked_and_misspelt_options_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = directory.path().join("mqchat.toml");
        fs::write(&file, text).unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
            .arg("check-config")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap()
    };
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/mqchat.toml");
    let good = check(&fs::read_to_string(shipped).unwrap());
    assert!(good.status.success(), "{good:?}");
    let bad = check("no_such_option = 1\n");
    assert!(!bad.status.success());
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(said.contains("no_such_option"), "{said}");
    let misspelt = std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .arg("check-config")
        .env("MQCHAT_CHAT__NO_SUCH_OPTION", "1")
        .output()
        .unwrap();
    assert_eq!(misspelt.status.code(), Some(2));
    let said = String::from_utf8_lossy(&misspelt.stderr).into_owned();
    let beginning = "mqchat: MQCHAT_CHAT__NO_SUCH_OPTION: unknown option";
    assert!(said.starts_with(beginning), "{said}");
}

#[test]
fn log_tells_nothing_that_people_wrote() {
    let mut server =
        Server::in_new_directory(|launch| launch.dev().variable("MQCHAT_LOG__FILTER", "trace"));
    let mut alice = Login::new("alice")
        .password("my-pass-word")
        .connect(server.address());
    alice.publish("chat/to/me", "my-secret-text");
    alice.publish("chat/to/@nobody", "my-secret-text");
    server.terminate();
    server.wait_for_exit();
    let log = server.log();
    assert!(!log.contains("my-secret-text") && !log.contains("my-pass-word"));
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Exit 1, one line that says why.
fn refused(output: &std::process::Output, said: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(said) && told.lines().count() == 1, "{told}");
}

#[test]
fn clients_are_listed_and_kicked() {
    let server = Server::dev();
    let mut phone = Login::new("alice")
        .device("phone\u{1b}[2J")
        .connect(server.address());
    phone.try_subscribe("a/b", Qos::AtLeastOnce);
    let mut laptop = Login::new("bob")
        .version(Version::V311)
        .client_id("laptop")
        .connect(server.address());
    let listed = lines(&server.command(&["client", "list", "--json"], ""));
    let of = |user: &str| listed.iter().find(|it| it["user"] == user).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(of("alice")["subscriptions"], 1);
    assert_eq!(
        (&of("alice")["version"], &of("bob")["version"]),
        (&"5.0".into(), &"3.1.1".into())
    );
    let address = of("bob")["address"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let table = server.command(&["client", "list"], "");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.starts_with("USER") && !table.contains('\u{1b}'),
        "{table}"
    );

    let kick =
        |user: &str, client_id: &str| server.command(&["client", "kick", user, client_id], "");
    assert!(kick("alice", "phone\u{1b}[2J").status.success());
    let lost = phone.wait_for_end();
    assert!(
        matches!(lost, Lost::Disconnected(ReasonCode::AdministrativeAction)),
        "{lost:?}"
    );
    refused(&kick("alice", "laptop"), "laptop");
    refused(&kick("nobody", "laptop"), "nobody");
    laptop.settle();
    let again = Login::new("alice").device("phone\u{1b}[2J");
    assert!(
        again.connect(server.address()).session_present,
        "the session stays"
    );
    // The id names the user as well.
    assert!(
        kick(of("bob")["uid"].as_str().unwrap(), "laptop")
            .status
            .success()
    );
    laptop.wait_for_end();
}

#[test]
fn a_dropped_session_is_gone_for_good() {
    let mut server = Server::dev();
    let login = |id: &str| Login::new("alice").device(id);
    for id in ["away", "here", "kept"] {
        let mut client = login(id).connect(server.address());
        client.try_subscribe("a/#", Qos::AtLeastOnce);
        client.subscribe("chat/me/in/+");
    }
    let mut here = login("here").connect(server.address());
    let mut sender = Login::new("bob").connect(server.address());
    sender.publish("a/b", "waits");
    let state = |server: &Server| {
        let listed = lines(&server.command(&["session", "list", "--json"], ""));
        let of = listed.iter().filter(|it| it["user"] == "alice");
        of.map(|it| {
            let id = it["client_id"].as_str().unwrap().to_owned();
            (id, it["connected"].as_bool().unwrap())
        })
        .collect::<BTreeMap<_, _>>()
    };
    let all = [("away", false), ("here", true), ("kept", false)];
    assert_eq!(
        state(&server),
        all.map(|(id, here)| (id.to_owned(), here)).into()
    );
    let drop_it = |server: &Server, id: &str| server.command(&["session", "drop", "alice", id], "");
    assert!(drop_it(&server, "away").status.success());
    assert!(drop_it(&server, "here").status.success());
    let lost = here.wait_for_end();
    assert!(
        matches!(lost, Lost::Disconnected(ReasonCode::AdministrativeAction)),
        "{lost:?}"
    );
    refused(&drop_it(&server, "away"), "no session");
    assert_eq!(state(&server).into_keys().collect::<Vec<_>>(), ["kept"]);
    server.kill();
    server.restart();
    assert_eq!(state(&server).into_keys().collect::<Vec<_>>(), ["kept"]);
    for (id, present) in [("away", false), ("here", false), ("kept", true)] {
        let mut client = login(id).connect(server.address());
        assert_eq!(client.session_present, present, "{id}");
        assert_eq!(client.arrivals().len(), usize::from(present), "{id}");
    }
}

#[test]
fn retained_messages_are_listed_and_cleared() {
    let mut server = Server::dev();
    let mut client = Login::new("alice").connect(server.address());
    // More than a page.
    for number in 0..250 {
        client.send_retained(&format!("home/{number}/temp"), "21");
    }
    for _ in 0..250 {
        client.next_answer().unwrap();
    }
    client.publish_retained("office", "open");
    let topics = |server: &Server, filter: &str| {
        lines(&server.command(&["retained", "list", filter, "--json"], "")).len()
    };
    assert_eq!(
        (topics(&server, "#"), topics(&server, "home/+/temp")),
        (251, 250)
    );
    assert!(topics(&server, "$SYS/#") > 10);
    let cleared = server.command(&["retained", "clear", "home/#"], "");
    assert_eq!(
        String::from_utf8_lossy(&cleared.stdout),
        "250 retained messages cleared\n"
    );
    refused(
        &server.command(&["retained", "clear", "$SYS/#"], ""),
        "$SYS",
    );
    refused(
        &server.command(&["retained", "clear", "a/#/b"], ""),
        "no topic filter",
    );
    server.kill();
    server.restart();
    assert_eq!(topics(&server, "#"), 1);
}

#[test]
fn the_log_gets_another_filter_while_the_server_runs() {
    let server = Server::dev();
    let ends = |server: &Server, times: usize| {
        Login::new("alice").connect(server.address()).disconnect();
        let log = server.log();
        log.lines()
            .filter(|line| line.contains("connection ends"))
            .count()
            >= times
    };
    assert!(!ends(&server, 1), "it is a line at «debug»");
    let level = |filter: &str| server.command(&["log", "level", filter], "");
    refused(&level("broker=loud"), "broker=loud");
    assert!(level("info,broker=debug").status.success());
    eventually("debug lines", || ends(&server, 1).then_some(()));
    server.signal("HUP");
    let read = "reading the certificates";
    eventually("the reload", || server.log().contains(read).then_some(()));
    let lines = |log: String| {
        log.lines()
            .filter(|it| it.contains("connection ends"))
            .count()
    };
    // What was under way is written; then nothing is.
    eventually("silence", || {
        let before = lines(server.log());
        Login::new("alice").connect(server.address()).settle();
        (lines(server.log()) == before).then_some(())
    });
}

#[test]
fn what_needs_a_running_server_says_so() {
    let mut server = Server::dev();
    server.terminate();
    server.wait_for_exit();
    for command in [
        &["client", "list"][..],
        &["session", "drop", "alice", "x"],
        &["log", "level", "info"],
    ] {
        refused(&server.command(command, ""), "no server runs");
    }
}
