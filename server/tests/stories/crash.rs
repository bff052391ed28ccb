//! Is the emulated disk as cruel as a real one? A harness that catches nothing proves nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::harness::{Preload, compile};

/// Runs `writer` with these steps on the disk, and cuts the power after its last answer. Returns the answers.
fn write_and_cut(disk: &mut Preload, steps: &[&str]) -> Vec<String> {
    let mut child = Command::new(compile("writer.c", &[]))
        .args(steps)
        .current_dir(disk.root())
        .envs(disk.environment())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let verbs = ["write", "append", "sync", "datasync", "rename", "unlink"];
    let count = steps.iter().filter(|step| verbs.contains(step)).count();
    let out = BufReader::new(child.stdout.take().unwrap());
    let answers = out.lines().take(count).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    disk.cut_after_kill();
    answers
}

fn read(disk: &Preload, name: &str) -> Option<String> {
    fs::read_to_string(disk.root().join(name)).ok()
}

#[test]
fn acknowledged_before_fsync_is_caught() {
    let mut disk = Preload::new();
    let acks = write_and_cut(&mut disk, &["write", "log", "acked but not synced"]);
    assert_eq!(acks, ["ok"]);
    assert_eq!(read(&disk, "log"), None);
}

#[test]
fn synced_bytes_survive_and_later_ones_do_not() {
    let mut disk = Preload::new();
    write_and_cut(
        &mut disk,
        &[
            "write", "a", "one ", "append", "a", "two ", "sync", "a", "append", "a", "three",
            "write", "b", "data", "datasync", "b",
        ],
    );
    assert_eq!(read(&disk, "a").as_deref(), Some("one two "));
    assert_eq!(read(&disk, "b").as_deref(), Some("data"));
    write_and_cut(&mut disk, &["append", "a", "four", "datasync", "a"]);
    assert_eq!(read(&disk, "a").as_deref(), Some("one two four"));
    assert_eq!(
        read(&disk, "b").as_deref(),
        Some("data"),
        "from the time before"
    );
}

#[test]
fn a_name_changes_when_its_directory_is_synced() {
    let mut disk = Preload::new();
    write_and_cut(
        &mut disk,
        &[
            "write", "new", "text", "sync", "new", "rename", "new", "old",
        ],
    );
    assert_eq!(read(&disk, "new").as_deref(), Some("text"));
    assert_eq!(read(&disk, "old"), None);
    write_and_cut(
        &mut disk,
        &[
            "rename", "new", "old", "sync", ".", "unlink", "old", "write", "empty", "x",
        ],
    );
    assert_eq!(read(&disk, "new"), None);
    assert_eq!(
        read(&disk, "old").as_deref(),
        Some("text"),
        "the unlink was not synced"
    );
    write_and_cut(
        &mut disk,
        &["unlink", "old", "write", "empty", "x", "sync", "."],
    );
    assert_eq!(read(&disk, "old"), None);
    assert_eq!(
        read(&disk, "empty").as_deref(),
        Some(""),
        "a name without bytes"
    );
}

#[test]
fn failed_sync_loses_its_bytes_even_if_the_next_one_succeeds() {
    let mut disk = Preload::new();
    disk.fail_syncs();
    let answers = write_and_cut(&mut disk, &["write", "a", "lost", "sync", "a"]);
    assert_eq!(answers, ["ok", "5"], "EIO");
    assert_eq!(read(&disk, "a"), None);
    disk.repair();
    write_and_cut(&mut disk, &["write", "a", "kept", "sync", "a"]);
    assert_eq!(read(&disk, "a").as_deref(), Some("kept"));
}
