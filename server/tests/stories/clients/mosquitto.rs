//! The tools of mosquitto.

use broker::codec::packet::Version;
use serde_json::Value;

use super::super::harness::{
    Server, Sub, VERSIONS, attempt_request, attempt_subscribe, publish, publish_lines,
};

/// A server, and who speaks which version to it.
struct World {
    server: Server,
    version: Version,
}

impl World {
    fn new(version: Version) -> Self {
        let world = Self {
            server: Server::dev(),
            version,
        };
        world.publish(&["-r", "-t", "ready", "-m", "ready"]);
        world
    }

    /// One world for each version.
    fn each() -> impl Iterator<Item = Self> {
        VERSIONS.into_iter().map(Self::new)
    }

    fn publish(&self, arguments: &[&str]) {
        publish(self.server.address(), self.version, "alice", arguments);
    }

    /// Publishes each line to a topic, at QoS 1.
    fn publish_lines(&self, topic: &str, lines: impl Iterator<Item = String>) {
        publish_lines(self.server.address(), self.version, "alice", topic, lines);
    }

    fn subscribe(&self, arguments: &[&str]) -> Sub {
        Sub::start(self.server.address(), self.version, "bob", arguments)
    }

    /// Subscribes and waits until that is in force: the last filter matches a retained message, which has come.
    fn subscribed(&self, arguments: &[&str]) -> Sub {
        let sub = self.subscribe(&[arguments, &["-t", "ready"]].concat());
        let line = sub.next_line();
        assert!(line.contains("ready"), "{line}");
        sub
    }
}

#[test]
fn each_qos_and_every_wildcard() {
    for world in World::each() {
        for qos in ["0", "1", "2"] {
            let format = ["-F", "%t %p %q %r"];
            let sub = world
                .subscribed(&[&["-q", qos, "-t", "wild/+/x/#", "-t", "qos"], &format[..]].concat());
            for topic in ["qos", "wild/a/y", "wild/a/b/x", "wild/a/x", "wild/b/x/y/z"] {
                world.publish(&["-q", qos, "-t", topic, "-m", "hello"]);
            }
            let expected = ["qos", "wild/a/x", "wild/b/x/y/z"];
            let expected = expected.map(|topic| format!("{topic} hello {qos} 0"));
            assert_eq!(sub.next_lines(3), expected);
            sub.kill();
        }
    }
}

#[test]
fn retained_messages() {
    for world in World::each() {
        world.publish(&["-r", "-t", "kept/1", "-m", "old"]);
        world.publish(&["-r", "-t", "kept/1", "-m", "new"]);
        world.publish(&["-r", "-t", "kept/2", "-m", "gone"]);
        world.publish(&["-r", "-t", "kept/2", "-n"]);
        let sub = world.subscribe(&["-t", "kept/+", "-F", "%t %r %p"]);
        assert_eq!(sub.next_line(), "kept/1 1 new");
        world.publish(&["-r", "-t", "kept/2", "-m", "live"]);
        assert_eq!(sub.next_line(), "kept/2 0 live");
        sub.kill();
    }
}

#[test]
fn the_will_of_a_killed_client() {
    for world in World::each() {
        let sub = world.subscribed(&["-t", "will", "-F", "%p %q"]);
        let will = ["--will-topic", "will", "--will-payload", "lost"];
        let mortal = world.subscribed(&[&will[..], &["--will-qos", "1", "-q", "1"]].concat());
        mortal.kill();
        assert_eq!(sub.next_line(), "lost 0");
        sub.kill();
    }
}

#[test]
fn messages_wait_for_a_session() {
    for world in World::each() {
        let away = ["-i", "away", "-c", "-q", "2", "-t", "queue"];
        let arguments = [&away[..], &["-E"]].concat();
        let said = attempt_subscribe(world.server.address(), world.version, "bob", &arguments);
        assert_eq!(said, "");
        world.publish_lines("queue", (0..100).map(|number| number.to_string()));
        world.publish(&["-q", "2", "-t", "queue", "-m", "last"]);
        let sub = world.subscribe(&away);
        let mut lines = sub.next_lines(101);
        assert_eq!(lines.pop().unwrap(), "last");
        assert!(
            (0..)
                .map(|number: u32| number.to_string())
                .zip(lines)
                .all(|(a, b)| a == b)
        );
        sub.kill();
    }
}

#[test]
fn members_share_the_work() {
    for world in World::each() {
        let arguments = ["-q", "1", "-t", "$share/team/jobs", "-t", "end"];
        let members = [world.subscribed(&arguments), world.subscribed(&arguments)];
        world.publish_lines("jobs", (0..20).map(|number| number.to_string()));
        world.publish(&["-t", "end", "-m", "end"]);
        let mut numbers: Vec<u32> = Vec::new();
        for member in members {
            let before = numbers.len();
            let share = std::iter::from_fn(|| member.next_line().parse::<u32>().ok());
            numbers.extend(share);
            assert!(numbers.len() > before, "somebody was left out");
            member.kill();
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..20));
    }
}

#[test]
fn large_payloads() {
    for world in World::each() {
        let sub = world.subscribed(&["-q", "1", "-t", "large"]);
        for size in [1, 127, 128, 16_383, 16_384, 65_535, 65_536, 200_000] {
            world.publish_lines("large", std::iter::once("x".repeat(size)));
            assert!(sub.next_line() == "x".repeat(size), "{size}");
        }
        sub.kill();
    }
}

#[test]
fn properties_and_a_topic_alias_in_5() {
    let world = World::new(Version::V5);
    let sub = world.subscribed(&["-t", "a/long/name", "-F", "%t|%p|%P|%C|%R|%D|%E"]);
    let told = [
        ["user-property", "a", "1"].as_slice(),
        &["user-property", "b", "2"],
        &["content-type", "text/plain"],
        &["response-topic", "answers/alice"],
        &["correlation-data", "c"],
        &["message-expiry-interval", "1000"],
        &["topic-alias", "1"],
    ];
    let told = told.map(|property| [&["-D", "publish"], property].concat());
    let message = ["-t", "a/long/name", "-m", "hello", "--repeat", "3"];
    world.publish(&[&message[..], &told.concat()].concat());
    for line in sub.next_lines(3) {
        let (rest, expiry) = line.rsplit_once('|').unwrap();
        assert_eq!(rest, "a/long/name|hello|a:1 b:2|text/plain|answers/alice|c");
        assert!((900..=1_000).contains(&expiry.parse::<u32>().unwrap()));
    }
    sub.kill();
}

#[test]
fn a_remote_call() {
    for world in World::each() {
        let topic = match world.version {
            Version::V311 => "chat/rpc/me.get/1",
            Version::V5 => "chat/rpc/me.get",
        };
        let arguments = ["-q", "1", "-t", topic, "-e", "chat/me/rpc/1", "-m", "{}"];
        let reply = attempt_request(world.server.address(), world.version, "alice", &arguments);
        let reply: Value = serde_json::from_str(&reply).expect(&reply);
        assert_eq!(reply["ok"]["handle"], "alice");
    }
}
