//! The whole screen, with somebody in front of it.

use tempfile::TempDir;

use crate::harness::{Chat, Server, Terminal, chat, key};

fn address(server: &Server) -> String {
    format!("mqtt://{}", server.address())
}

fn make_user(server: &Server, user: &str) {
    let output = chat(&address(server), user, &["--plain"], "");
    assert!(output.status.success(), "{output:?}");
}

fn send(server: &Server, user: &str, to: &str, input: &str) {
    let arguments = ["--to", to, "--no-commands"];
    let output = chat(&address(server), user, &arguments, input);
    assert!(output.status.success(), "{output:?}");
}

fn online(server: &Server, user: &str) -> Terminal {
    let terminal = Chat::of(&address(server), user).on_screen();
    terminal.until_shown("+ online");
    terminal
}

#[test]
fn two_users_chat_from_screen_to_screen() {
    let server = Server::dev();
    let mut bob = online(&server, "bob");
    bob.until_shown("Nothing here yet.");
    let mut alice = online(&server, "alice");
    alice.write_to("bob", "hello bob");
    bob.until_shown("alice hello bob");
    bob.until_shown(">  @alice");
    // Bob's screen shows it at the end, before his eyes.
    alice.until_shown("hello bob  ✓✓ read");
    bob.keys("and hello");
    alice.until_shown("bob is typing");
    bob.keys(key::ALT_ENTER);
    bob.keys("alice");
    bob.keys(key::ENTER);
    let screen = alice.until_shown("bob and hello");
    assert!(screen.contains("     alice"), "{screen}");

    // Alice reacts to it, replies to it, and finds out who read it.
    alice.keys(key::CONTROL_UP);
    alice.keys("+");
    alice.until_shown("React:");
    alice.keys("1\r");
    bob.until_shown("[👍 1]");
    alice.until_shown("[👍 1*]");
    alice.keys(key::CONTROL_UP);
    alice.keys("r");
    alice.until_shown("reply to bob: and hello");
    alice.keys("how are you?\r");
    bob.until_shown("↳ you: and hello");
    alice.until_shown("how are you?  ✓✓ read");
    alice.keys(key::CONTROL_UP);
    alice.keys("i");
    alice.until_shown("@bob: read");
    alice.keys(key::ESC);

    // The last message is edited with an arrow.
    alice.until("the log", |screen| !screen.contains("@bob: read"));
    alice.keys(key::UP);
    alice.until_shown("editing you: how are you?");
    alice.keys(" Well?\r");
    bob.until_shown("how are you? Well?");
    bob.until_shown("(edited)");
}

#[test]
fn a_group_is_made_and_unread_messages_are_counted() {
    let server = Server::dev();
    make_user(&server, "carol");
    let mut bob = online(&server, "bob");
    let mut alice = online(&server, "alice");
    alice.write_to("bob", "before the group");
    bob.until_shown("before the group");
    alice.until_shown(">  @bob");
    alice.keys(key::CONTROL_G);
    alice.until_shown("Title of the new group");
    alice.keys("Lunch\r");
    alice.until_shown("New group: Lunch");
    alice.keys("@bo\t");
    alice.until_shown("> @bob");
    alice.keys("@carol\r");
    alice.until_shown("you began this conversation with bob, carol");
    alice.keys("soup?\r");
    alice.until_shown("soup?  ✓");
    let screen = bob.until_shown(" * #Lunch         1│");
    assert!(!screen.contains("soup?"), "{screen}");
    bob.keys(key::CONTROL_N);
    bob.until_shown("alice soup?");
    bob.until_shown("new");
    bob.until("nothing unread", |screen| !screen.contains(" 1│"));
    alice.keys("/who\r");
    alice.until_shown("@carol, member");
}

#[test]
fn a_search_finds_and_goes_there() {
    let server = Server::dev();
    make_user(&server, "alice");
    let lines = (0..300).map(|number| format!("line {number} of many"));
    let lines = lines.collect::<Vec<_>>().join("\n");
    send(&server, "bob", "@alice", &lines);
    let mut alice = online(&server, "alice");
    alice.until_shown("line 299 of many");
    alice.keys(key::PAGE_UP);
    alice.until("the page before", |screen| {
        !screen.contains("line 299 of many")
    });
    alice.until_shown("scrolled back");
    alice.keys(key::ESC);
    alice.until_shown("line 299 of many");
    alice.keys(key::CONTROL_F);
    alice.until_shown("Search all conversations");
    alice.keys("MANY 42\r");
    alice.until_shown("found; Enter goes there");
    alice.until_shown("line 142 of many");
    alice.keys(key::ENTER);
    alice.until("the place", |screen| {
        screen.contains("line 242 of many") && !screen.contains("Search all")
    });
    alice.keys(key::ESC);
    alice.until("nothing selected", |screen| {
        !(0..3).any(|digit| screen.contains(&format!("│>{digit}")))
    });
    alice.keys(key::ESC);
    alice.until_shown("line 299 of many");
}

#[test]
fn what_is_written_offline_waits_and_arrives_once() {
    let mut server = Server::dev();
    let bob = online(&server, "bob");
    let folder = TempDir::new().unwrap();
    let chat = || Chat::in_folder(&address(&server), "alice", folder.path()).on_screen();
    let mut alice = chat();
    alice.until_shown("+ online");
    alice.write_to("bob", "before");
    bob.until_shown("alice before");
    alice.until_shown("before  ✓✓ read");
    alice.until_shown(">  @bob");
    let port = server.address().to_string();
    server.kill();
    alice.until_shown("- offline");
    alice.keys("during\r");
    alice.until_shown("during  ⧗ waiting");
    alice.until_shown("1 waiting to be sent");

    // It waits also for the next process, however this one ends; that shows what is there without a server.
    alice.signal("KILL");
    alice.wait_for_exit();
    let again = Chat::in_folder(&format!("mqtt://{port}"), "alice", folder.path());
    let alice = again.on_screen();
    alice.until_shown("before  ✓✓ read");
    alice.until_shown("during  ⧗ waiting");

    server.restart_as(|launch| launch.listen(&port));
    bob.until_shown("alice during");
    alice.until_shown("+ online");
    let screen = alice.until_shown("during  ✓✓ read");
    assert_eq!(screen.matches("during").count(), 1, "{screen}");
    assert_eq!(bob.screen().matches("alice during").count(), 1);
}

#[test]
fn what_was_refused_is_said_and_can_be_dropped() {
    let server = Server::dev();
    let mut alice = online(&server, "alice");
    alice.write_to("nobody", "hello?");
    alice.until_shown("not sent: refused: not_found");
    alice.until_shown("✗ refused: not_found");
    alice.keys(key::CONTROL_UP);
    alice.keys("x");
    alice.until("nothing refused", |screen| !screen.contains("hello?"));
}

#[test]
fn no_text_of_others_reaches_the_terminal_as_control_bytes() {
    let server = Server::dev();
    make_user(&server, "alice");
    let mut alice = online(&server, "alice");
    let evil = "\u{1b}]0;pwned\u{7} \u{1b}[2J \u{9b}31m \u{202e}desrever \u{200f} done";
    send(&server, "eve", "@alice", &format!("{evil}\n"));
    let screen = alice.until_shown("done");
    assert!(screen.contains(r"\u{1b}]0;pwned\u{7}"), "{screen}");
    let arguments = ["--plain"];
    let group = format!("/group {evil} @alice\ncome in\n");
    let output = chat(&address(&server), "eve", &arguments, &group);
    let refused = !output.status.success();
    if refused {
        // Whoever refuses such a title has to say so harmlessly.
        assert!(!output.stderr.contains(&0x1b), "{output:?}");
    } else {
        alice.until_shown(r"#\u{1b}]0;pwn");
        alice.keys(key::CONTROL_N);
        alice.until_shown("come in");
    }
    alice.keys(key::CONTROL_F);
    alice.until_shown("Search all");
    alice.keys("desrever\r");
    alice.until_shown("1 found");
    let bytes = alice.bytes();
    for sequence in ["\u{1b}]0;", "pwned\u{7}", "\u{9b}", "\u{202e}", "\u{200f}"] {
        let sequence = sequence.as_bytes();
        let found = bytes
            .windows(sequence.len())
            .any(|window| window == sequence);
        assert!(!found, "{sequence:?}");
    }
    // Entering clears the screen; a message does not.
    let cleared = bytes
        .windows(4)
        .filter(|window| *window == b"\x1b[2J")
        .count();
    assert!(cleared <= 1, "{cleared}");
}

#[test]
fn another_size_is_another_layout() {
    let server = Server::dev();
    make_user(&server, "alice");
    send(
        &server,
        "bob",
        "@alice",
        "some words that are broken into lines where they do not fit any more\n",
    );
    let alice = online(&server, "alice");
    let wide = alice.until_shown("some words that are broken");
    assert!(wide.contains("│"), "{wide}");
    alice.resize(12, 40);
    alice.until("one column", |screen| {
        !screen.contains('│') && screen.contains("fit any")
    });
    alice.resize(4, 10);
    alice.until_shown("too small");
    alice.resize(30, 120);
    alice.until_shown("some words that are broken into lines where they do not fit any more");
}

#[test]
fn the_terminal_is_given_back_on_every_way_out() {
    let server = Server::dev();
    for signal in [None, Some("TERM"), Some("INT"), Some("HUP")] {
        let mut alice = online(&server, "alice");
        match signal {
            None => alice.keys(key::CONTROL_Q),
            Some(signal) => alice.signal(signal),
        }
        let status = alice.wait_for_exit();
        assert!(status.success(), "{signal:?}: {status}");
        alice.assert_restored();
    }
}

#[test]
fn the_password_is_asked_for_and_not_shown() {
    let server = Server::dev();
    make_user(&server, "alice");
    let mut alice = Chat::with_password(&address(&server), "alice", None)
        .argument("--memory")
        .on_screen();
    alice.until_shown("Password of alice:");
    alice.keys("alice-secret\r");
    alice.until_shown("+ online");
    let bytes = String::from_utf8_lossy(&alice.bytes()).into_owned();
    assert!(!bytes.contains("alice-secret"), "{bytes}");

    // Whatever ends the question gives the terminal back.
    for end in ["TERM", "\x03"] {
        let mut asked = Chat::with_password(&address(&server), "alice", None)
            .argument("--memory")
            .on_screen();
        asked.until_shown("Password of alice:");
        asked.until("no echo", |_| !asked.echoes());
        match end {
            "TERM" => asked.signal(end),
            key => asked.keys(key),
        }
        assert_eq!(asked.wait_for_exit().code(), Some(1));
        asked.until_shown("no password was given");
        assert!(asked.echoes(), "{end:?}");
    }

    let mut wrong = Chat::with_password(&address(&server), "alice", Some("wrong-secret"))
        .argument("--memory")
        .on_screen();
    wrong.until_shown("not let in");
    wrong.keys(key::CONTROL_Q);
    assert!(wrong.wait_for_exit().success());
}

#[test]
fn what_is_pasted_is_one_message_until_enter() {
    let server = Server::dev();
    make_user(&server, "bob");
    let mut alice = online(&server, "alice");
    alice.write_to("bob", "first");
    alice.until_shown("first  ✓");
    alice.keys("\x1b[200~one\ntwo\rthree\x1b[201~");
    alice.until_shown("  three");
    alice.keys(key::ENTER);
    alice.until_shown("three  ✓ sent");
    let bob = chat(&address(&server), "bob", &["--to", "@alice"], "/history\n");
    let heard = String::from_utf8(bob.stdout).unwrap();
    let log: Vec<_> = heard.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(log, ["#1 alice: first", r"#2 alice: one\ntwo\nthree"]);
}

#[test]
fn a_note_to_oneself_begins_with_its_first_message() {
    let server = Server::dev();
    let mut alice = online(&server, "alice");
    alice.keys(key::CONTROL_K);
    alice.until_shown("Go to, or write to a handle");
    alice.keys("me");
    alice.until_shown(">  note to self");
    alice.keys(key::ENTER);
    alice.until("the note", |screen| !screen.contains("Go to, or write"));
    let screen = alice.until_shown("No messages yet.");
    assert!(!screen.contains("not_found"), "{screen}");
    alice.keys("buy milk\r");
    alice.until_shown("you buy milk  ✓");
    alice.until_shown(">  note to self");
}

#[test]
fn what_is_typed_before_a_conversation_is_open_goes_there() {
    let server = Server::dev();
    make_user(&server, "carol");
    let bob = online(&server, "bob");
    let mut alice = online(&server, "alice");
    alice.write_to("carol", "first");
    alice.until_shown("first  ✓");
    alice.keys("/to @bob\rtyped ahead\r");
    bob.until_shown("alice typed ahead");
}
