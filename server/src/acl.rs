//! The ACL file: rules about topics outside `chat/`, as TOML. `config/acl.toml` explains them.

use std::ops::Range;
use std::path::Path;

use broker::acl::{Acl, AclFile};
use serde::Deserialize;
use toml::Spanned;

use crate::Failure;

/// Reads and checks an ACL file; no file, no rules.
///
/// # Errors
/// [`Failure::Usage`] with the file and the line that is wrong.
pub(crate) fn read(file: &Path) -> Result<Acl, Failure> {
    if file.as_os_str().is_empty() {
        return Ok(Acl::default());
    }
    let wrong = |error: String| Failure::Usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<Acl, String> {
    let file: AclFile = toml::from_str(text).map_err(|error| error.to_string())?;
    Acl::new(file).map_err(|error| match line_of(text, error.number()) {
        Some(line) => format!("line {line}: {error}"),
        None => error.to_string(),
    })
}

/// The line where a rule begins. Looked for only when it is wrong: the rules themselves know nothing of their file.
fn line_of(text: &str, rule: usize) -> Option<usize> {
    #[derive(Deserialize)]
    struct Places {
        rules: Vec<Spanned<toml::Table>>,
    }
    let places: Places = toml::from_str(text).ok()?;
    let Range { start, .. } = places.rules.get(rule.checked_sub(1)?)?.span();
    let before = text.get(..start)?;
    Some(before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use broker::acl::{Request, Verdict, Who};
    use broker::codec::packet::Qos;
    use broker::codec::reason::ReasonCode;

    use super::*;

    const EXAMPLE: &str = include_str!("../../config/acl.toml");
    const CONFORMANCE: &str = include_str!("../../config/conformance-acl.toml");

    const ALLOWED: Verdict = Verdict::Allowed {
        qos_max: Qos::ExactlyOnce,
    };
    const DENIED: Verdict = Verdict::Refused(ReasonCode::NotAuthorized);

    fn publish(topic: &str, qos: Qos, retain: bool) -> Request<'_> {
        Request::Publish { topic, qos, retain }
    }

    fn subscribe(filter: &str) -> Request<'_> {
        Request::Subscribe { filter }
    }

    #[test]
    fn the_example_means_what_its_comments_say() {
        use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        let acl = parse(EXAMPLE).unwrap();
        let at_most_once = Verdict::Allowed {
            qos_max: AtMostOnce,
        };
        for (user, request, verdict) in [
            ("guest", publish("home/light", AtMostOnce, false), DENIED),
            ("guest", subscribe("weather"), DENIED),
            (
                "alice",
                publish("home/alarm/armed", AtMostOnce, false),
                DENIED,
            ),
            (
                "anna",
                publish("home/alarm/armed", AtMostOnce, true),
                ALLOWED,
            ),
            ("alice", publish("home/light/1", ExactlyOnce, true), ALLOWED),
            ("alice", subscribe("home/#"), ALLOWED),
            ("alice", subscribe("home/alarm/+"), ALLOWED),
            ("mallory", subscribe("home/#"), Verdict::Unsaid),
            (
                "mallory",
                publish("users/mallory/x", AtLeastOnce, true),
                ALLOWED,
            ),
            (
                "mallory",
                publish("users/alice/x", AtLeastOnce, true),
                Verdict::Unsaid,
            ),
            ("mallory", subscribe("users/+/x"), Verdict::Unsaid),
            ("mallory", subscribe("clients/phone/#"), ALLOWED),
            ("mallory", subscribe("clients/tablet/#"), Verdict::Unsaid),
            (
                "sensor-1",
                publish("telemetry/phone", AtMostOnce, false),
                at_most_once,
            ),
            (
                "sensor-1",
                publish("telemetry/phone", AtLeastOnce, false),
                DENIED,
            ),
            (
                "sensor-1",
                publish("telemetry/phone", AtMostOnce, true),
                DENIED,
            ),
            ("sensor-1", subscribe("telemetry/phone"), Verdict::Unsaid),
            ("anna", subscribe("telemetry/#"), ALLOWED),
            ("anna", subscribe("#"), DENIED),
            ("anna", subscribe("home/+/#"), ALLOWED),
            ("anna", subscribe("$SYS/broker/#"), ALLOWED),
            ("alice", subscribe("$SYS/broker/#"), Verdict::Unsaid),
            (
                "alice",
                subscribe("internal/#"),
                Verdict::Refused(ReasonCode::UnspecifiedError),
            ),
        ] {
            let who = Who {
                user,
                client_id: "phone",
            };
            assert_eq!(acl.judge(who, request), verdict, "{user} {request:?}");
        }
    }

    #[test]
    fn the_rules_for_conformance_refuse_one_filter() {
        let acl = parse(CONFORMANCE).unwrap();
        let who = Who {
            user: "paho",
            client_id: "clean retained",
        };
        let refused = Verdict::Refused(ReasonCode::UnspecifiedError);
        assert_eq!(acl.judge(who, subscribe("test/nosubscribe")), refused);
        for filter in ["#", "+/+", "TopicA/#", "test/other"] {
            assert_eq!(
                acl.judge(who, subscribe(filter)),
                Verdict::Unsaid,
                "{filter}"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let good = "[groups]\ng = []\n\n[[rules]]\nallow = [\"publish\"]\ntopics = [\"a\"]\n";
        assert_eq!(parse(good).unwrap().len(), 1);
        let bad =
            format!("{good}\n[[rules]]\n# a comment\nallow = [\"publish\"]\ntopics = [\"a#\"]\n");
        assert_eq!(
            parse(&bad).unwrap_err(),
            "line 8: rule 2: topic `a#`: misplaced wildcard"
        );
        let misspelt = format!("{good}topic = [\"a\"]\n");
        let error = parse(&misspelt).unwrap_err();
        assert!(
            error.contains("line 7") && error.contains("topic"),
            "{error}"
        );
        let error = parse("[[rules]\n").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn no_file_is_no_rules_and_a_missing_file_is_a_mistake() {
        assert!(read(Path::new("")).unwrap().is_empty());
        let error = read(Path::new("/nowhere/acl.toml")).unwrap_err();
        assert!(
            error.to_string().starts_with("/nowhere/acl.toml: "),
            "{error}"
        );
    }
}
