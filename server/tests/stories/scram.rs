//! Logins that prove a password without sending it.

use broker::codec::packet::Packet;
use broker::codec::reason::ReasonCode;

use super::harness::{Launch, Login, Lost, Scram, Server};

fn with_scram(launch: Launch) -> Launch {
    launch.variable("MQCHAT_ACCOUNTS__SCRAM", "true")
}

fn server_of(users: &[&str]) -> Server {
    let server = Server::in_new_directory(with_scram);
    for user in users {
        done(&server, &["user", "add", user], &format!("{user}-secret\n"));
    }
    server
}

fn done(server: &Server, command: &[&str], input: &str) {
    let output = server.command(command, input);
    assert!(output.status.success(), "{output:?}");
}

fn refusal(server: &Server, login: &Login) -> Option<ReasonCode> {
    match login.try_connect(server.address()) {
        Ok(_) => None,
        Err(Lost::Refused(reason)) => Some(reason),
        Err(lost) => panic!("{lost:?}"),
    }
}

const WRONG: Option<ReasonCode> = Some(ReasonCode::NotAuthorized);

#[test]
fn scram_lets_in_who_has_the_password_as_the_same_user() {
    let server = server_of(&["alice", "bob"]);
    let mut bob = Login::new("bob").device("phone").connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut alice = Login::new("alice").scram().connect(server.address());
    alice.publish("chat/to/@bob", "hello").seq();
    assert_eq!(bob.next_json()["from"]["handle"], "alice");
    assert_eq!(refusal(&server, &Login::new("alice")), None, "or sends it");
}

#[test]
fn scram_refuses_wrong_passwords_and_unknown_users_alike() {
    let server = server_of(&["alice"]);
    let parameters = ["alice", "nobody", "nobody"].map(|user| {
        let login = Login::new(user).scram().password("wrong");
        assert_eq!(refusal(&server, &login), WRONG);
        let mut scram = Scram::new(user, "wrong");
        let mut client = login.open(server.address()).unwrap();
        match client.read().unwrap() {
            Packet::Auth(challenge) => drop(scram.answer(&challenge)),
            other => panic!("{other:?} instead of AUTH"),
        }
        scram.parameters
    });
    let [alice, nobody, again] = parameters;
    assert_eq!(nobody, again, "the salt stays the same");
    assert_ne!(alice, nobody);
    assert_eq!(alice.len(), nobody.len());
    assert_eq!(refusal(&server, &Login::new("a/b").scram()), WRONG);
}

#[test]
fn scram_goes_by_the_new_password_and_ends_with_the_user() {
    let server = server_of(&["alice"]);
    let mut live = Login::new("alice").scram().connect(server.address());
    done(&server, &["user", "passwd", "alice"], "other\n");
    let lost = live.wait_for_end();
    assert!(matches!(lost, Lost::Disconnected(_)), "{lost:?}");
    let old = Login::new("alice").scram();
    assert_eq!(refusal(&server, &old), WRONG);
    let new = old.password("other");
    assert_eq!(refusal(&server, &new), None);
    done(&server, &["user", "remove", "alice"], "");
    assert_eq!(refusal(&server, &new), WRONG);
}

#[test]
fn scram_proves_the_password_again_on_a_live_connection() {
    let server = server_of(&["alice", "bob"]);
    let login = Login::new("alice").scram();
    let mut client = login.connect(server.address());
    client.subscribe("chat/me/in/+");
    client.authenticate_again("alice", "alice-secret").unwrap();
    client.publish("chat/to/me", "still here").seq();
    for (user, password) in [("alice", "wrong"), ("bob", "bob-secret")] {
        let mut client = login.connect(server.address());
        let end = client.authenticate_again(user, password);
        let refused = matches!(end, Err(Lost::Disconnected(ReasonCode::NotAuthorized)));
        assert!(refused, "{end:?}");
    }
}

#[test]
fn guesses_by_scram_close_the_way_for_passwords_too() {
    let server = Server::in_new_directory(|launch| {
        with_scram(launch).variable("MQCHAT_ACCOUNTS__LOGIN_FAILURES_BURST", "3")
    });
    done(&server, &["user", "add", "alice"], "alice-secret\n");
    let guess = Login::new("alice").scram().password("guess");
    for _ in 0..3 {
        assert_eq!(refusal(&server, &guess), WRONG);
    }
    let closed = Some(ReasonCode::ConnectionRateExceeded);
    assert_eq!(refusal(&server, &guess), closed);
    assert_eq!(refusal(&server, &Login::new("alice").scram()), closed);
    assert_eq!(refusal(&server, &Login::new("alice")), closed);
    assert!(server.log().contains("login refused"));
}

/// Made by `mosquitto_passwd` of `alice-secret`.
const IMPORTED: &str = "alice:$7$101$21Jr9G9OKVDrLCtI$+vCLiQtxB6EXCAA7zS0tXRwfetWaT+YhEUwryn5RTji4n8y2JUIaQCzt3U8cQm7x1qNYn+9Vft8ZzNR+FMd7TA==\n";

#[test]
fn an_imported_user_can_use_scram_after_the_first_login_with_the_password() {
    let server = server_of(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), IMPORTED).unwrap();
    done(
        &server,
        &["user", "import", file.path().to_str().unwrap()],
        "",
    );
    let scram = Login::new("alice").scram();
    assert_eq!(refusal(&server, &scram), WRONG);
    assert_eq!(refusal(&server, &Login::new("alice")), None);
    assert_eq!(refusal(&server, &scram), None);
}

#[test]
fn without_the_option_scram_is_not_offered() {
    let server = Server::dev();
    let refused = refusal(&server, &Login::new("alice").scram());
    assert_eq!(refused, Some(ReasonCode::BadAuthenticationMethod));
}
