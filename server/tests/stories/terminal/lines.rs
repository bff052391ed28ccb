//! Lines in, lines out.

use broker::codec::packet::Version;
use tempfile::TempDir;

use crate::harness::{Chat, Launch, Server, Sub, chat, publish};
use crate::transports::{self, Site};

fn address(server: &Server) -> String {
    format!("mqtt://{}", server.address())
}

/// A user exists from the first login on.
fn make_user(server: &Server, user: &str) {
    let output = chat(&address(server), user, &["--plain"], "");
    assert!(output.status.success(), "{output:?}");
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_pipe_speaks_with_mosquitto_in_both_directions() {
    let server = Server::dev();
    make_user(&server, "bob");
    let bob = Sub::start(
        server.address(),
        Version::V311,
        "bob",
        &["-i", "bob-1", "-c", "-q", "1", "-t", "chat/me/txt/+"],
    );
    let mut alice = Chat::of(&address(&server), "alice")
        .argument("--to")
        .argument("@bob")
        .in_pipes();
    alice.line("hello bob");
    alice.line("//etc is a folder");
    assert_eq!(bob.next_line(), "alice: hello bob");
    assert_eq!(bob.next_line(), "alice: /etc is a folder");
    publish(
        server.address(),
        Version::V311,
        "bob",
        &["-t", "chat/to/@alice", "-m", "two\nlines \u{1b}[2J\\"],
    );
    assert_eq!(alice.next_line(), r"bob: two\nlines \u{1b}[2J\\");
    alice.end();
    assert_eq!(alice.wait_for_exit(), (Some(0), vec![]));
}

#[test]
fn what_was_missed_comes_first_and_once() {
    let server = Server::dev();
    let folder = TempDir::new().unwrap();
    let bob = || {
        Chat::in_folder(&address(&server), "bob", folder.path())
            .argument("--plain")
            .argument("--follow")
            .in_pipes()
    };
    let mut first = bob();
    make_user(&server, "alice");
    first.end();
    let to_bob = ["--to", "bob", "--no-commands"];
    let sent = chat(&address(&server), "alice", &to_bob, "one\n/two\n");
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(first.next_line(), "alice: one");
    assert_eq!(first.next_line(), "alice: /two");
    first.terminate();
    assert_eq!(first.wait_for_exit(), (Some(0), vec![]));
    let sent = chat(&address(&server), "alice", &to_bob, "three\nfour\n");
    assert!(sent.status.success(), "{sent:?}");
    let mut second = bob();
    assert_eq!(second.next_line(), "alice: three");
    assert_eq!(second.next_line(), "alice: four");
    second.terminate();
    assert_eq!(second.wait_for_exit(), (Some(0), vec![]));
}

#[test]
fn a_refusal_is_told_with_its_code_and_makes_the_exit_code_one() {
    let server = Server::dev();
    let output = chat(&address(&server), "alice", &["--to", "@nobody"], "hello\n");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaints = said(&output.stderr);
    assert!(
        complaints.contains("not sent to @nobody: `hello`: refused: not_found"),
        "{complaints}"
    );
    assert!(complaints.contains("1 not done"), "{complaints}");
    let output = chat(&address(&server), "alice", &[], "hello\n");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output.stderr).contains("to whom?"), "{output:?}");
    let output = chat(
        &address(&server),
        "alice",
        &["--to", "not a handle"],
        "hello\n",
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = chat("http://127.0.0.1", "alice", &[], "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn nothing_is_lost_if_the_server_is_killed_before_the_end_of_the_input() {
    let mut server = Server::dev();
    make_user(&server, "bob");
    let folder = TempDir::new().unwrap();
    let mut alice = Chat::in_folder(&address(&server), "alice", folder.path())
        .argument("--to")
        .argument("@bob")
        .in_pipes();
    let wanted: Vec<_> = (0..200).map(|number| format!("alice: {number}")).collect();
    for number in 0..100 {
        alice.line(&number.to_string());
    }
    let port = server.address().to_string();
    server.kill();
    for number in 100..200 {
        alice.line(&number.to_string());
    }
    alice.end();
    alice.next_complaint("offline");
    server.restart_as(|launch| launch.listen(&port));
    assert_eq!(alice.wait_for_exit(), (Some(0), vec![]));
    let bob = Sub::start(
        server.address(),
        Version::V311,
        "bob",
        &["-i", "bob-1", "-c", "-q", "1", "-t", "chat/me/txt/+"],
    );
    assert_eq!(bob.next_lines(200), wanted);
    bob.kill();
}

#[test]
fn what_could_not_be_sent_in_time_is_sent_by_the_next_one() {
    let mut server = Server::dev();
    make_user(&server, "bob");
    let folder = TempDir::new().unwrap();
    let alice = |address: &str, wait: &str| {
        Chat::in_folder(address, "alice", folder.path())
            .argument("--to")
            .argument("@bob")
            .argument("--wait")
            .argument(wait)
            .in_pipes()
    };
    let port = server.address().to_string();
    let address = address(&server);
    server.kill();
    let mut first = alice(&address, "0");
    first.line("hello");
    first.end();
    first.next_complaint("1 not sent yet: sent when this user chats here again");
    assert_eq!(first.wait_for_exit(), (Some(1), vec![]));
    server.restart_as(|launch| launch.listen(&port));
    let mut second = alice(&address, "60");
    second.end();
    assert_eq!(second.wait_for_exit(), (Some(0), vec![]));
    let bob = chat(&address, "bob", &["--to", "@alice"], "/history\n");
    let log: Vec<_> = said(&bob.stdout).lines().map(str::to_owned).collect();
    let logged = log.iter().filter(|line| line.starts_with('#')).count();
    assert_eq!(
        (log.last().map(String::as_str), logged),
        (Some("#1 alice: hello"), 1)
    );
}

#[test]
fn commands_do_in_a_pipe_what_they_do_on_a_screen() {
    let server = Server::dev();
    for user in ["bob", "carol"] {
        make_user(&server, user);
    }
    let mut alice = Chat::of(&address(&server), "alice")
        .argument("--follow")
        .in_pipes();
    alice.line("/group Lunch today @bob @nobody");
    alice.next_complaint("not_found");
    alice.line("/group Lunch today @bob @carol");
    alice.next_complaint("now in g.");
    alice.line("soup or salad?");
    alice.line("/react 👍");
    alice.line("/edit soup or bread?");
    alice.line("/status");
    alice.line("/who");
    alice.line("/nonsense");
    alice.next_complaint("no command /nonsense");
    let out: Vec<_> = std::iter::from_fn(|| Some(alice.next_line()))
        .take(7)
        .collect();
    assert!(out[0].contains("read by 0 of 2"), "{out:?}");
    assert_eq!(out[3], "3 members", "{out:?}");
    assert!(out[4..].contains(&"@alice, owner".to_owned()), "{out:?}");
    let bob = chat(
        &address(&server),
        "bob",
        &["--to", "#lunch TODAY"],
        "/search soup\n/history 5\n/read\nsoup\n/list\n",
    );
    assert!(bob.status.success(), "{bob:?}");
    let heard = said(&bob.stdout);
    for wanted in [
        "alice: soup or bread?",
        "alice began this conversation with",
        " 0 #Lunch today",
    ] {
        assert!(heard.contains(wanted), "{wanted}: {bob:?}");
    }
    assert_eq!(alice.next_line(), "bob: soup");
    alice.line("/quit");
    // One line made no sense, and one group.
    assert_eq!(alice.wait_for_exit(), (Some(1), vec![]));
}

#[test]
fn a_reader_who_goes_away_ends_it_quietly() {
    let server = Server::dev();
    make_user(&server, "alice");
    let port = server.address().port();
    let script = format!(
        "\"$0\" chat alice --memory --follow --server mqtt://127.0.0.1:{port} 2>\"$1\" </dev/null | head -n 1; echo \"${{PIPESTATUS[0]}}\""
    );
    let folder = TempDir::new().unwrap();
    let complaints = folder.path().join("complaints");
    let mut reader = std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_mqchat")])
        .arg(&complaints)
        .env("MQCHAT_PASSWORD", "alice-secret")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It is told the first line, and ends when it tries to tell another one.
    let mut count = 0;
    crate::harness::eventually("the pipe to end", || {
        let output = chat(
            &address(&server),
            "bob",
            &["--to", "@alice"],
            &format!("{count}\n"),
        );
        assert!(output.status.success(), "{output:?}");
        count += 1;
        reader.try_wait().unwrap()
    });
    let output = reader.wait_with_output().unwrap();
    assert_eq!(said(&output.stdout), "bob: 0\n0\n");
    assert_eq!(std::fs::read_to_string(complaints).unwrap(), "");
}

#[test]
fn a_wrong_password_is_said() {
    let server = Server::dev();
    make_user(&server, "alice");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .args(["chat", "alice", "--memory", "--server", &address(&server)])
        .env("MQCHAT_PASSWORD", "wrong")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let complaint = said(&output.stderr);
    assert!(complaint.contains("not let in"), "{complaint}");
    assert!(!complaint.contains("wrong"), "{complaint}");
}

#[test]
fn a_signal_ends_it_also_while_nobody_reads_what_it_prints() {
    let server = Server::dev();
    make_user(&server, "alice");
    let long = "x".repeat(30_000);
    let many = format!("{long}\n{long}\n{long}\n{long}\n");
    let output = chat(&address(&server), "bob", &["--to", "@alice"], &many);
    assert!(output.status.success(), "{output:?}");
    let mut alice = std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .args(["chat", "alice", "--memory", "--follow"])
        .args(["--server", &address(&server)])
        .env("MQCHAT_PASSWORD", "alice-secret")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It has begun to print when the first byte is there, and cannot go on when the pipe is full.
    let mut out = alice.stdout.take().unwrap();
    let mut first = [0];
    std::io::Read::read_exact(&mut out, &mut first).unwrap();
    let kill = "kill -TERM \"$0\"";
    let killed = std::process::Command::new("sh")
        .args(["-c", kill, &alice.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let status = crate::harness::eventually("it to end", || alice.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn it_speaks_tls_with_a_password_from_a_file_and_one_program_has_the_folder() {
    let site = Site::new();
    let (_server, lines) = site.serve(&site.tls("tls"), Launch::dev);
    let port = transports::address(&lines[1]).port();
    let url = format!("mqtts://localhost:{port}");
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "alice-secret\nnot this\n").unwrap();
    let start = || {
        Chat::with_password(&url, "alice", None)
            .argument("--password-file")
            .argument(password.to_str().unwrap())
            .argument("--ca")
            .argument(site.file("ca.pem").to_str().unwrap())
            .argument("--folder")
            .argument(folder.path().join("made/store").to_str().unwrap())
            .argument("--to")
            .argument("me")
            .in_pipes()
    };
    let mut alice = start();
    alice.line("to myself");
    alice.line("/history 1");
    assert_eq!(alice.next_line(), "#1 alice: to myself");
    let mode = std::fs::metadata(folder.path().join("made/store")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o777, 0o700);
    let store = std::fs::read_dir(folder.path().join("made/store")).unwrap();
    for file in store {
        let mode = file.unwrap().metadata().unwrap().permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
        assert_eq!(mode & 0o077, 0);
    }
    let mut other = start();
    let complaint = other.next_complaint("in use");
    assert!(complaint.contains("take another --folder"), "{complaint}");
    assert_eq!(other.wait_for_exit(), (Some(1), vec![]));
    alice.end();
    assert_eq!(alice.wait_for_exit(), (Some(0), vec![]));
}
