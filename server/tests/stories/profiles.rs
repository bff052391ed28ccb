//! Profiles, handles, devices, search, and the end of an account.

use std::thread;

use broker::codec::packet::{Qos, Version};
use broker::codec::reason::ReasonCode;
use serde_json::{Value, json};

use super::harness::{Client, Login, Lost, Server, VERSIONS, eventually};

fn login(server: &Server, user: &str, version: Version) -> Client {
    Login::new(user).version(version).connect(server.address())
}

fn run(server: &Server, arguments: &[&str]) -> String {
    let output = server.command(arguments, "secret\n");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn user(target: &str) -> Value {
    json!({"user": target})
}

#[test]
fn a_profile_is_shown_to_those_whom_privacy_allows() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let (mut alice, mut bob) = (
            login(&server, "alice", version),
            login(&server, "bob", version),
        );
        let mut tablet = login(&server, "bob", version);
        tablet.subscribe("chat/me/ev/account");
        tablet.next_json();
        let profile = json!({
            "name": "Bob B.",
            "status": "at sea",
            "photo": "media:1",
            "locale": "de-AT",
            "tags": "sailing chess",
        });
        let me = bob.call("me.set", &profile).unwrap();
        assert_eq!(me["tags"], json!(["chess", "sailing"]));
        assert_eq!(
            (&me["locale"], &me["photo"]),
            (&json!("de-AT"), &json!("media:1"))
        );
        eventually("the other device to be told", || {
            (tablet.next_json()["me"] == true).then_some(())
        });
        bob.call("me.set", &json!({"status": "back"})).unwrap();
        server.restart();
        let mut bob = login(&server, "bob", version);
        let mut alice_again = login(&server, "alice", version);
        std::mem::swap(&mut alice, &mut alice_again);
        let me = bob.call("me.get", &json!({})).unwrap();
        assert_eq!(
            (&me["name"], &me["status"]),
            (&json!("Bob B."), &json!("back"))
        );
        let seen = alice.call("people.get", &user("@bob")).unwrap();
        assert_eq!(
            (&seen["status"], &seen["tags"], seen.get("locale")),
            (&json!("back"), &json!(["chess", "sailing"]), None)
        );
        let contacts = json!({"profile": {"who": "contacts"}});
        bob.call("me.privacy", &contacts).unwrap();
        let seen = alice.call("people.get", &user("@bob")).unwrap();
        assert_eq!(
            (seen.get("status"), seen.get("photo"), seen.get("tags")),
            (None, None, None)
        );
        assert_eq!(seen["name"], "Bob B.");
        bob.call("people.add", &user("@alice")).unwrap();
        let seen = alice.call("people.get", &user("@bob")).unwrap();
        assert_eq!(seen["photo"], "media:1");
        bob.call("people.block", &user("@alice")).unwrap();
        let blocked = alice.call("people.get", &user("@bob")).unwrap();
        assert_eq!(blocked, seen, "she cannot tell");
        for bad in [
            json!({"status": "x".repeat(257)}),
            json!({"photo": "x".repeat(513)}),
            json!({"locale": "de_AT"}),
            json!({"tags": "a-b"}),
            json!({"tags": vec!["x"; 17].join(" ")}),
            json!({"name": "ok", "status": "a\u{7}"}),
        ] {
            let refused = bob.try_call("me.set", &bad).unwrap_err();
            assert_eq!(refused["code"], "format", "{bad}");
        }
        assert_eq!(bob.call("me.get", &json!({})).unwrap()["name"], "Bob B.");
        let nobody = alice.call("people.get", &user("@nobody"));
        assert_eq!(nobody, Err("not_found".to_owned()));
    }
}

#[test]
fn the_other_devices_are_told_when_profile_privacy_or_devices_change() {
    for version in VERSIONS {
        let server = Server::dev();
        login(&server, "carol", version).disconnect();
        let mut bob = login(&server, "bob", version);
        let mut tablet = login(&server, "bob", version);
        tablet.subscribe("chat/me/ev/account");
        tablet.next_json();
        let is_told = |client: &mut Client, what: &str| {
            let told = client.next_json();
            assert_eq!(
                (&told["me"], told.get("people")),
                (&json!(true), None),
                "{what}"
            );
        };
        bob.call("me.privacy", &json!({"search": false})).unwrap();
        is_told(&mut tablet, "privacy");
        let phone = Login::new("bob").version(version).device("phone");
        let mut phone = phone.connect(server.address());
        phone.subscribe("chat/me/in/+");
        is_told(&mut tablet, "a new device");
        phone.subscribe("chat/me/txt/+");
        let devices = bob.call("me.devices", &json!({})).unwrap();
        let id = &devices["devices"][0]["id"];
        bob.call("me.revoke", &json!({"device": id})).unwrap();
        is_told(&mut tablet, "no device any more");
        // What changes nothing is no news, and a contact is another one.
        bob.call("me.privacy", &json!({"search": false})).unwrap();
        bob.call("people.add", &user("@carol")).unwrap();
        let told = tablet.next_json();
        assert_eq!(
            (told.get("me"), &told["people"][0]["handle"]),
            (None, &json!("carol"))
        );
        let all = bob.call("sync.changes", &json!({"ver": 1})).unwrap();
        assert_eq!(all["me"], true, "who comes later is told once");
    }
}

#[test]
fn a_handle_changes_and_the_old_one_names_nobody() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let (mut alice, mut bob) = (
            login(&server, "alice", version),
            login(&server, "bob", version),
        );
        alice.subscribe("chat/me/err/+");
        alice.publish("chat/to/@bob/m-1", "hello");
        let taken = bob.try_call("me.handle", &json!({"handle": "alice"}));
        assert_eq!(taken.unwrap_err()["code"], "forbidden");
        for bad in ["Bob", "", "a b", "@bob"] {
            let refused = bob.try_call("me.handle", &json!({"handle": bad}));
            assert_eq!(refused.unwrap_err()["code"], "format", "{bad}");
        }
        let me = bob.call("me.handle", &json!({"handle": "robert"})).unwrap();
        assert_eq!(me["handle"], "robert");
        let refused = |client: &mut Client| {
            let answer = client.publish("chat/to/@bob", "to nobody");
            if version == Version::V5 {
                assert_eq!(answer.reason, ReasonCode::TopicNameInvalid);
            }
            assert_eq!(client.next_json()["error"], "not_found");
        };
        refused(&mut alice);
        // The ack may have been lost: what was stored is told as before.
        let again = alice.publish("chat/to/@bob/m-1", "hello");
        if version == Version::V5 {
            assert!(again.is_duplicate(), "{again:?}");
        }
        bob.subscribe("chat/me/txt/+");
        assert_eq!(&*bob.next_message().payload, b"alice: hello");
        alice.publish("chat/to/@robert", "hello again");
        assert_eq!(&*bob.next_message().payload, b"alice: hello again");
        // Nobody else gets it, not even after a kill; but he may have it back.
        server.restart();
        let mut alice = login(&server, "alice", version);
        alice.subscribe("chat/me/err/+");
        refused(&mut alice);
        let resting = alice.try_call("me.handle", &json!({"handle": "bob"}));
        assert_eq!(resting.unwrap_err()["code"], "forbidden");
        assert!(Login::new("bob").try_connect(server.address()).is_err());
        let mut bob = Login::new("robert")
            .password("bob-secret")
            .version(version)
            .connect(server.address());
        let again = bob.call("me.handle", &json!({"handle": "robert"})).unwrap();
        assert_eq!(again["handle"], "robert", "no change");
        assert_eq!(
            bob.call("me.handle", &json!({"handle": "bob"})).unwrap()["handle"],
            "bob"
        );
        let too_often = bob.try_call("me.handle", &json!({"handle": "bobby"}));
        assert_eq!(too_often.unwrap_err()["code"], "rate");
        let answer = alice.publish("chat/to/@bob", "there again");
        assert_eq!(answer.reason, ReasonCode::Success);
        assert_eq!(alice.arrivals(), []);
    }
}

#[test]
fn a_revoked_device_is_out_and_leaves_nothing() {
    for version in VERSIONS {
        let mut server = Server::in_new_directory(|launch| {
            launch.variable("MQCHAT_SERVER__ORDINARY_TOPICS", "open")
        });
        run(&server, &["user", "add", "alice", "--password-stdin"]);
        let token = run(&server, &["token", "issue", "alice"]);
        let lost = Login::new("alice")
            .version(version)
            .password(token.trim())
            .device("lost phone");
        let mut phone = lost.connect(server.address());
        phone.subscribe("chat/me/in/+");
        phone.subscribe("ordinary/+");
        let desk = Login::new("alice")
            .version(version)
            .password("secret")
            .device("desk");
        let mut alice = desk.connect(server.address());
        alice.subscribe("chat/me/in/+");
        alice.subscribe("chat/me/ev/account");
        alice.next_json();
        let devices = alice.call("me.devices", &json!({})).unwrap();
        let find = |devices: &Value, name: &str| {
            let mut list = devices["devices"].as_array().unwrap().iter();
            list.find(|device| device["client_id"] == name).cloned()
        };
        let (found, own) = (
            find(&devices, "lost phone").unwrap(),
            find(&devices, "desk").unwrap(),
        );
        assert_eq!(
            (&found["connected"], &found["current"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            (&own["connected"], &own["current"]),
            (&json!(true), &json!(true))
        );
        assert!(found["first_seen"].as_u64().unwrap() > 0);
        assert!(found["last_seen"].as_u64() >= found["first_seen"].as_u64());
        let listed = run(&server, &["device", "list", "alice"]);
        assert!(
            listed.contains("lost phone") && listed.contains("desk"),
            "{listed}"
        );

        let nothing = json!({"device": "01arz3ndektsv4rrffq69g5fav"});
        let refused = alice.try_call("me.revoke", &nothing).unwrap_err();
        assert_eq!(refused["code"], "not_found");
        let refused = alice.try_call("me.revoke", &json!({"device": own["id"]}));
        assert_eq!(refused.unwrap_err()["code"], "format", "not oneself");
        let left = alice
            .call("me.revoke", &json!({"device": found["id"]}))
            .unwrap();
        assert_eq!(find(&left, "lost phone"), None);
        match (phone.wait_for_end(), version) {
            (Lost::Disconnected(reason), Version::V5) => {
                assert_eq!(reason, ReasonCode::AdministrativeAction);
            }
            (_, Version::V311) => {}
            (lost, _) => panic!("{lost:?}"),
        }
        eventually("the other device to be told", || {
            (alice.next_json()["me"] == true).then_some(())
        });
        assert!(
            lost.try_connect(server.address()).is_err(),
            "its token is gone"
        );
        server.restart();
        assert!(lost.try_connect(server.address()).is_err());
        let again = Login::new("alice")
            .version(version)
            .password("secret")
            .device("lost phone")
            .connect(server.address());
        assert!(!again.session_present, "nothing of the session is left");
        // The operator can do the same, whether the server runs or not.
        let mut alice = desk.connect(server.address());
        assert!(alice.session_present);
        run(
            &server,
            &["device", "revoke", "alice", own["id"].as_str().unwrap()],
        );
        alice.wait_for_end();
        let mut alice = desk.connect(server.address());
        assert!(!alice.session_present);
        alice.subscribe("chat/me/in/+");
        alice.disconnect();
        server.terminate();
        server.wait_for_exit();
        run(
            &server,
            &["device", "revoke", "alice", own["id"].as_str().unwrap()],
        );
        assert_eq!(run(&server, &["device", "list", "alice"]), "");
        let unknown = server.command(
            &["device", "revoke", "alice", own["id"].as_str().unwrap()],
            "",
        );
        assert!(!unknown.status.success());
    }
}

#[test]
fn people_are_found_by_the_beginning_of_a_word_and_not_listed() {
    for version in VERSIONS {
        let mut server = Server::in_new_directory(|launch| {
            launch
                .dev()
                .variable("MQCHAT_CHAT__USER_SEARCHES_PER_MIN", "1")
                .variable("MQCHAT_CHAT__USER_SEARCHES_BURST", "12")
        });
        let people = ["maria", "marius", "mark.twain", "zoe"];
        let mut people = people.map(|name| login(&server, name, version));
        people[3]
            .call("me.set", &json!({"name": "Zoë Marquardt", "tags": "Chess"}))
            .unwrap();
        people[1]
            .call("me.privacy", &json!({"search": false}))
            .unwrap();
        server.restart();
        let mut alice = login(&server, "alice", version);
        let search = |client: &mut Client, question: &str| {
            let found = client
                .call("search.users", &json!({"q": question}))
                .unwrap();
            let users = found["users"].as_array().unwrap().iter();
            let mut handles: Vec<_> = users
                .map(|user| user["handle"].as_str().unwrap().to_owned())
                .collect();
            handles.sort();
            handles
        };
        assert_eq!(search(&mut alice, "mar"), ["maria", "mark.twain", "zoe"]);
        assert_eq!(search(&mut alice, "MARQ zo"), ["zoe"]);
        assert_eq!(search(&mut alice, "chess"), ["zoe"]);
        assert_eq!(search(&mut alice, "twain"), ["mark.twain"]);
        assert_eq!(
            search(&mut alice, "mari"),
            ["maria"],
            "not who does not want to"
        );
        assert_eq!(
            search(&mut alice, "marius"),
            ["marius"],
            "but by the exact handle"
        );
        assert_eq!(search(&mut alice, "@marius"), ["marius"]);
        assert_eq!(search(&mut alice, "@mar"), [""; 0]);
        let one = alice.call("search.users", &json!({"q": "mar", "limit": 1}));
        assert_eq!(one.unwrap()["users"].as_array().unwrap().len(), 1);
        for bad in ["", "ma", "a b c", "m.a", &"x".repeat(300)] {
            let refused = alice.try_call("search.users", &json!({"q": bad}));
            assert_eq!(refused.unwrap_err()["code"], "format", "{bad}");
        }
        let mut maria = login(&server, "maria", version);
        maria.call("people.block", &user("@alice")).unwrap();
        for question in ["maria", "@maria"] {
            assert_eq!(search(&mut alice, question), ["maria"], "she cannot tell");
        }
        assert!(search(&mut alice, "mar").contains(&"maria".to_owned()));
        let refused = alice.try_call("search.users", &json!({"q": "mar"}));
        assert_eq!(refused.unwrap_err()["code"], "rate");
    }
}

#[test]
fn who_deletes_the_account_is_gone_and_what_was_said_stays() {
    for version in VERSIONS {
        let mut server = Server::dev();
        let (mut alice, mut bob) = (
            login(&server, "alice", version),
            login(&server, "bob", version),
        );
        let mut carol = login(&server, "carol", version);
        let request =
            json!({"title": "T", "members": ["@bob", "@carol"], "roles": {"@carol": "admin"}});
        let group = alice.call("conv.create", &request).unwrap();
        let group = group["cid"].as_str().unwrap().to_owned();
        alice.publish(&format!("chat/to/{group}"), "mine");
        alice.publish("chat/to/@bob", "to bob");
        bob.call("people.add", &user("@alice")).unwrap();
        alice.call("people.add", &user("@bob")).unwrap();
        alice
            .call("me.set", &json!({"name": "Alice A.", "status": "here"}))
            .unwrap();
        let uid = alice.call("me.get", &json!({})).unwrap()["uid"].clone();
        let uid = format!("u.{}", uid.as_str().unwrap());
        let device = Login::new("alice").version(version).device("phone");
        let mut phone = device.connect(server.address());
        phone.subscribe("chat/me/in/+");

        for (request, code) in [
            (json!({}), "forbidden"),
            (json!({"password": "wrong"}), "forbidden"),
        ] {
            let refused = alice.try_call("me.delete", &request).unwrap_err();
            assert_eq!(refused["code"], code, "{request}");
        }
        let password = json!({"password": "alice-secret"});
        // The reply may come too late for the connection.
        alice.publish("chat/rpc/me.delete", password.to_string());
        alice.wait_for_end();
        phone.wait_for_end();
        assert!(Login::new("alice").try_connect(server.address()).is_err());
        eventually("carol to be the owner", || {
            let found = carol.call("conv.get", &json!({"cid": group})).unwrap();
            let members = found["members"].as_array().unwrap().clone();
            let owner = members.iter().find(|member| member["role"] == "owner");
            (owner.unwrap()["handle"] == "carol").then_some(())
        });
        server.restart();
        let mut bob = login(&server, "bob", version);
        let texts: Vec<_> = bob
            .history(&group)
            .into_iter()
            .filter_map(|entry| entry.get("t").cloned())
            .collect();
        assert_eq!(texts, ["mine"]);
        let gone = bob.call("people.get", &user(&uid)).unwrap();
        assert_eq!(
            (&gone["deleted"], &gone["name"], gone.get("status")),
            (&json!(true), &json!("deleted user"), None)
        );
        let found = bob.call("search.users", &json!({"q": "alice"})).unwrap();
        assert_eq!(found["users"], json!([]));
        assert_eq!(
            bob.call("people.get", &user("@alice")),
            Err("not_found".to_owned())
        );
        let taken = bob.try_call("me.handle", &json!({"handle": "alice"}));
        assert_eq!(taken.unwrap_err()["code"], "forbidden", "the handle rests");
        let watched = bob.try_subscribe(&format!("chat/u/{uid}/presence"), Qos::AtMostOnce);
        assert!(watched.is_error());
        bob.call("people.remove", &user(&uid)).unwrap();
    }
}

#[test]
fn who_changes_the_handle_many_times_at_once_has_no_more_changes_than_others() {
    let server = Server::dev();
    let mut alices: Vec<Client> = (0..8)
        .map(|number| {
            Login::new("alice")
                .device(&format!("device-{number}"))
                .connect(server.address())
        })
        .collect();
    let asked: Vec<_> = thread::scope(|scope| {
        let ask = |(number, alice): (usize, &mut Client)| {
            let request = json!({"handle": format!("alice-{number}")});
            alice.call("me.handle", &request)
        };
        let asking = alices.iter_mut().enumerate();
        let asking: Vec<_> = asking.map(|one| scope.spawn(move || ask(one))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let changed = asked.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(changed, 2, "{asked:?}");
    let refused = asked.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|code| code == "rate"), "{asked:?}");
}

#[test]
fn a_device_that_keeps_coming_back_is_revoked_all_the_same() {
    let server = Server::in_new_directory(|launch| launch);
    run(&server, &["user", "add", "alice", "--password-stdin"]);
    let token = run(&server, &["token", "issue", "alice"]);
    let lost = Login::new("alice").password(token.trim()).device("lost");
    lost.connect(server.address()).subscribe("chat/me/in/+");
    let mut alice = Login::new("alice")
        .password("secret")
        .device("desk")
        .connect(server.address());
    let listed = |alice: &mut Client| {
        let devices = alice.call("me.devices", &json!({})).unwrap();
        let devices = devices["devices"].as_array().unwrap().clone();
        devices.into_iter().find(|one| one["client_id"] == "lost")
    };
    let id = listed(&mut alice).unwrap()["id"].clone();
    thread::scope(|scope| {
        // Each connection takes over from the one before, until none comes in any more.
        let coming: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while let Ok(thief) = lost.try_connect(server.address()) {
                        drop(thief);
                    }
                })
            })
            .collect();
        alice.call("me.revoke", &json!({"device": id})).unwrap();
        for one in coming {
            one.join().unwrap();
        }
    });
    eventually("nothing of it to be left", || {
        listed(&mut alice).is_none().then_some(())
    });
}
