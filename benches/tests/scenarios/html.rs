//! The report for people: one file that is well-formed, needs nothing else, and takes no text for markup.

use std::collections::BTreeSet;
use std::process::Command;

use tempfile::TempDir;

use super::brokers::Mqchat;

const HOSTILE: &str =
    "</title><script>alert(1)</script><img src=x onerror='a()'>\" & ]]> \u{1b}[2J";

/// The report of a run with a hostile label, and everything that it printed.
fn page(options: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("report.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqchat-bench"));
    command.args(["--quiet", "--label", HOSTILE, "--html"]);
    let output = command.arg(&path).args(options).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    std::fs::read_to_string(path).unwrap()
}

/// The names of all elements; panics unless it is well-formed.
fn elements(page: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut open = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").expect("HTML");
    while let Some((text, after)) = rest.split_once('<') {
        assert!(
            !text.contains('>') || open.last() == Some(&"style"),
            "{text}"
        );
        check_references(text);
        let (tag, after) = after.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "in order");
            continue;
        }
        let inner = tag.strip_suffix('/').unwrap_or(tag);
        let (name, attributes) = inner.split_once(' ').unwrap_or((inner, ""));
        assert!(name.chars().all(|it| it.is_ascii_alphanumeric()), "<{tag}>");
        check_attributes(attributes);
        names.insert(name);
        if inner == tag {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    names
}

/// `name="value"`, again and again.
fn check_attributes(attributes: &str) {
    let mut rest = attributes.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{rest}"));
        let is_name = name
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || it == '-');
        assert!(is_name, "{name}");
        let on_event = name.starts_with("on");
        assert!(
            !on_event && !["src", "href", "action", "srcset", "data"].contains(&name),
            "{name}"
        );
        let (value, after) = after.split_once('"').expect("a value ends");
        check_references(value);
        rest = after.trim_start();
    }
}

/// Every ampersand begins a reference.
fn check_references(text: &str) {
    let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
    for after in text.split('&').skip(1) {
        assert!(known.iter().any(|it| after.starts_with(it)), "&{after}");
    }
}

fn assert_needs_nothing(page: &str) {
    for reference in ["http:", "https:", "//", "url(", "@import", "javascript:"] {
        assert!(!page.contains(reference), "{reference}");
    }
    let names = elements(page);
    for forbidden in [
        "script", "img", "link", "iframe", "object", "embed", "base", "form",
    ] {
        assert!(!names.contains(forbidden), "{forbidden}");
    }
    assert!(names.contains("svg") && names.contains("path"), "{names:?}");
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "the label is there"
    );
    assert!(!page.contains('\u{1b}'));
}

#[test]
fn a_report_is_one_well_formed_file_that_needs_nothing_else() {
    let server = Mqchat::start(&[]);
    let target = server.target();
    let target = [&target[..], &["--password", "hidden-password"]].concat();
    let short = ["--pairs", "1", "--warmup", "0", "--seconds", "2"];
    let one = page(&[&target[..], &["chat", "--rate", "50"], &short].concat());
    assert_needs_nothing(&one);
    for section in [
        "Latency",
        "Over time",
        "All figures",
        "How it was measured",
        "ack_p99_us",
    ] {
        assert!(one.contains(section), "{section}");
    }
    let version = format!(", mqchat, {}", env!("CARGO_PKG_VERSION"));
    assert!(one.contains(&version), "the server tells its version");
    assert!(!one.contains("hidden-password") && one.contains("--password ***"));

    let steps = page(&[&target[..], &["chat", "--steps", "20,40"], &short].concat());
    assert_needs_nothing(&steps);
    assert!(steps.contains("Offered and achieved") && steps.contains("limit 20 ms"));

    let [_, addr, ..] = target[..] else {
        panic!("{target:?}")
    };
    let versus = [
        "--vs",
        addr,
        "--rounds",
        "2",
        "--vs-names",
        HOSTILE,
        "b<",
        "chat",
        "--rate",
        "50",
    ];
    let versus = page(&[&target[..], &versus, &short].concat());
    assert_needs_nothing(&versus);
    assert!(versus.contains("b&lt;") && versus.contains("the lines are the medians"));
}
