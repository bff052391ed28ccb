//! Users who are removed by the operator leave their groups, whether the server runs or not.

use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS, eventually};

fn run(server: &Server, arguments: &[&str]) {
    let output = server.command(arguments, "secret\n");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// A server with these users, whose password is `secret`.
fn server_of(users: &[&str]) -> Server {
    let server = Server::in_new_directory(|launch| launch);
    for user in users {
        run(&server, &["user", "add", user, "--password-stdin"]);
    }
    server
}

fn members(client: &mut Client, cid: &str) -> Vec<(String, String)> {
    let conversation = client.call("conv.get", &json!({"cid": cid})).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut members: Vec<_> = conversation["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| (text(&member["handle"]), text(&member["role"])))
        .collect();
    members.sort();
    members
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(handle, role): &(&str, &str)| ((*handle).to_owned(), (*role).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn a_removed_user_leaves_and_is_not_waited_for() {
    for version in VERSIONS {
        let server = server_of(&["alice", "bob", "carol"]);
        let login = |user| {
            let login = Login::new(user).password("secret").version(version);
            login.connect(server.address())
        };
        let (mut alice, mut carol) = (login("alice"), login("carol"));
        let request = json!({"title": "T", "members": ["@bob", "@carol"]});
        let group = alice.call("conv.create", &request).unwrap();
        let cid = group["cid"].as_str().unwrap();
        alice.publish("chat/to/@bob", "hello");
        carol.subscribe("chat/me/in/+");
        assert_eq!(carol.next_json()["kind"], "created");
        run(&server, &["user", "remove", "bob"]);
        let left = carol.next_json();
        assert_eq!(
            (&left["kind"], &left["from"]["handle"]),
            (&json!("left"), &json!("bob"))
        );
        assert_eq!(
            members(&mut alice, cid),
            pairs(&[("alice", "owner"), ("carol", "member")])
        );
        for member in [
            "@bob".to_owned(),
            format!("u.{}", left["from"]["uid"].as_str().unwrap()),
        ] {
            let gone = alice.try_call("conv.remove", &json!({"cid": cid, "member": member}));
            assert_eq!(gone.unwrap_err()["message"], "no such member", "{member}");
        }

        alice.subscribe("chat/me/rcpt/+");
        alice.publish(&format!("chat/to/{cid}"), "after bob went");
        let message = carol.next_json();
        let read = message["seq"].to_string();
        carol.publish(&format!("chat/c/{cid}/read"), &read);
        eventually("everybody to have read", || {
            let receipt = alice.next_json();
            (receipt["read_all"] == message["seq"]).then_some(())
        });
        let status = alice
            .call("msg.status", &json!({"cid": cid, "seq": message["seq"]}))
            .unwrap();
        assert_eq!((&status["read"], &status["of"]), (&json!(1), &json!(1)));
    }
}

#[test]
fn the_groups_of_a_removed_owner_get_another_one_at_the_next_start_too() {
    let mut server = server_of(&["alice", "bob", "carol"]);
    let login = |server: &Server, user| {
        let login = Login::new(user).password("secret");
        login.connect(server.address())
    };
    let mut alice = login(&server, "alice");
    let request = json!({
        "title": "T",
        "members": ["@bob", "@carol"],
        "roles": {"@carol": "moderator"},
    });
    let group = alice.call("conv.create", &request).unwrap();
    let cid = group["cid"].as_str().unwrap();
    server.terminate();
    server.wait_for_exit();
    run(&server, &["user", "remove", "alice"]);
    server.restart();

    let mut carol = login(&server, "carol");
    eventually("alice to be gone", || {
        (members(&mut carol, cid).len() == 2).then_some(())
    });
    assert_eq!(
        members(&mut carol, cid),
        pairs(&[("bob", "member"), ("carol", "owner")])
    );
    carol
        .call("conv.settings", &json!({"cid": cid, "title": "mine"}))
        .unwrap();
    let left = carol.history(cid).remove(1);
    assert_eq!(left["kind"], "left");

    server.restart();
    let mut carol = login(&server, "carol");
    assert_eq!(carol.history(cid).len(), 3, "left once");
}
