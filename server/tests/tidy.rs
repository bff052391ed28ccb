//! Who may know whom: reads the sources and manifests of the workspace and fails where a boundary is crossed.
//!
//! Tests inside of a source file, and comments, may name what they like.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What must not be said where.
struct Rule {
    /// Files and folders that it is about, relative to the workspace.
    within: &'static [&'static str],
    /// Last part of paths that are exempt.
    except: &'static [&'static str],
    /// Texts that must not occur in code.
    forbidden: &'static [&'static str],
    /// Why.
    because: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        within: &["broker/src"],
        except: &[],
        forbidden: &["chat", "Chat", "CHAT"],
        because: "the broker has never heard of chat",
    },
    Rule {
        within: &[
            "proto/src",
            "broker/src/codec",
            "broker/src/session",
            "broker/src/router",
            "chat-plugin/src/domain",
        ],
        except: &[],
        forbidden: &[
            "tokio",
            "std::net",
            "std::fs",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "getrandom",
            "crate::store",
        ],
        because: "time, chance and results come in as arguments",
    },
    Rule {
        within: &["proto/src", "chat-plugin/src/domain"],
        except: &[],
        forbidden: &[
            "crate::service",
            "crate::delivery",
            "crate::plugin",
            "crate::http",
            "broker::",
        ],
        because: "rules know nobody who applies them",
    },
    Rule {
        within: &["chat-plugin/src/store"],
        except: &[],
        forbidden: &[
            "crate::service",
            "crate::delivery",
            "crate::plugin",
            "crate::http",
            "broker::hooks",
            "broker::codec",
            "broker::Broker",
        ],
        because: "a store is called and calls nobody",
    },
    Rule {
        within: &[
            "terminal/src/model",
            "terminal/src/layout",
            "terminal/src/compose",
            "terminal/src/command",
        ],
        except: &[],
        forbidden: &[
            "tokio",
            "std::net",
            "std::fs",
            "std::io",
            "crate::work",
            "crate::screen",
            "now_ms",
        ],
        because: "the model of the terminal is told what happens, and does nothing itself",
    },
    Rule {
        within: &["chat-plugin/src/service"],
        except: &[],
        forbidden: &["crate::plugin", "crate::http"],
        because: "nothing calls upwards: it is told by event",
    },
    Rule {
        within: &[
            "broker/src",
            "chat-plugin/src",
            "client-sdk/src",
            "terminal/src",
            "server/src",
        ],
        except: &["clock.rs"],
        forbidden: &["Instant::now(", "SystemTime::now("],
        because: "the clock is read in one place of each crate",
    },
    Rule {
        within: &[
            "broker/src",
            "chat-plugin/src",
            "client-sdk/src",
            "terminal/src",
            "server/src",
        ],
        except: &[],
        forbidden: &["tokio::spawn(", "unbounded_channel"],
        because: "every task has an owner and every queue a limit",
    },
];

/// Which crates of the workspace a crate may depend on, and which others its tests may.
const DEPENDENCIES: &[(&str, &[&str], &[&str])] = &[
    ("proto", &[], &[]),
    ("broker", &[], &[]),
    ("chat-plugin", &["broker", "proto"], &[]),
    ("client-sdk", &["proto"], &[]),
    ("terminal", &["client-sdk", "proto"], &[]),
    (
        "server",
        &["broker", "chat-plugin", "proto", "terminal"],
        &["client-sdk"],
    ),
    ("benches", &["broker", "client-sdk", "proto"], &[]),
];

/// Folders of the machine on which somebody worked. Written in two parts, so that this file does not name them.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt"),
    concat!("/Us", "ers/"),
];

/// A line that crosses a boundary.
#[derive(PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    found: String,
    because: &'static str,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            found,
            because,
        } = self;
        write!(f, "{path}:{line}: `{found}`, but {because}")
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// All files below a folder that have one of these endings, as paths relative to the workspace.
fn files(folder: &Path, endings: &[&str]) -> Vec<(String, String)> {
    let skipped = [
        "target",
        ".git",
        ".venv",
        "node_modules",
        "corpus",
        "artifacts",
    ];
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !skipped.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending))
                && let Ok(text) = fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(workspace()).unwrap();
                found.push((relative.to_str().unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The code of a source: no comments, nothing from its tests on.
fn code(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = source.lines().enumerate().peekable();
    let mut in_tests = false;
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        let next_is_module = lines
            .peek()
            .is_some_and(|(_, next)| next.trim_start().starts_with("mod "));
        in_tests |= line.trim() == "#[cfg(test)]" && next_is_module;
        let code = line.split("//").next().unwrap_or_default();
        Some((number + 1, if in_tests { "" } else { code }))
    })
}

fn is_test(path: &str) -> bool {
    const NAMES: [&str; 4] = ["tests", "tests.rs", "suite", "suite.rs"];
    path.split('/').any(|part| NAMES.contains(&part))
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

fn crossed_by(path: &str, source: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for rule in RULES {
        let applies = rule.within.iter().any(|place| is_within(path, place))
            && !rule.except.iter().any(|end| path.ends_with(end))
            && !is_test(path);
        if !applies {
            continue;
        }
        for (line, code) in code(source) {
            for word in rule.forbidden {
                if code.contains(word) {
                    violations.push(Violation {
                        path: path.to_owned(),
                        line,
                        found: (*word).to_owned(),
                        because: rule.because,
                    });
                }
            }
        }
    }
    violations
}

fn machine_paths_in(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for found in MACHINE_PATHS.iter().filter(|known| line.contains(**known)) {
            violations.push(Violation {
                path: path.to_owned(),
                line: number + 1,
                found: (*found).to_owned(),
                because: "the next one works on another machine",
            });
        }
    }
    violations
}

/// The dependencies of a manifest on crates of the workspace that `DEPENDENCIES` does not allow.
fn forbidden_dependencies(name: &str, manifest: &str) -> Vec<String> {
    let (_, normal, dev) = DEPENDENCIES
        .iter()
        .find(|(known, ..)| *known == name)
        .unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut found = Vec::new();
    for (section, allowed) in [
        ("dependencies", normal.to_vec()),
        ("build-dependencies", vec![]),
        ("dev-dependencies", [*normal, *dev].concat()),
    ] {
        let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else {
            continue;
        };
        for other in table.keys() {
            let ours = DEPENDENCIES.iter().any(|(known, ..)| known == other);
            if ours && !allowed.contains(&other.as_str()) {
                found.push(format!("{name}: {other} in [{section}]"));
            }
        }
    }
    found
}

#[test]
fn no_source_crosses_a_boundary() {
    let sources = files(&workspace(), &[".rs"]);
    assert!(sources.len() > 20, "looked in the wrong place");
    let violations: Vec<_> = sources
        .iter()
        .flat_map(|(path, source)| crossed_by(path, source))
        .collect();
    assert_eq!(violations, []);
}

#[test]
fn no_crate_depends_on_one_that_it_must_not_know() {
    let root: toml::Table = fs::read_to_string(workspace().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let members: Vec<_> = root["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap())
        .collect();
    let found: Vec<_> = members
        .iter()
        .flat_map(|name| {
            let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
            forbidden_dependencies(name, &manifest)
        })
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    let endings = [
        ".rs", ".toml", ".md", ".sh", ".c", ".py", ".yml", ".yaml", "run",
    ];
    let violations: Vec<_> = files(&workspace(), &endings)
        .iter()
        .flat_map(|(path, text)| machine_paths_in(path, text))
        .collect();
    assert_eq!(violations, []);
}

#[test]
fn planted_violations_are_found() {
    let planted: BTreeMap<&str, &str> = [
        ("broker/src/router.rs", "const ROOT: &str = \"chat\";"),
        ("broker/src/session/timers.rs", "let now = Instant::now();"),
        ("broker/src/codec/decode.rs", "use std::net::SocketAddr;"),
        ("broker/src/router/trie.rs", "use tokio::sync::Mutex;"),
        ("proto/src/ids.rs", "use std::fs;"),
        (
            "chat-plugin/src/domain/entry.rs",
            "use crate::store::ChatStore;",
        ),
        (
            "chat-plugin/src/service/send.rs",
            "use crate::plugin::Plugin;",
        ),
        (
            "chat-plugin/src/store/memory.rs",
            "use crate::service::send;",
        ),
        (
            "server/src/main.rs",
            "let now = std::time::SystemTime::now();",
        ),
        ("broker/src/listener.rs", "tokio::spawn(async {});"),
        (
            "terminal/src/model/room.rs",
            "let now = crate::clock::now_ms();",
        ),
    ]
    .into();
    for (path, line) in planted {
        let source = format!("//! A module.\n\n{line}\n");
        let violations = crossed_by(path, &source);
        assert!(
            violations.iter().any(|found| found.line == 3),
            "{path}: {line}"
        );
    }
    assert_eq!(machine_paths_in("README.md", MACHINE_PATHS[0]).len(), 1);
    let manifest = "[dependencies]\nchat-plugin = { path = \"../chat-plugin\" }\n";
    assert_eq!(forbidden_dependencies("broker", manifest).len(), 1);
    let manifest = "[dev-dependencies]\nclient-sdk = { path = \"../client-sdk\" }\n";
    assert_eq!(forbidden_dependencies("server", manifest), [""; 0]);
    let manifest = "[dependencies]\nclient-sdk = { path = \"../client-sdk\" }\n";
    assert_eq!(forbidden_dependencies("server", manifest).len(), 1);
    let manifest = "[dependencies]\nbroker = { path = \"../broker\" }\n";
    assert_eq!(forbidden_dependencies("terminal", manifest).len(), 1);
}

#[test]
fn comments_tests_and_exempt_files_may_name_anything() {
    let source = "/// For chat.\nfn f() {} // chat\n#[cfg(test)]\nmod tests {\n const A: &str = \"chat\";\n}\n";
    assert_eq!(crossed_by("broker/src/router.rs", source), []);
    assert_eq!(crossed_by("broker/src/clock.rs", "Instant::now()"), []);
    assert_eq!(
        crossed_by("broker/src/session/tests.rs", "Instant::now()"),
        []
    );
}
