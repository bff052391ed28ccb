//! Who may connect, and what it costs.

use std::net::{Ipv6Addr, SocketAddr};
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
fn a_dictionary_is_stopped_where_it_comes_from_and_nobody_else() {
    for version in VERSIONS {
        let server = Server::in_new_directory(|launch| {
            launch
                .variable("MQCHAT_ACCOUNTS__LOGIN_FAILURES_BURST", "3")
                .variable("MQCHAT_ACCOUNTS__ADDRESS_LOGIN_FAILURES_BURST", "6")
                .listen("[::]:0")
        });
        for user in ["alice", "bob"] {
            let added = server.command(&["user", "add", user], &format!("{user}-secret\n"));
            assert!(added.status.success(), "{added:?}");
        }
        let token = token_of_alice(&server, "phone");
        let port = server.address().port();
        let (here, there) = (
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        );
        let login = |user: &str| Login::new(user).version(version);
        let refusal = |from: SocketAddr, login: Login| match login.try_connect(from) {
            Ok(_) => None,
            Err(Lost::Refused(reason)) => Some(reason),
            Err(lost) => panic!("{lost:?}"),
        };
        let wrong = Some(ReasonCode::BadUserNameOrPassword);
        let closed = Some(match version {
            Version::V311 => ReasonCode::ServerUnavailable,
            Version::V5 => ReasonCode::ConnectionRateExceeded,
        });
        for _ in 0..3 {
            assert_eq!(refusal(here, login("alice").password("guess")), wrong);
        }
        assert_eq!(refusal(here, login("alice").password("guess")), closed);
        assert_eq!(refusal(here, login("alice")), closed, "also the right one");
        assert_eq!(refusal(here, login("alice").password(&token)), None);
        assert_eq!(refusal(here, login("bob")), None, "others go on");
        assert_eq!(refusal(there, login("alice")), None, "from elsewhere too");
        for name in ["u1", "u2", "u3"] {
            assert_eq!(refusal(here, login(name)), wrong);
        }
        assert_eq!(refusal(here, login("bob")), closed, "the whole address");
        assert_eq!(refusal(there, login("bob")), None);
    }
}

#[test]
fn refused_logins_are_told_in_the_log_and_do_not_fill_it() {
    let mut server = Server::in_new_directory(|launch| {
        launch.variable("MQCHAT_ACCOUNTS__ADDRESS_LOGIN_FAILURES_BURST", "10")
    });
    let login = Login::new("mallory\u{1b}[2J")
        .client_id("his-\u{202e}client")
        .password("not-to-be-told");
    assert!(refusal(&server, &login).is_some());
    for number in 0..300 {
        let login = Login::new(&format!("user-{number}")).password("not-to-be-told");
        assert!(refusal(&server, &login).is_some());
    }
    server.terminate();
    server.wait_for_exit();
    let log = server.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("login refused"))
        .collect();
    for part in [
        "INFO",
        "mallory",
        "his-",
        "127.0.0.1:",
        "bad user name or password",
    ] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'));
    assert!(!log.contains("not-to-be-told"));
    let told = lines.iter().filter(|line| line.contains("reason=")).count();
    let more = lines.last().unwrap();
    let untold = more.split(' ').find_map(|word| word.parse::<usize>().ok());
    assert_eq!(told + untold.unwrap(), 301, "{more}");
    assert!(more.contains("more in the last minute"), "{more}");
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
    let mut server = Launch::new(&data_dir).dev().listen("0.0.0.0:0").spawn();
    assert_eq!(server.wait_for_exit().code(), Some(2));
    let log = server.log();
    assert!(log.contains("loopback"), "{log}");
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
