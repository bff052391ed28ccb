//! Programs around other stock clients, in `clients/`. `scripts/test --setup` installs what they need.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program in Python until it has done all it should.
///
/// # Panics
/// If it fails, with what it said.
pub(crate) fn python(program: &str, arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(folder.join("../.venv/bin/python"), program, arguments);
}

/// Runs a program in Node.js until it has done all it should.
///
/// # Panics
/// If it fails, with what it said.
pub(crate) fn node(program: &str, arguments: &[&str]) {
    run("node", program, arguments);
}

fn run(interpreter: impl AsRef<OsStr>, program: &str, arguments: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories/clients");
    let output = Command::new(interpreter)
        .arg(folder.join(program))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the programs need Python and Node.js: run scripts/test --setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.lines().last() == Some("done"),
        "{program} {arguments:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
