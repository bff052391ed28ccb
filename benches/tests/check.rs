//! `mqchat-bench check` against a real server: a short campaign, and servers that break one promise on purpose.
//!
//! The long campaign is a command, in `benches/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The server beside the checker, which the build of the workspace has made; else it is built.
fn server() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_mqchat-bench")).with_file_name("mqchat");
    if beside.is_file() {
        return beside;
    }
    build(&[], "")
}

/// Builds a server, in a folder of the target directory.
fn build(arguments: &[&str], folder: &str) -> PathBuf {
    let bench = Path::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    // target/debug/mqchat-bench
    let target = bench.parent().and_then(Path::parent);
    let target = target.expect("a target directory").join(folder);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "server"])
        .args(arguments)
        .env("CARGO_TARGET_DIR", &target)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the server is built"
    );
    target.join("debug/mqchat")
}

fn check(server: &Path, options: &[&str], fault: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    command.args(["--json", "check", "--seed", "7", "--server"]);
    command.arg(server).args(options);
    command.envs(fault.map(|fault| ("PLANTED_FAULT", fault)));
    command.output().expect("the checker runs")
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"))
}

fn broken(report: &Value) -> Vec<&str> {
    let rules = report["broken"].as_array().into_iter().flatten();
    rules.filter_map(|one| one["rule"].as_str()).collect()
}

#[test]
fn a_short_campaign_finds_nothing_and_can_be_judged_again() {
    let folder = TempDir::new().unwrap();
    let work = folder.path().join("campaign");
    let work = work.to_str().unwrap();
    let faults = "kill,stop,restart,cut,mute,client";
    let options = ["--seconds", "6", "--faults", faults, "--folder", work];
    let output = check(&server(), &options, None);
    let first = report(&output);
    assert_eq!(broken(&first), [""; 0], "{first}");
    assert_eq!(output.status.code(), Some(0));
    assert!(first["acked"].as_u64().unwrap() > 100, "{first}");
    assert!(first["kills"].as_u64().unwrap() > 0, "{first}");

    let mut again = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    let again = again
        .args(["--json", "check", "--verify", work])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(0));
    let again = report(&again);
    for figure in ["sent", "acked", "received", "lives"] {
        assert_eq!(again[figure], first[figure], "{figure}");
    }

    // A message that was acknowledged is taken out of what was recorded as its log: now it is lost.
    let ann = format!("{work}/ann.jsonl");
    let text = std::fs::read_to_string(&ann).unwrap();
    let is_acked = |line: &Value| line["event"] == "acked" && line["seq"].is_u64();
    let lines = || {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
    };
    let acked = lines().find(is_acked).expect("something was acknowledged");
    let kept = lines().map(|mut line| {
        if line["event"] == "log" {
            let entries = line["entries"].as_array_mut().unwrap();
            entries.retain(|entry| entry["id"] != acked["id"]);
        }
        line.to_string() + "\n"
    });
    std::fs::write(&ann, kept.collect::<String>()).unwrap();
    let mut planted = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    let planted = planted.args(["check", "--verify", work]).output().unwrap();
    assert_eq!(planted.status.code(), Some(1));
    let told = String::from_utf8(planted.stdout).unwrap();
    assert!(told.contains("ann.jsonl:"), "the lines are shown: {told}");
}

#[test]
fn a_server_that_does_not_start_is_no_result() {
    let folder = TempDir::new().unwrap();
    let work = folder.path().join("campaign");
    let options = ["--faults", "kill", "--folder", work.to_str().unwrap()];
    let output = check(Path::new("/bin/false"), &options, None);
    assert_eq!(output.status.code(), Some(2));
}

/// Each planted fault is found, by the rule that it breaks. The server that can break promises is built apart, so that nobody
/// takes it for the real one.
#[test]
#[ignore = "builds another server, minutes: scripts/test runs it apart, as `cargo test -p benches --test check -- --ignored`"]
fn each_promise_that_is_broken_on_purpose_is_found() {
    let server = build(&["--features", "faults"], "faults");
    let planted = [
        ("ack-before-sync", "power", "lost"),
        ("no-dedupe", "cut", "stored_twice"),
        ("early-cursor", "kill", "skipped"),
        ("dropped-on-replay", "kill,client", "skipped"),
    ];
    for (fault, faults, rule) in planted {
        let options = ["--seconds", "20", "--faults", faults];
        let output = check(&server, &options, Some(fault));
        let told = report(&output);
        assert!(broken(&told).contains(&rule), "{fault}: {told}");
        assert_eq!(output.status.code(), Some(1), "{fault}");
        let folder = told["folder"].as_str().expect("it is kept");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
