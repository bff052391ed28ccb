//! Who may do what in a group: rights, bans, the owner, slow mode, closing, and what later members see.

use std::thread;

use broker::codec::packet::Version;
use serde_json::{Value, json};

use super::harness::{Client, Login, Server, VERSIONS};

/// Who is in a group, with their roles; alice owns it.
struct Group {
    server: Server,
    version: Version,
    cid: String,
}

impl Group {
    fn new(version: Version, members: &[(&str, &str)]) -> (Self, Client) {
        let server = Server::dev();
        for (name, _) in members {
            Login::new(name).connect(server.address()).disconnect();
        }
        let login = Login::new("alice").version(version);
        let mut alice = login.connect(server.address());
        let handle = |name: &str| format!("@{name}");
        let names: Vec<_> = members.iter().map(|(name, _)| handle(name)).collect();
        let roles = members
            .iter()
            .map(|(name, role)| (handle(name), json!(role)));
        let roles: serde_json::Map<_, _> = roles.collect();
        let request = json!({"title": "Lunch", "members": names, "roles": roles});
        let made = alice.call("conv.create", &request).unwrap();
        let cid = made["cid"].as_str().unwrap().to_owned();
        let group = Self {
            server,
            version,
            cid,
        };
        alice.subscribe("chat/me/err/+");
        (group, alice)
    }

    fn connect(&self, name: &str) -> Client {
        let login = Login::new(name).version(self.version);
        let mut client = login.connect(self.server.address());
        client.subscribe("chat/me/err/+");
        client
    }

    /// Publishes, and says what was refused and when to try again.
    fn send(&self, client: &mut Client, text: &str) -> Result<(), (String, u64)> {
        let topic = format!("chat/to/{}", self.cid);
        self.publish(client, &topic, text)
    }

    fn publish(
        &self,
        client: &mut Client,
        topic: &str,
        payload: &str,
    ) -> Result<(), (String, u64)> {
        let answer = client.publish(topic, payload);
        let Some(told) = client.arrived() else {
            assert!(!answer.reason.is_error(), "{answer:?}");
            return Ok(());
        };
        let told: Value = serde_json::from_slice(&told.payload).unwrap();
        let (error, retry_ms) = (told["error"].as_str().unwrap(), told["retry_ms"].as_u64());
        if self.version == Version::V5 {
            assert_eq!(answer.get("error"), Some(error));
            assert_eq!(json!(answer.reason as u8), told["reason"]);
            assert_eq!(
                answer.get("retry_ms").map(str::parse),
                retry_ms.map(Ok),
                "{answer:?}"
            );
        }
        Err((error.to_owned(), retry_ms.unwrap_or_default()))
    }

    fn call(&self, client: &mut Client, method: &str, mut request: Value) -> Result<Value, String> {
        request["cid"] = json!(self.cid);
        client.call(method, &request)
    }

    fn kinds(&self, client: &mut Client) -> Vec<String> {
        let entries = client.history(&self.cid);
        let kind = |entry: &Value| entry["kind"].as_str().unwrap().to_owned();
        entries.iter().map(kind).collect()
    }
}

fn forbidden<T>() -> Result<T, String> {
    Err("forbidden".to_owned())
}

fn refused_send() -> Result<(), (String, u64)> {
    Err(("forbidden".to_owned(), 0))
}

#[test]
fn a_banned_user_comes_back_by_no_way_until_the_ban_is_lifted() {
    for version in VERSIONS {
        let (mut group, mut alice) = Group::new(version, &[("bob", "admin"), ("dave", "member")]);
        let mut dave = group.connect("dave");
        dave.subscribe("chat/me/in/+");
        let link = group.call(&mut alice, "conv.invite", json!({})).unwrap();
        let asks = json!({"approval": true});
        let asking = group.call(&mut alice, "conv.invite", asks).unwrap();
        let mut bob = group.connect("bob");
        let member = |name: &str| json!({"member": name});
        for (name, refused) in [("@alice", "above"), ("@bob", "himself")] {
            let banned = group.call(&mut bob, "conv.ban", member(name));
            assert_eq!(banned, forbidden(), "{refused}");
        }
        group.call(&mut bob, "conv.ban", member("@dave")).unwrap();
        group.send(&mut alice, "behind his back").unwrap();
        alice.publish("chat/to/@dave", "you are banned");
        let arrived: Vec<_> = (0..3).map(|_| dave.next_json()).collect();
        assert_eq!(arrived[1]["kind"], "banned", "the last that he gets");
        assert_eq!(arrived[2]["t"], "you are banned");

        drop((alice, bob, dave));
        group.server.kill();
        group.server.restart();
        let [mut alice, mut bob, mut dave] =
            ["alice", "bob", "dave"].map(|name| group.connect(name));
        let public = json!({"public": true});
        group.call(&mut alice, "conv.settings", public).unwrap();
        let code = |invitation: &Value| json!({"code": invitation["code"]});
        let ways = [code(&link), code(&asking), json!({"cid": group.cid})];
        for way in &ways {
            assert_eq!(dave.call("conv.join", way), forbidden(), "{way}");
            assert_eq!(dave.call("conv.peek", way), forbidden(), "{way}");
        }
        let members = json!({"members": ["@dave"]});
        assert_eq!(
            group.call(&mut alice, "conv.add", members.clone()),
            forbidden()
        );
        assert_eq!(
            group.send(&mut dave, "let me in"),
            refused_send(),
            "a former member"
        );
        assert_eq!(
            group.call(&mut dave, "conv.bans", json!({})),
            Err("not_found".into())
        );
        assert_eq!(group.kinds(&mut dave), ["created", "banned"]);

        let bans = group.call(&mut bob, "conv.bans", json!({})).unwrap();
        assert_eq!(bans["bans"][0]["handle"], "dave");
        assert_eq!(bans["more"], false);
        group.call(&mut bob, "conv.unban", member("@dave")).unwrap();
        let again = group.call(&mut bob, "conv.unban", member("@dave"));
        assert_eq!(again, Err("not_found".into()));
        dave.call("conv.join", &ways[0]).unwrap();
        group.send(&mut dave, "back").unwrap();
        let all = [
            "created", "banned", "message", "settings", "unbanned", "joined", "message",
        ];
        assert_eq!(group.kinds(&mut alice), all);
    }
}

#[test]
fn somebody_who_was_never_in_can_be_banned_and_learns_nothing_by_it() {
    for version in VERSIONS {
        let (group, mut alice) = Group::new(version, &[("bob", "member")]);
        let mut eve = group.connect("eve");
        let ban = json!({"member": "@eve"});
        let mut bob = group.connect("bob");
        assert_eq!(group.call(&mut bob, "conv.ban", ban.clone()), forbidden());
        group.call(&mut alice, "conv.ban", ban).unwrap();
        for method in ["conv.get", "conv.bans", "msg.history", "conv.leave"] {
            let seen = group.call(&mut eve, method, json!({}));
            assert_eq!(seen, Err("not_found".into()), "{method}");
        }
        let (error, _) = group.send(&mut eve, "hello?").unwrap_err();
        assert_eq!(error, "not_found");
        let added = group.call(&mut alice, "conv.add", json!({"members": ["@eve"]}));
        assert_eq!(added, forbidden());
    }
}

#[test]
fn a_member_may_do_what_is_given_and_wanted() {
    for version in VERSIONS {
        let (mut group, mut alice) = Group::new(
            version,
            &[("bob", "admin"), ("carol", "member"), ("dave", "member")],
        );
        let [mut bob, mut carol] = ["bob", "carol"].map(|name| group.connect(name));
        let pin = format!("chat/c/{}/m/2/pin", group.cid);
        group.send(&mut carol, "two").unwrap();
        assert!(group.publish(&mut carol, &pin, "1").is_err());
        let give = |rights: &str| json!({"member": "@carol", "given": rights});
        let given = group.call(&mut bob, "conv.rights", give("react pin invite"));
        given.unwrap();
        group.publish(&mut carol, &pin, "1").unwrap();
        assert_eq!(group.send(&mut carol, "silenced"), refused_send());
        group
            .call(&mut carol, "conv.add", json!({"members": ["@alice"]}))
            .unwrap();
        let own = group.call(&mut carol, "conv.get", json!({})).unwrap();
        assert_eq!(own["rights"], "react pin invite");
        let carols = own["members"].as_array().unwrap().iter();
        let given: Vec<_> = carols.map(|member| &member["given"]).collect();
        assert_eq!(given.iter().filter(|given| given.is_string()).count(), 1);

        let last = group.kinds(&mut alice).len();
        let entry = &alice.history(&group.cid)[2];
        assert_eq!(entry["kind"], "role");
        assert_eq!(entry["data"]["given"], "react pin invite");
        drop((alice, bob, carol));
        group.server.kill();
        group.server.restart();
        let [mut alice, mut bob, mut carol] =
            ["alice", "bob", "carol"].map(|name| group.connect(name));
        assert_eq!(group.kinds(&mut alice).len(), last);
        assert_eq!(group.send(&mut carol, "still"), refused_send());

        // By leaving nobody gets rid of what was taken away.
        group.call(&mut carol, "conv.leave", json!({})).unwrap();
        let added = json!({"members": ["@carol"]});
        group.call(&mut alice, "conv.add", added).unwrap();
        assert_eq!(group.send(&mut carol, "again"), refused_send());
        let own = group.call(&mut carol, "conv.get", json!({})).unwrap();
        assert_eq!(
            own["rights"], "react",
            "nor keeps what was given beyond the role"
        );
        group
            .call(&mut bob, "conv.rights", give("default"))
            .unwrap();
        group.send(&mut carol, "free").unwrap();

        // Wanting less.
        let want = |rights: &str| json!({"want": rights});
        group
            .call(&mut bob, "conv.rights", want("send react"))
            .unwrap();
        let removed = group.call(&mut bob, "conv.remove", json!({"member": "@carol"}));
        assert_eq!(removed, forbidden());
        group
            .call(&mut bob, "conv.rights", want("default"))
            .unwrap();
        let dave = json!({"member": "@dave", "given": "send"});
        assert_eq!(group.call(&mut carol, "conv.rights", dave), forbidden());
        let rows = [
            (json!({"member": "@alice", "given": "send"}), "forbidden"),
            (json!({"member": "@carol", "given": "fly"}), "format"),
            (json!({"member": "@carol"}), "format"),
            (json!({"given": "send"}), "format"),
            (json!({"member": "@nobody", "given": "send"}), "not_found"),
        ];
        for (request, code) in rows {
            let refused = group.call(&mut bob, "conv.rights", request.clone());
            assert_eq!(refused, Err(code.to_owned()), "{request}");
        }
    }
}

#[test]
fn of_two_transfers_at_once_one_goes_through() {
    for version in VERSIONS {
        let (group, mut alice) = Group::new(version, &[("bob", "member"), ("carol", "admin")]);
        let left = group.call(&mut alice, "conv.leave", json!({}));
        assert_eq!(left, Err("last_owner".into()));
        let mut carol = group.connect("carol");
        let taken = group.call(&mut carol, "conv.transfer", json!({"member": "@carol"}));
        assert_eq!(taken, forbidden());
        let clients = [(alice, "@bob"), (group.connect("alice"), "@carol")];
        let group = &group;
        let results = thread::scope(|scope| {
            let threads = clients.map(|(mut client, heir)| {
                let member = json!({"member": heir});
                scope.spawn(move || group.call(&mut client, "conv.transfer", member))
            });
            threads.map(|thread| thread.join().unwrap())
        });
        let done = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(done, 1, "{results:?}");
        assert!(results.contains(&forbidden()), "{results:?}");
        let seen = group.call(&mut carol, "conv.get", json!({})).unwrap();
        let members = seen["members"].as_array().unwrap();
        let role = |role: &str| members.iter().filter(|one| one["role"] == role).count();
        assert_eq!(role("owner"), 1, "{seen}");
        let alice = members.iter().find(|one| one["handle"] == "alice").unwrap();
        assert_eq!(alice["role"], "admin");
        let entry = &carol.history(&group.cid)[1];
        assert_eq!(entry["data"]["former"], alice["uid"]);
        let mut alice = group.connect("alice");
        group.call(&mut alice, "conv.leave", json!({})).unwrap();
    }
}

#[test]
fn slow_mode_tells_when_to_try_again_and_exempts_moderators() {
    for version in VERSIONS {
        let (group, mut alice) = Group::new(version, &[("bob", "member"), ("mod", "moderator")]);
        let [mut bob, mut moderator] = ["bob", "mod"].map(|name| group.connect(name));
        let slow = group.call(&mut bob, "conv.settings", json!({"slow_s": 60}));
        assert_eq!(slow, forbidden());
        let slow = json!({"slow_s": 60});
        group.call(&mut alice, "conv.settings", slow).unwrap();
        let first = format!("chat/to/{}/m-1", group.cid);
        group.publish(&mut bob, &first, "one").unwrap();
        let (error, retry_ms) = group.send(&mut bob, "two").unwrap_err();
        assert_eq!(error, "rate");
        assert!((50_000..=60_000).contains(&retry_ms), "{retry_ms}");
        group.publish(&mut bob, &first, "one").unwrap();
        let react = format!("chat/c/{}/m/3/react", group.cid);
        group.publish(&mut bob, &react, "👍").unwrap();
        let edit = format!("chat/c/{}/m/3/edit", group.cid);
        group.publish(&mut bob, &edit, "uno").unwrap();
        for text in ["a", "b", "c"] {
            group.send(&mut moderator, text).unwrap();
        }
        let off = json!({"slow_s": 0});
        group.call(&mut alice, "conv.settings", off).unwrap();
        group.send(&mut bob, "two").unwrap();
        let slow = group.call(&mut alice, "conv.settings", json!({"slow_s": 86_401}));
        assert_eq!(slow, Err("format".into()));
    }
}

#[test]
fn what_its_owner_closed_is_read_and_left_only() {
    for version in VERSIONS {
        let (mut group, mut alice) = Group::new(version, &[("bob", "admin"), ("carol", "member")]);
        let [mut bob, mut carol] = ["bob", "carol"].map(|name| group.connect(name));
        group.send(&mut carol, "two").unwrap();
        let link = group.call(&mut alice, "conv.invite", json!({})).unwrap();
        let close = |closed: bool| json!({"closed": closed});
        let closed = group.call(&mut bob, "conv.settings", close(true));
        assert_eq!(closed, forbidden());
        group
            .call(&mut alice, "conv.settings", close(true))
            .unwrap();
        drop((alice, bob, carol));
        group.server.kill();
        group.server.restart();
        let [mut alice, mut bob, mut carol, mut eve] =
            ["alice", "bob", "carol", "eve"].map(|name| group.connect(name));
        for client in [&mut alice, &mut bob, &mut carol] {
            assert_eq!(group.send(client, "more"), refused_send());
            for (action, payload) in [("react", "👍"), ("reply", "x")] {
                let topic = format!("chat/c/{}/m/2/{action}", group.cid);
                assert_eq!(group.publish(client, &topic, payload), refused_send());
            }
            let seen = group.call(client, "conv.get", json!({})).unwrap();
            assert_eq!(seen["closed"], true);
        }
        let typing = format!("chat/c/{}/typing", group.cid);
        assert_eq!(group.publish(&mut carol, &typing, "1"), refused_send());
        let edit = format!("chat/c/{}/m/2/edit", group.cid);
        assert_eq!(group.publish(&mut carol, &edit, "x"), refused_send());
        let members = json!({"members": ["@eve"]});
        assert_eq!(group.call(&mut bob, "conv.add", members), forbidden());
        let code = json!({"code": link["code"]});
        assert_eq!(eve.call("conv.join", &code), forbidden());
        assert_eq!(group.kinds(&mut carol), ["created", "message", "settings"]);
        group.call(&mut carol, "conv.leave", json!({})).unwrap();
        group
            .call(&mut alice, "conv.settings", close(false))
            .unwrap();
        group.send(&mut bob, "open again").unwrap();
        eve.call("conv.join", &code).unwrap();
    }
}

#[test]
fn what_later_members_see_is_said_by_the_settings_or_at_the_adding() {
    for version in VERSIONS {
        let (group, mut alice) = Group::new(version, &[("bob", "admin")]);
        let mut bob = group.connect("bob");
        for text in ["2", "3", "4"] {
            group.send(&mut alice, text).unwrap();
        }
        let rows = [
            ("carol", json!(null), 1),
            ("dave", json!("all"), 6),
            ("eve", json!({"last": 2}), 3),
            ("frank", json!("joined"), 1),
        ];
        for (name, history, seen) in rows {
            let mut client = group.connect(name);
            let mut request = json!({"members": [format!("@{name}")]});
            if !history.is_null() {
                request["history"] = history;
            }
            group.call(&mut bob, "conv.add", request).unwrap();
            assert_eq!(client.history(&group.cid).len(), seen, "{name}");
        }
        // Who may invite, but not change the settings, shows what these say.
        let carol = json!({"member": "@carol", "given": "send invite"});
        group.call(&mut alice, "conv.rights", carol).unwrap();
        let mut carol = group.connect("carol");
        let mut gail = group.connect("gail");
        let all = json!({"members": ["@gail"], "history": "all"});
        assert_eq!(group.call(&mut carol, "conv.add", all), forbidden());
        let joined = json!({"members": ["@gail"], "history": "joined"});
        group.call(&mut carol, "conv.add", joined).unwrap();
        assert_eq!(gail.history(&group.cid).len(), 1);
    }
}

#[test]
fn title_picture_and_description_are_entries_and_shown_to_all() {
    for version in VERSIONS {
        let (group, mut alice) = Group::new(version, &[("bob", "member")]);
        let mut bob = group.connect("bob");
        let news = json!({"title": "Dinner", "photo": "media:7", "description": "at eight"});
        assert_eq!(
            group.call(&mut bob, "conv.settings", news.clone()),
            forbidden()
        );
        group
            .call(&mut alice, "conv.settings", news.clone())
            .unwrap();
        let seen = group.call(&mut bob, "conv.get", json!({})).unwrap();
        for (name, value) in news.as_object().unwrap() {
            assert_eq!(&seen[name], value);
        }
        assert_eq!(bob.history(&group.cid)[1]["data"], news);
        let long = json!({"photo": "x".repeat(257)});
        let long = group.call(&mut alice, "conv.settings", long);
        assert_eq!(long, Err("format".into()));
    }
}
