//! Who may do what outside `chat/`: the operator's rules, with the unmodified mosquitto tools.

use std::fs;
use std::path::PathBuf;

use broker::codec::packet::Version;
use tempfile::TempDir;

use super::harness::{
    Server, Sub, VERSIONS, attempt_publish, attempt_subscribe, eventually, publish,
};

const RULES: &str = r#"
[[rules]]
deny = ["publish", "subscribe"]
topics = ["locked/#"]

[[rules]]
deny = ["subscribe"]
topics = ["hidden"]
reason = "unspecified"

[[rules]]
users = ["alice"]
allow = ["publish", "subscribe"]
topics = ["news/#"]

[[rules]]
users = ["bob"]
allow = ["subscribe"]
topics = ["news/#"]
qos_max = 0

[[rules]]
allow = ["publish", "subscribe"]
topics = ["users/%u/#"]
retain = false

[[rules]]
allow = ["publish", "subscribe"]
topics = ["ready"]
"#;

/// A server with users and rules; topics that no rule concerns are closed.
struct Site {
    server: Server,
    rules: PathBuf,
    _directory: TempDir,
}

impl Site {
    fn start(rules: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("acl.toml");
        fs::write(&file, rules).unwrap();
        let server =
            Server::in_new_directory(|launch| launch.variable("MQCHAT_SERVER__ACL_FILE", &file));
        for user in ["alice", "bob"] {
            let added = server.command(&["user", "add", user], &format!("{user}-secret\n"));
            assert!(added.status.success(), "{added:?}");
        }
        let ready = ["-r", "-t", "ready", "-m", "ready"];
        publish(server.address(), Version::V5, "alice", &ready);
        Self {
            server,
            rules: file,
            _directory: directory,
        }
    }

    /// A `mosquitto_sub` of this user that is known to have subscribed: the retained message tells.
    fn subscribe(&self, version: Version, user: &str, filters: &[&str]) -> Sub {
        let mut arguments = vec!["-q", "2", "-F", "%q %p"];
        for filter in filters.iter().chain(&["ready"]) {
            arguments.extend(["-t", filter]);
        }
        let sub = Sub::start(self.server.address(), version, user, &arguments);
        let line = sub.next_line();
        assert!(line.ends_with(" ready"), "{line}");
        sub
    }

    /// Replaces the rules, and waits until the server says so.
    fn replace(&self, rules: &str, said: &str) {
        let count = || self.server.log().matches(said).count();
        let before = count();
        fs::write(&self.rules, rules).unwrap();
        self.server.signal("HUP");
        eventually("the server to read the rules", || {
            (count() > before).then_some(())
        });
    }

    fn publishes(&self, version: Version, user: &str, arguments: &[&str]) -> bool {
        let said = attempt_publish(self.server.address(), version, user, arguments);
        !said.contains("Not authorized")
    }

    /// In both versions the tool ends when all that it asked for is denied.
    fn is_denied(&self, version: Version, user: &str, filter: &str) -> bool {
        let arguments = ["-t", filter, "-E"];
        attempt_subscribe(self.server.address(), version, user, &arguments).contains("denied")
    }
}

#[test]
fn publishes_are_allowed_and_denied_by_the_rules() {
    let site = Site::start(RULES);
    let address = site.server.address();
    for version in VERSIONS {
        let news = site.subscribe(version, "alice", &["news/+"]);
        // 3.1.1 knows no refusal: what is denied does not arrive.
        for (user, topic) in [
            ("bob", "news/denied"),
            ("alice", "locked/x"),
            ("alice", "other"),
        ] {
            let allowed = site.publishes(version, user, &["-t", topic, "-m", "x"]);
            assert_eq!(allowed, version == Version::V311, "{user} {topic}");
        }
        publish(
            address,
            version,
            "alice",
            &["-t", "news/allowed", "-m", "allowed"],
        );
        assert_eq!(news.next_line(), "1 allowed");
        news.kill();
    }
}

#[test]
fn subscriptions_are_allowed_and_denied_by_the_rules() {
    let site = Site::start(RULES);
    for version in VERSIONS {
        for (user, filter, denied) in [
            ("alice", "locked/x", true),
            ("alice", "hidden", true),
            ("alice", "other", true),
            ("alice", "#", true),
            ("alice", "news/#", false),
            ("alice", "users/alice/+", false),
            ("alice", "users/bob/+", true),
            ("alice", "users/+/x", true),
            ("bob", "users/bob/#", false),
        ] {
            assert_eq!(
                site.is_denied(version, user, filter),
                denied,
                "{user} {filter}"
            );
        }
    }
}

#[test]
fn qos_and_retain_are_limited_by_the_rules() {
    let site = Site::start(RULES);
    let address = site.server.address();
    for version in VERSIONS {
        let bob = site.subscribe(version, "bob", &["news/x"]);
        let alice = site.subscribe(version, "alice", &["news/x"]);
        publish(address, version, "alice", &["-t", "news/x", "-m", "hi"]);
        assert_eq!(bob.next_line(), "0 hi");
        assert_eq!(alice.next_line(), "1 hi");

        let retained = ["-r", "-t", "users/alice/x", "-m", "kept"];
        let allowed = site.publishes(version, "alice", &retained);
        assert_eq!(allowed, version == Version::V311);
        // If it were kept it came first.
        site.subscribe(version, "alice", &["users/alice/#"]).kill();
    }
}

#[test]
fn rules_read_again_end_subscriptions_and_mistakes_change_nothing() {
    let site = Site::start(RULES);
    let address = site.server.address();
    for version in VERSIONS {
        site.replace(RULES, "the rules were read");
        let news = site.subscribe(version, "alice", &["news/+", "users/alice/#"]);
        publish(address, version, "alice", &["-t", "news/x", "-m", "first"]);
        assert_eq!(news.next_line(), "1 first");

        site.replace("[[rules]]\nallow = []", "the old ones stay");
        publish(address, version, "alice", &["-t", "news/x", "-m", "second"]);
        assert_eq!(news.next_line(), "1 second");

        let secret = "[[rules]]\ndeny = [\"subscribe\"]\ntopics = [\"news/secret\"]\n";
        site.replace(&format!("{secret}{RULES}"), "subscriptions end");
        publish(
            address,
            version,
            "alice",
            &["-t", "news/secret", "-m", "secret"],
        );
        publish(
            address,
            version,
            "alice",
            &["-t", "users/alice/x", "-m", "third"],
        );
        assert_eq!(news.next_line(), "1 third");
        news.kill();
    }
}

#[test]
fn a_mistake_in_the_rules_is_told_before_the_start_and_by_check_config() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("mqchat.toml");
    fs::write(&config, "[server]\nacl_file = \"acl.toml\"\n").unwrap();
    let run = |command: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mqchat"))
            .args([command, "--config"])
            .arg(&config)
            .current_dir("/")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = run("check-config");
    assert_eq!(code, Some(2), "{said}");
    fs::write(directory.path().join("acl.toml"), RULES).unwrap();
    assert_eq!(run("check-config").0, Some(0));
    let mistake = format!("{RULES}qos_max = 3\n");
    fs::write(directory.path().join("acl.toml"), mistake).unwrap();
    for command in ["check-config", "serve"] {
        let (code, said) = run(command);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("line 27: rule 6: `qos_max` is 3"), "{said}");
    }
}
