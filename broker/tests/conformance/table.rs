//! Keeps `docs/conformance.md` and the tests the same: every rule has its tests or a reason, every test that is named exists
//! and cites the rule, every citation is in the table.
//!
//! The tests say what they check in their documentation; `BLESS=1` writes that into the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A statement: the version of the specification and the number in it, `("5.0", "MQTT-3.1.0-2")`.
type Statement = (&'static str, String);

/// Which tests cite a statement.
type Citations = BTreeMap<Statement, BTreeSet<String>>;

const TABLE: &str = "docs/conformance.md";

/// How many statements the appendix of each specification lists.
const STATEMENTS: [(&str, usize); 2] = [("5.0", 251), ("3.1.1", 141)];

#[test]
fn the_table_names_exactly_the_tests_that_cite_a_statement() {
    let citations = citations();
    let text = fs::read_to_string(root().join(TABLE)).unwrap();
    let blessed = bless(&text, &citations);
    if std::env::var_os("BLESS").is_some() {
        fs::write(root().join(TABLE), blessed).unwrap();
        return;
    }
    for (have, should) in text.lines().zip(blessed.lines()) {
        assert_eq!(have, should, "run with BLESS=1 if the citations are right");
    }
}

#[test]
fn every_statement_has_a_test_or_a_reason() {
    let text = fs::read_to_string(root().join(TABLE)).unwrap();
    let rows = rows(&text);
    for (version, count) in STATEMENTS {
        let of_version = rows.keys().filter(|(of, _)| *of == version);
        assert_eq!(of_version.count(), count, "{version}");
    }
    let unaccounted: Vec<_> = rows.iter().filter(|(_, how)| how.is_empty()).collect();
    assert!(unaccounted.is_empty(), "{unaccounted:#?}");
}

#[test]
fn every_citation_is_a_statement_of_the_table() {
    let text = fs::read_to_string(root().join(TABLE)).unwrap();
    let rows = rows(&text);
    let unknown: Vec<_> = citations()
        .into_iter()
        .filter(|(statement, _)| !rows.contains_key(statement))
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The table with the tests that there are. What is no test (a reason) stays where no test cites the statement.
fn bless(text: &str, citations: &Citations) -> String {
    let mut version = "";
    let mut blessed = Vec::new();
    for line in text.lines() {
        version = heading(line).unwrap_or(version);
        match row(line) {
            Some((number, words, how)) => {
                let tests = citations.get(&(static_version(version), number.to_owned()));
                let how = match tests {
                    Some(tests) => tests
                        .iter()
                        .map(|test| format!("`{test}`"))
                        .collect::<Vec<_>>()
                        .join(", "),
                    None if how.starts_with('`') => String::new(),
                    None => how.to_owned(),
                };
                blessed.push(format!("| [{number}] | {words} | {how} |"));
            }
            None => blessed.push(line.to_owned()),
        }
    }
    blessed.join("\n") + "\n"
}

fn rows(text: &str) -> BTreeMap<Statement, String> {
    let mut version = "";
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        version = heading(line).unwrap_or(version);
        if let Some((number, _, how)) = row(line) {
            let statement = (static_version(version), number.to_owned());
            assert!(
                rows.insert(statement, how.to_owned()).is_none(),
                "{number} twice"
            );
        }
    }
    rows
}

/// `## MQTT 5.0` begins the table of a version.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("## MQTT ")
}

fn static_version(version: &str) -> &'static str {
    let found = STATEMENTS.iter().find(|(known, _)| *known == version);
    found
        .expect("a row below «## MQTT 5.0» or «## MQTT 3.1.1»")
        .0
}

/// Number, words, and tests or reason of a line of the table.
fn row(line: &str) -> Option<(&str, &str, &str)> {
    let (number, rest) = line.strip_prefix("| [")?.split_once("] | ")?;
    let (words, how) = rest.strip_suffix('|')?.rsplit_once(" |")?;
    number
        .starts_with("MQTT")
        .then_some((number, words, how.trim()))
}

/// What all tests of the broker and the server cite.
fn citations() -> Citations {
    let mut citations = Citations::new();
    for folder in ["broker/src", "broker/tests", "server/tests"] {
        let folder = root().join(folder);
        for file in sources(&folder) {
            if file.ends_with("conformance/table.rs") {
                continue; // its example
            }
            let source = fs::read_to_string(&file).unwrap();
            let module = module(file.strip_prefix(&folder).unwrap());
            for (test, documentation) in tests(&source) {
                for statement in documentation.lines().flat_map(cited) {
                    let test = format!("{module}{test}");
                    citations.entry(statement).or_default().insert(test);
                }
            }
        }
    }
    citations
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found
}

/// `conformance/connect.rs` → `connect::`, `vectors/main.rs` → `vectors::`, `codec/topic.rs` → `codec::topic::`.
fn module(file: &Path) -> String {
    let file = file.with_extension("");
    let parts = file.iter().map(|part| part.to_str().unwrap());
    let parts = parts.filter(|part| !matches!(*part, "conformance" | "main"));
    parts.collect::<Vec<_>>().join("::") + "::"
}

/// The name and the documentation of each test in a source.
fn tests(source: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let (mut documentation, mut is_test) = (String::new(), false);
    for line in source.lines().map(str::trim) {
        let name = line.trim_start_matches("async ").strip_prefix("fn ");
        if let Some(text) = line.strip_prefix("///") {
            documentation.push_str(text);
            documentation.push('\n');
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((name, _)) = name.filter(|_| is_test).and_then(|it| it.split_once('(')) {
            found.push((name, std::mem::take(&mut documentation)));
            is_test = false;
        } else if !line.starts_with("#[") {
            documentation.clear();
            is_test = false;
        }
    }
    found
}

/// The statements on a line: those behind «3.1.1» are of that version.
fn cited(line: &str) -> Vec<Statement> {
    let mut version = "5.0";
    let mut found = Vec::new();
    for (place, _) in line.match_indices(['[', '3']) {
        let rest = &line[place..];
        if rest.starts_with("3.1.1 ") {
            version = "3.1.1";
        } else if let Some((number, _)) = rest
            .strip_prefix('[')
            .filter(|rest| rest.starts_with("MQTT-"))
            .and_then(|rest| rest.split_once(']'))
        {
            found.push((static_version(version), number.to_owned()));
        }
    }
    found
}

#[test]
fn citations_are_found_in_the_documentation_of_tests() {
    let source = "
        /// [MQTT-1.2.3-4], [MQTT-5.6.7-8]: this. 3.1.1 [MQTT-3-8.3-4], [MQTT-3.1.2.7]: that.
        /// [MQTT-9.9.9-9] again of 5.0.
        #[tokio::test]
        async fn a_fact() {}

        /// [MQTT-1.1.1-1] of no test.
        fn helper() {}
    ";
    let tests = tests(source);
    assert_eq!(tests.len(), 1);
    let (name, documentation) = &tests[0];
    assert_eq!(*name, "a_fact");
    let found: Vec<_> = documentation.lines().flat_map(cited).collect();
    let found: Vec<_> = found.iter().map(|(of, number)| (*of, &**number)).collect();
    assert_eq!(
        found,
        [
            ("5.0", "MQTT-1.2.3-4"),
            ("5.0", "MQTT-5.6.7-8"),
            ("3.1.1", "MQTT-3-8.3-4"),
            ("3.1.1", "MQTT-3.1.2.7"),
            ("5.0", "MQTT-9.9.9-9"),
        ]
    );
}
