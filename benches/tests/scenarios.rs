//! Each scenario runs briefly against a real mqchat, and the plain ones against mosquitto. No time is asserted.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and tells what it left out"
)]

mod scenarios {
    pub(crate) mod brokers;
    mod html;
}

use std::process::{Command, Output};

use serde_json::Value;

use scenarios::brokers::{Mosquitto, Mqchat};

/// Runs it, and gives its report.
fn bench(options: &[&str]) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    let output = command.args(["--json", "--quiet"]).args(options).output();
    let output = output.expect("the bench runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

/// A clean report.
fn clean(options: &[&str]) -> Value {
    let (output, report) = bench(options);
    assert_eq!(output.status.code(), Some(0), "{report}");
    report
}

fn assert_figures(report: &Value, names: &[&str]) {
    for name in names {
        assert!(report[name].is_number(), "{name}: {report}");
    }
}

/// Briefly.
const SHORT: [&str; 4] = ["--warmup", "0", "--seconds", "1"];

/// What every stream of messages tells.
const STREAM: [&str; 22] = [
    "publishers",
    "subscribers",
    "payload_bytes",
    "sent",
    "acked",
    "delivered",
    "sent_per_s",
    "acked_per_s",
    "delivered_per_s",
    "ack_p50_us",
    "ack_p99_us",
    "ack_p999_us",
    "ack_max_us",
    "delivery_p99_us",
    "lost",
    "duplicates",
    "reordered",
    "refused",
    "unacked",
    "server_cpu_us_per_delivered",
    "server_rss_kb",
    "generator_cpu_percent",
];

#[test]
fn direct_messages_and_groups_come_to_all_in_order() {
    let server = Mqchat::start(&[]);
    let target = server.target();
    let chat = [&target[..], &["chat", "--pairs", "2"], &SHORT].concat();
    let report = clean(&chat);
    assert_figures(&report, &STREAM);
    assert_eq!(report["bench"], "chat");
    assert_eq!(report["sent"], report["delivered"]);
    assert_eq!(report["series"]["at_s"][0], 1.0);
    assert!(report["series"]["server_rss_kb"][0].is_number(), "{report}");

    let group = ["group", "--groups", "2", "--members", "3", "--senders", "2"];
    for form in ["in", "txt", "pb"] {
        let report = clean(&[&target[..], &group, &["--form", form], &SHORT].concat());
        assert_eq!(
            (&report["publishers"], &report["subscribers"]),
            (&4.into(), &6.into())
        );
        let sent = report["sent"].as_u64().unwrap();
        assert_eq!(report["delivered"], 3 * sent, "{report}");
    }
    let guests = clean(&[&target[..], &group, &["--guests", "--mqtt", "3"], &SHORT].concat());
    assert_eq!(guests["lost"], 0);
}

#[test]
fn ordinary_topics_are_measured_on_any_broker() {
    let (mqchat, mosquitto) = (Mqchat::start(&[]), Mosquitto::start());
    let user = ["--user", "plain", "--password", "plain-password"];
    let ours = [&mqchat.target()[..], &user].concat();
    for target in std::iter::once(ours).chain(mosquitto.iter().map(Mosquitto::target)) {
        for qos in ["0", "1", "2"] {
            let pairs = ["pairs", "--pairs", "2", "--qos", qos];
            let report = clean(&[&target[..], &pairs, &SHORT].concat());
            assert!(report["delivered"].as_u64() > Some(0), "{report}");
        }
        let persistent = ["pairs", "--pairs", "1", "--persistent", "--rate", "50"];
        let report = clean(&[&target[..], &persistent, &SHORT].concat());
        let open = [
            "offered_per_s",
            "offered_deliveries_per_s",
            "send_lag_p99_us",
            "generator_lag_p99_us",
        ];
        assert_figures(&report, &STREAM);
        assert_figures(&report, &open);
        let fanout = ["fanout", "--subscribers", "5", "--expected-rate", "100"];
        let report = clean(&[&target[..], &fanout, &SHORT].concat());
        assert_figures(
            &report,
            &["ack_corrected_p99_us", "delivery_corrected_p99_us"],
        );
        let conns = ["conns", "--connections", "20", "--settle", "1"];
        let report = clean(&[&target[..], &conns].concat());
        let held = [
            "connects_per_s",
            "connack_p99_us",
            "total_p50_us",
            "server_cpu_us_per_connect",
        ];
        assert_figures(&report, &held);
        assert_figures(
            &report,
            &["server_kb_per_connection", "server_idle_cpu_percent"],
        );
        let churn = clean(&[&target[..], &["conns", "--churn", "--connections", "20"]].concat());
        assert_eq!(
            (&churn["connected"], &churn["failed"]),
            (&20.into(), &0.into())
        );
        let offline = ["offline", "--sessions", "3", "--messages", "50"];
        let report = clean(&[&target[..], &offline].concat());
        assert_figures(&report, &["drained_per_s", "session_drained_p99_us"]);
        assert_eq!(report["drained"], 150);
        let storm = ["reconnect-storm", "--sessions", "10", "--at-once", "5"];
        let report = clean(&[&target[..], &storm].concat());
        assert_figures(
            &report,
            &["all_back_after_s", "connected_p99_us", "back_p99_us"],
        );
        assert_eq!(report["sessions_lost"], 0);
    }
}

#[test]
fn what_only_mqchat_has_is_measured() {
    let server = Mqchat::start(&[]);
    let target = server.target();
    let offline = [
        "offline",
        "--topics",
        "chat",
        "--sessions",
        "3",
        "--messages",
        "50",
    ];
    // The second run is not disturbed by what the first one left.
    for _ in 0..2 {
        let report = clean(&[&target[..], &offline].concat());
        let counts = (&report["drained"], &report["repeated"]);
        assert_eq!(counts, (&150.into(), &0.into()), "{report}");
    }
    let receipts = ["receipts", "--members", "5", "--within", "1"];
    let report = clean(&[&target[..], &receipts].concat());
    assert_figures(
        &report,
        &["events_to_sender", "read_ack_p99_us", "status_p50_us"],
    );
    let channel = [
        "channel",
        "--readers",
        "6",
        "--connected",
        "3",
        "--messages",
        "5",
    ];
    let report = clean(&[&target[..], &channel].concat());
    assert_figures(
        &report,
        &["ack_p99_us", "last_delivery_p99_us", "readers_added_per_s"],
    );
}

/// The server reads 50 publishes of a connection each second, and no more: more than that cannot hold.
#[test]
fn steps_find_where_a_limited_server_is_saturated() {
    let server = Mqchat::start(&[
        ("MQCHAT_BROKER__CONNECTION_PUBLISHES_PER_S", "50"),
        ("MQCHAT_BROKER__CONNECTION_PUBLISHES_BURST", "10"),
    ]);
    let user = ["--user", "plain", "--password", "plain-password"];
    let steps = [
        "--steps",
        "50x2",
        "--latency-limit-ms",
        "300",
        "--refine",
        "1",
        "--tries",
        "2",
    ];
    let pairs = ["pairs", "--pairs", "2", "--warmup", "0", "--seconds", "2"];
    let report = clean(&[&server.target()[..], &user, &pairs, &steps].concat());
    let saturation = report["saturation_per_s"].as_u64().unwrap();
    assert!((1..200).contains(&saturation), "{report}");
    let all = report["steps"].as_array().unwrap();
    assert_eq!(report["steps_tried"], all.len());
    let held = |step: &&Value| step["held"] == true;
    let best = all
        .iter()
        .filter(held)
        .map(|it| it["offered_per_s"].as_u64());
    assert_eq!(best.max().flatten(), Some(saturation));
    let failed = all.iter().find(|step| step["held"] == false).unwrap();
    assert!(failed["failure"].is_string(), "{report}");
    assert!(failed["offered_per_s"].as_u64() > Some(saturation));
    // A list is tried as it stands.
    let list = ["--steps", "30,20", "--latency-limit-ms", "5000"];
    let report = clean(&[&server.target()[..], &user, &pairs, &list].concat());
    let tried: Vec<_> = report["steps"].as_array().unwrap().iter().collect();
    assert_eq!(tried[0]["offered_per_s"], 30);
    assert_eq!(tried.last().unwrap()["offered_per_s"], 20);
}

#[test]
fn a_mix_of_writing_and_reading_is_measured() {
    let server = Mqchat::start(&[]);
    let people = [
        "mix",
        "--users",
        "8",
        "--groups",
        "2",
        "--group-size",
        "5",
        "--page",
        "3",
    ];
    let load = ["--rate", "5", "--seed", "7", "--payloads", "60:1,200:1"];
    for version in ["3", "5"] {
        let all = [
            &server.target()[..],
            &people,
            &load,
            &SHORT,
            &["--mqtt", version],
        ];
        let report = clean(&all.concat());
        let each = [
            "acked_per_s",
            "delivered_per_s",
            "reads_per_s",
            "offered_deliveries_per_s",
        ];
        assert_figures(&report, &each);
        assert_figures(
            &report,
            &[
                "ack_p99_us",
                "delivery_p99_us",
                "server_cpu_us_per_operation",
            ],
        );
        let read = [
            "read_history_p99_us",
            "read_last_p99_us",
            "read_mark_p99_us",
            "read_changes_p99_us",
        ];
        assert_figures(&report, &read);
        let expected = [
            ("seed", 7),
            ("users", 8),
            ("groups", 2),
            ("lost", 0),
            ("refused", 0),
        ];
        for (name, value) in expected {
            assert_eq!(report[name], value, "{name}: {report}");
        }
        // One write in a second for five of them, and 20 reads for each, but for what was due at the very end.
        let count = |name: &str| report[name].as_u64().unwrap();
        let (sent, reads) = (count("sent"), count("reads"));
        assert!(sent + reads + count("unsent") >= 105, "{report}");
        assert!(sent > 0 && reads > sent, "{report}");
    }
}

#[test]
fn two_brokers_are_measured_in_turn() {
    let (one, other) = (Mqchat::start(&[]), Mqchat::start(&[]));
    let other = other.target();
    let [_, addr, _, pid] = other[..] else {
        panic!("{other:?}")
    };
    let there = [
        "--vs",
        addr,
        "--vs-server-pid",
        pid,
        "--vs-names",
        "this",
        "that",
        "--rounds",
        "3",
    ];
    // Direct messages here, ordinary topics there.
    let plain = [
        "--vs-topics",
        "plain",
        "--vs-user",
        "plain",
        "--vs-password",
        "plain-password",
    ];
    let chat = ["chat", "--pairs", "1"];
    let report = clean(&[&one.target()[..], &there, &plain, &chat, &SHORT].concat());
    let versus = &report["versus"];
    assert_eq!(
        versus["names"],
        serde_json::json!({"a": "this", "b": "that"})
    );
    let rounds = versus["rounds"].as_array().unwrap();
    let first: Vec<_> = rounds.iter().map(|round| &round["first"]).collect();
    assert_eq!(first, ["a", "b", "a"]);
    for round in rounds {
        for side in ["a", "b"] {
            assert_figures(&round[side], &STREAM);
        }
    }
    let compared = versus["compared"].as_array().unwrap().iter();
    let rate = compared
        .clone()
        .find(|one| one["figure"] == "delivered_per_s");
    assert_figures(
        rate.unwrap(),
        &["a", "b", "ratio", "ratio_min", "ratio_max"],
    );
    for scenario in [
        &["group", "--members", "2", "--warmup", "0", "--seconds", "1"][..],
        &[
            "offline",
            "--topics",
            "chat",
            "--sessions",
            "2",
            "--messages",
            "10",
        ],
        &["conns", "--connections", "5", "--settle", "0"],
    ] {
        let pair = ["--vs", addr, "--rounds", "1", "--user-prefix", "bench"];
        let report = clean(&[&one.target()[..], &pair, scenario].concat());
        assert_eq!(report["versus"]["rounds"].as_array().unwrap().len(), 1);
    }
    let told = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
        let output = command.args(options).args(["--vs", addr]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(told(&["check"]).contains("no --vs"));
    assert!(told(&["mix", "--vs-topics", "plain"]).contains("mix has no form on plain topics"));
    assert!(told(&["conns", "--vs-topics", "chat"]).contains("conns has no form on chat topics"));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = [
        &["pairs", "--rate", "5", "--steps", "5x2"][..],
        &["pairs", "--rate", "5", "--expected-rate", "5"],
        &["pairs", "--latency-limit-ms", "5"],
        &["pairs", "--payload", "8"],
        &["group", "--groups", "65535", "--senders", "2"],
        &["pairs", "--vs-topics", "plain"],
        &["mix", "--read-kinds", "mark:0"],
        &["mix", "--users", "1"],
        &["mix", "--drain", "0"],
        &["pairs", "--drain", "0"],
        &["pairs", "--steps", "5x2", "--latency-limit-ms", "nan"],
        &["storm"],
        &["idle"],
    ];
    for options in refused {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
        let output = command.args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(!output.stderr.is_empty());
    }
}
