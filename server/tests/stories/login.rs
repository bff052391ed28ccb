//! Who may connect, and what it costs.

use std::thread;
use std::time::Duration;

use broker::codec::packet::Version;
use broker::codec::reason::ReasonCode;

use super::harness::{Launch, Login, Lost, Server, Stopwatch, VERSIONS};

fn refusal(server: &Server, login: &Login) -> Option<ReasonCode> {
    match login.try_connect(server.address()) {
        Ok(_) => None,
        Err(Lost::Refused(reason)) => Some(reason),
        Err(lost) => panic!("{lost:?}"),
    }
}

/// A server on which alice has a password.
fn server_of_alice() -> Server {
    let server = Server::in_new_directory(|launch| launch);
    let added = server.command(&["user", "add", "alice"], "alice-secret\n");
    assert!(added.status.success(), "{added:?}");
    server
}

fn token_of_alice(server: &Server, label: &str) -> String {
    let issued = server.command(&["token", "issue", "alice", "--label", label], "");
    assert!(issued.status.success(), "{issued:?}");
    let issued = String::from_utf8(issued.stdout).unwrap();
    let longest = issued.split_whitespace().max_by_key(|word| word.len());
    longest.unwrap().to_owned()
}

#[test]
fn only_the_right_password_connects() {
    let server = server_of_alice();
    for version in VERSIONS {
        let login = |user: &str| Login::new(user).version(version);
        assert_eq!(refusal(&server, &login("alice")), None);
        let wrong = Some(ReasonCode::BadUserNameOrPassword);
        for login in [
            login("alice").password("wrong"),
            login("alice").password(""),
            login("nobody"),
            login("Alice"),
            login("../alice"),
        ] {
            assert_eq!(refusal(&server, &login), wrong);
        }
    }
}

#[test]
fn dev_learns_the_first_password_and_keeps_to_it() {
    let server = Server::dev();
    assert_eq!(refusal(&server, &Login::new("carol")), None);
    assert_eq!(refusal(&server, &Login::new("carol")), None);
    let other = Login::new("carol").password("other");
    assert_eq!(
        refusal(&server, &other),
        Some(ReasonCode::BadUserNameOrPassword)
    );
    assert!(server.log().contains("dev"), "it says so at start");
}

#[test]
fn token_connects_until_it_is_revoked() {
    let server = server_of_alice();
    let token = token_of_alice(&server, "phone");
    let login = Login::new("alice").password(&token);
    assert_eq!(refusal(&server, &login), None);
    assert_eq!(
        refusal(&server, &Login::new("bob").password(&token)),
        Some(ReasonCode::BadUserNameOrPassword)
    );

    let listed = String::from_utf8(server.command(&["token", "list", "alice"], "").stdout).unwrap();
    assert!(
        listed.contains("phone") && !listed.contains(&token),
        "{listed}"
    );
    let line = listed.lines().find(|line| line.contains("phone")).unwrap();
    let id = line.split_whitespace().next().unwrap();
    assert!(
        server
            .command(&["token", "revoke", "alice", id], "")
            .status
            .success()
    );
    assert_eq!(
        refusal(&server, &login),
        Some(ReasonCode::BadUserNameOrPassword)
    );
}

#[test]
fn second_connection_takes_over_but_only_from_the_same_user() {
    let server = Server::dev();
    let mut first = Login::new("alice")
        .device("phone")
        .connect(server.address());
    let mut other = Login::new("bob").device("phone").connect(server.address());
    let mut second = Login::new("alice")
        .device("phone")
        .connect(server.address());
    assert!(matches!(
        first.wait_for_end(),
        Lost::Disconnected(ReasonCode::SessionTakenOver)
    ));
    other.settle();
    second.settle();
}

/// Times of so many logins, or of their refusals, ascending.
fn login_times(server: &Server, login: &Login, count: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let watch = Stopwatch::start();
            let client = login.try_connect(server.address());
            let time = watch.elapsed();
            if let Ok(client) = client {
                client.disconnect();
            }
            time
        })
        .collect();
    times.sort();
    times
}

/// The bounds of the design hold for a release build on a quiet machine; a debug build between other tests gets ten
/// times as much. That it hashes nothing shows beside a login that does.
#[test]
fn login_is_quick_with_a_token_or_a_cached_password() {
    let server = server_of_alice();
    let slack = if cfg!(debug_assertions) { 10 } else { 1 };
    let logins = ["alice", "zoe"].map(|user| {
        if user == "zoe" {
            server.command(&["user", "add", user], "zoe-secret\n");
        }
        Login::new(user)
    });
    let watch = Stopwatch::start();
    thread::scope(|scope| {
        for login in &logins {
            scope.spawn(|| login.connect(server.address()));
        }
    });
    let first = watch.elapsed();
    eprintln!("two first logins at once: {first:?}");
    assert!(first < Duration::from_millis(300) * slack, "{first:?}");
    let hashed = login_times(&server, &Login::new("alice").password("wrong"), 5)[2];
    let with_token = Login::new("alice").password(&token_of_alice(&server, "watch"));
    for (what, login) in [("cached password", &logins[0]), ("token", &with_token)] {
        let times = login_times(&server, login, 200);
        let (p50, p99) = (times[99], times[197]);
        eprintln!("{what}: p50 {p50:?}, p99 {p99:?}");
        assert!(p50 * 4 < hashed, "{what}: {p50:?} beside {hashed:?}");
        assert!(p99 < Duration::from_millis(50) * slack, "{what}: {p99:?}");
    }
}

#[test]
fn dev_listens_on_loopback_only() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let mut server = Launch::new(&data_dir)
        .dev()
        .argument("--listen=0.0.0.0:0")
        .spawn();
    assert!(!server.wait_for_exit().success());
    let log = server.log();
    assert!(
        log.contains("loopback")
            || log.contains("--dev")
            || log.contains("cannot be used multiple times"),
        "{log}"
    );
}

#[test]
fn empty_client_id_is_replaced_only_with_a_clean_session() {
    let server = Server::dev();
    for version in VERSIONS {
        let login = Login::new("alice").version(version).client_id("");
        assert_eq!(refusal(&server, &login), None);
    }
    let login = Login::new("alice").version(Version::V311).device("");
    assert!(matches!(
        login.try_connect(server.address()),
        Err(Lost::Refused(ReasonCode::ClientIdentifierNotValid) | Lost::Closed(_))
    ));
}
