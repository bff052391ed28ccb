//! Keeps `docs/scenarios.md` and the tests the same: what is named there exists.

use std::fs;
use std::path::Path;

/// Names in backticks in the last cell of a row of a table.
fn named(line: &str) -> Vec<&str> {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
    match cells[..] {
        [_, tests] => tests.split('`').skip(1).step_by(2).collect(),
        _ => Vec::new(),
    }
}

/// In the file of `module::test`, or in the one whose path is named.
fn exists(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some((place, test)) = name.rsplit_once("::") else {
        return false;
    };
    let file = if place.contains('/') {
        root.join("..").join(place)
    } else {
        let module = place.replace("::", "/");
        root.join("tests/stories").join(module).with_extension("rs")
    };
    let source = fs::read_to_string(file).unwrap_or_default();
    source.contains(&format!("\nfn {test}() {{")) || source.contains(&format!(" fn {test}() {{"))
}

#[test]
fn every_test_that_the_page_names_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.ends_with("| Tests |"))
        .collect();
    assert!(rows.len() > 40, "only {} rows", rows.len());
    for row in rows {
        let tests = named(row);
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(exists(test), "{test} in: {row}");
        }
    }
    assert!(
        !exists("rows::nothing"),
        "a test that is not there is found"
    );
}
