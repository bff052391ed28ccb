//! What `/metrics`, `/health` and `/ready` tell of a real server, and what it says about clients that do not keep up.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use broker::codec::packet::Qos;
use broker::codec::reason::ReasonCode;

use super::harness::{Launch, Login, Monitor, Server, eventually};

fn monitored(set: impl FnOnce(Launch) -> Launch) -> (Server, Monitor) {
    let server = Server::in_new_directory(|launch| {
        set(launch
            .dev()
            .variable("MQCHAT_MONITOR__LISTEN", "127.0.0.1:0"))
    });
    let monitor = Monitor::of(&server);
    (server, monitor)
}

#[test]
fn what_happens_moves_the_numbers() {
    let (server, monitor) = monitored(|launch| launch);
    Login::new("bob").connect(server.address()).disconnect();
    let before = monitor.scrape();
    let mut alice = Login::new("alice").connect(server.address());
    alice.publish("chat/to/@bob", "one");
    alice.publish("chat/to/@bob", "two");
    let refused = alice.publish("chat/to/@nobody", "three");
    assert!(refused.reason.is_error());
    alice.publish_qos2("sensors/a", "12345");
    alice.publish_qos0("sensors/a", "123");
    alice.publish_retained("sensors/b", "kept");
    let mut reader = Login::new("bob").device("reader").connect(server.address());
    assert_eq!(
        reader.try_subscribe("sensors/#", Qos::AtLeastOnce),
        ReasonCode::GrantedQos1
    );
    reader.next_message();
    reader.disconnect();
    for number in 0..3 {
        alice.publish("sensors/c", number.to_string());
    }
    let wrong = Login::new("alice").password("wrong");
    assert!(wrong.try_connect(server.address()).is_err());
    alice.settle();

    // Counted when a turn is over, some of it when the next look is.
    monitor.wait_for("mqchat_queue_messages", |it| it == 3.0);
    let after = monitor.scrape();
    let grew = |name: &str| after[name] - before[name];
    for (name, by) in [
        ("mqchat_connects_total", 2.0),
        ("mqchat_logins_refused_total", 1.0),
        ("mqchat_messages_received_total{qos=\"0\"}", 1.0),
        ("mqchat_messages_received_total{qos=\"2\"}", 1.0),
        ("mqchat_payload_bytes_received_total{qos=\"2\"}", 5.0),
        ("mqchat_messages_sent_total{qos=\"1\"}", 1.0),
        ("mqchat_publishes_total{kind=\"ordinary\"}", 6.0),
        ("mqchat_publishes_total{kind=\"chat\"}", 3.0),
        ("mqchat_ack_seconds_count{kind=\"chat\"}", 3.0),
        ("mqchat_ack_seconds_count{kind=\"ordinary\"}", 5.0),
        ("mqchat_retained_messages", 1.0),
        ("mqchat_subscriptions{shared=\"no\"}", 1.0),
        ("mqchat_sessions_away", 1.0),
    ] {
        assert_eq!(grew(name), by, "{name}");
    }
    // Each ack of the chat waited for a commit.
    assert!(grew("mqchat_chat_entries_stored_total") >= 2.0);
    assert!(grew("mqchat_ack_seconds_sum{kind=\"chat\"}") > 0.0);
    for store in ["chat", "sessions"] {
        let of = |what: &str| grew(&format!("mqchat_store_commit_{what}{{store=\"{store}\"}}"));
        assert!(
            of("seconds_count") > 0.0 && of("seconds_sum") > 0.0,
            "{store}"
        );
        assert_eq!(of("seconds_count"), of("requests_count"), "{store}");
    }
    let refusals = after
        .iter()
        .filter(|(name, _)| name.starts_with("mqchat_chat_refused_total"));
    assert_eq!(refusals.map(|(_, count)| count).sum::<f64>(), 1.0);
    assert_eq!(after["mqchat_clients"], 1.0);
    assert_eq!(after["mqchat_ready"], 1.0);
}

#[test]
fn deliveries_of_the_chat_are_counted() {
    let (server, monitor) = monitored(|launch| launch);
    let mut bob = Login::new("bob").device("phone").connect(server.address());
    bob.subscribe("chat/me/in/+");
    let mut alice = Login::new("alice").connect(server.address());
    alice.publish("chat/to/@bob", "hello");
    bob.next_message();
    monitor.wait_for("mqchat_chat_deliveries_total", |it| it >= 1.0);
}

#[test]
fn health_and_readiness_are_told_and_nothing_else() {
    let (server, monitor) = monitored(|launch| launch);
    assert_eq!(monitor.get("/health"), (200, "ok\n".to_owned()));
    eventually("the server to be ready", || {
        (monitor.get("/ready").0 == 200).then_some(())
    });
    assert_eq!(monitor.get("/metrics?name[]=x").0, 200);
    assert_eq!(monitor.get("/etc/passwd").0, 404);
    let status = |request: &str| {
        let response = monitor.send(request);
        response.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(
        status("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
        "405"
    );
    let head = monitor.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let long = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_ne!(status(&long), "200");
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    assert_ne!(status(&many), "200");
    assert_ne!(status("\u{16}\u{3}\u{1} no HTTP at all\r\n\r\n"), "200");
    assert_eq!(monitor.get("/health").0, 200);
    Login::new("alice").connect(server.address()).settle();
}

#[test]
fn clients_that_say_nothing_do_not_keep_the_monitor() {
    let (_server, monitor) = monitored(|launch| launch);
    // More than it serves at once: they have to give up their places.
    let silent: Vec<_> = (0..20).map(|_| monitor.connect()).collect();
    assert_eq!(monitor.get("/health").0, 200);
    drop(silent);
}

#[test]
fn a_store_without_room_is_not_ready() {
    let (_server, monitor) =
        monitored(|launch| launch.variable("MQCHAT_STORE__MAX_DISK_BYTES", "1"));
    let why = eventually("the server not to be ready", || {
        let (status, why) = monitor.get("/ready");
        (status == 503 && why.contains("read-only")).then_some(why)
    });
    assert_eq!(why.lines().count(), 1, "{why}");
    assert_eq!(monitor.value("mqchat_ready"), 0.0);
    assert_eq!(monitor.get("/health").0, 200, "it lives all the same");
}

#[test]
fn clients_that_do_not_keep_up_are_named() {
    let (server, monitor) = monitored(|launch| {
        launch
            .variable("MQCHAT_BROKER__SLOW_CLIENT_S", "1")
            .variable("MQCHAT_BROKER__QUEUE_BYTES_MAX", "1000000")
    });
    let mut slow = Login::new("sloth")
        .client_id("slow")
        .connect(server.address());
    slow.try_subscribe("flood", Qos::AtMostOnce);
    let mut quick = Login::new("alice")
        .client_id("quick")
        .connect(server.address());
    let payload = vec![b'x'; 60_000];
    // More than the sockets hold on their way.
    while monitor.value("mqchat_messages_dropped_total{reason=\"queue_full\"}") == 0.0 {
        for _ in 0..100 {
            quick.publish("flood", &payload);
        }
    }
    monitor.wait_for("mqchat_clients_blocked", |it| it == 1.0);
    monitor.wait_for("mqchat_queue_overflows_total", |it| it == 1.0);
    assert_eq!(monitor.value("mqchat_client_stalls_total"), 1.0);
    assert!(monitor.value("mqchat_queue_messages_largest") > 5.0);
    let list = server.command(&["client", "list", "--slow", "--json"], "");
    let list = String::from_utf8(list.stdout).unwrap();
    let listed: serde_json::Value = serde_json::from_str(list.trim()).unwrap();
    assert_eq!(listed["client_id"], "slow", "and nobody else");
    assert!(listed["blocked_ms"].as_u64().unwrap() >= 1_000, "{listed}");
    assert!(listed["dropped"].as_u64().unwrap() > 0, "{listed}");
    let log = server.log();
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(told("takes nothing of what is sent"), 1, "{log}");
    assert_eq!(told("messages are dropped"), 1, "{log}");
    assert!(log.contains("sloth"));
}
