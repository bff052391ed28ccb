//! What an operator does: users, stop, a second start, configuration.

use std::fs;
use std::path::Path;

use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;

use super::harness::{Launch, Login, Lost, Server, VERSIONS, mqchat};

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
    let mut alice = Login::new("alice").connect(server.address());
    alice.publish("chat/to/me", "kept");
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

    let new = directory.path().join("new");
    refused(&new, "load", "/nowhere/dump", "/nowhere/dump");
    assert!(!new.exists(), "a mistyped name makes nothing");
    let cut = directory.path().join("cut");
    fs::write(&cut, &before[..before.len() - 40]).unwrap();
    refused(&new, "load", cut.to_str().unwrap(), "cut off");
    assert!(mqchat(&new, &["store", "load", file], "").status.success());
    let server = Launch::new(&new).dev().start();
    let mut alice = Login::new("alice").connect(server.address());
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
