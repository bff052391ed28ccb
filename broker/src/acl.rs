//! Who may publish and subscribe to what, outside the plugin's root: the operator's rules, then the plugin's word.
//!
//! 1. Only the server publishes below `$SYS`.
//! 2. The first rule that concerns the request decides ([`Acl::judge`]).
//! 3. What no rule concerns is the plugin's to say ([`Hooks::authorize`]).
//!
//! A SUBSCRIBE is judged by its filter: an allowing rule must cover all of it, a denying one any of it. When the rules are
//! replaced, and when a session resumes, the subscriptions that are no longer allowed end, and what waited because of them
//! is dropped.

mod file;
mod pattern;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytestring::ByteString;
use tokio::sync::Notify;

pub use self::file::{AclError, AclFile, Deed, RuleEntry, Told};
use self::pattern::Pattern;
use crate::codec::packet::{Publish, Qos};
use crate::codec::reason::ReasonCode;
use crate::hooks::{Access, ClientInfo, Hooks};
use crate::sys;

/// Checked rules, in order.
#[derive(Debug, Default)]
pub struct Acl {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// Names of users; `None`: everybody.
    users: Option<HashSet<String>>,
    publish: bool,
    subscribe: bool,
    topics: Vec<Pattern>,
    /// Only requests for just these texts.
    exact: bool,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Allow { qos_max: Qos, retain: bool },
    Deny { reason: ReasonCode },
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Name of the user: `%u` in patterns.
    pub user: &'a str,
    /// Client Identifier: `%c` in patterns.
    pub client_id: &'a str,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// PUBLISH, or a will.
    Publish {
        /// Topic Name.
        topic: &'a str,
        /// Its QoS.
        qos: Qos,
        /// Its RETAIN flag.
        retain: bool,
    },
    /// SUBSCRIBE.
    Subscribe {
        /// Topic Filter, without `$share/{name}/`.
        filter: &'a str,
    },
}

impl<'a> Request<'a> {
    pub(crate) fn publish(publish: &'a Publish) -> Self {
        Self::Publish {
            topic: &publish.topic,
            qos: publish.qos,
            retain: publish.retain,
        }
    }
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; a subscription gets at most this QoS.
    Allowed {
        /// At most this.
        qos_max: Qos,
    },
    /// No.
    Refused(ReasonCode),
    /// Nothing.
    Unsaid,
}

impl Acl {
    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Is there no rule?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that concerns the request decides.
    pub fn judge(&self, who: Who<'_>, request: Request<'_>) -> Verdict {
        let mut verdicts = self
            .rules
            .iter()
            .filter_map(|rule| rule.judge(who, request));
        verdicts.next().unwrap_or(Verdict::Unsaid)
    }
}

impl Rule {
    fn judge(&self, who: Who<'_>, request: Request<'_>) -> Option<Verdict> {
        let users = self.users.as_ref();
        if users.is_some_and(|users| !users.contains(who.user)) {
            return None;
        }
        let (deed, topic) = match request {
            Request::Publish { topic, .. } => (self.publish, topic),
            Request::Subscribe { filter } => (self.subscribe, filter),
        };
        if !deed || !self.is_about(who, topic) {
            return None;
        }
        Some(match (request, self.effect) {
            (_, Effect::Deny { reason }) => Verdict::Refused(reason),
            (
                Request::Publish { qos, retain, .. },
                Effect::Allow {
                    qos_max,
                    retain: may,
                },
            ) if qos > qos_max || (retain && !may) => Verdict::Refused(ReasonCode::NotAuthorized),
            (_, Effect::Allow { qos_max, .. }) => Verdict::Allowed { qos_max },
        })
    }

    fn is_about(&self, who: Who<'_>, topic: &str) -> bool {
        let denying = matches!(self.effect, Effect::Deny { .. });
        self.topics
            .iter()
            .any(|pattern| match (self.exact, denying) {
                (true, _) => pattern.is(who, topic, denying),
                (false, true) => pattern.overlaps(who, topic),
                (false, false) => pattern.covers(who, topic),
            })
    }
}

/// The rules in force; they may be replaced while the broker runs.
#[derive(Debug, Default)]
pub struct Rules {
    current: RwLock<Arc<Acl>>,
    generation: AtomicU64,
    replaced: Notify,
}

/// Which rules: another number for each that were in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Generation {
    /// The lowest bit tells whether there is any rule.
    const ANY: u64 = 1;

    const fn has_rules(self) -> bool {
        self.0 & Self::ANY != 0
    }
}

impl Rules {
    /// Replaces the rules: for publishes at once, for subscriptions with the next turn of each connection.
    pub fn replace(&self, acl: Acl) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let any = u64::from(!acl.is_empty());
        *current = Arc::new(acl);
        let last = self.generation.load(Ordering::Relaxed);
        let next = (last | Generation::ANY) + 1 + any;
        self.generation.store(next, Ordering::Release);
        drop(current);
        self.replaced.notify_one();
    }

    /// The rules of now.
    pub fn current(&self) -> Arc<Acl> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves when they are replaced. Read before the rules: a change in between makes what was found too old, never too
    /// new.
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Waits until they are replaced. For one listener.
    pub(crate) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

/// A publish that the rules did not refuse: the same again need not be judged while they stay.
#[derive(Debug)]
pub(crate) struct Permit {
    generation: Generation,
    topic: ByteString,
    qos: Qos,
    retain: bool,
    /// No rule concerned it.
    unsaid: bool,
}

impl Permit {
    fn covers(&self, generation: Generation, publish: &Publish) -> bool {
        self.generation == generation
            && self.qos >= publish.qos
            && (self.retain || !publish.retain)
            && self.topic == publish.topic
    }
}

/// May the client do this with an ordinary topic? If so, at most at this QoS.
///
/// # Errors
/// The refusal.
pub fn permit(
    hooks: &dyn Hooks,
    client: &ClientInfo,
    request: Request<'_>,
) -> Result<Qos, ReasonCode> {
    let (access, topic) = match request {
        Request::Publish { topic, .. } => (Access::Publish, topic),
        Request::Subscribe { filter } => (Access::Subscribe, filter),
    };
    if access == Access::Publish && is_below(sys::ROOT, topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    let verdict = if client.rules.generation().has_rules() {
        client.judge(request)
    } else {
        Verdict::Unsaid
    };
    match verdict {
        Verdict::Allowed { qos_max } => Ok(qos_max),
        Verdict::Refused(reason) => Err(reason),
        Verdict::Unsaid if hooks.authorize(client.who(), access, topic) => Ok(Qos::ExactlyOnce),
        Verdict::Unsaid => Err(ReasonCode::NotAuthorized),
    }
}

/// May a client that is away have this published, by the rules and the rights of now?
pub(crate) fn permit_absent(
    hooks: &dyn Hooks,
    rules: &Rules,
    who: Who<'_>,
    publish: &Publish,
) -> bool {
    match rules.current().judge(who, Request::publish(publish)) {
        Verdict::Allowed { .. } => true,
        Verdict::Refused(_) => false,
        Verdict::Unsaid => hooks.authorize(who, Access::Publish, &publish.topic),
    }
}

/// [`permit`] for publishes in a row: `last` is what the rules said to the one before.
///
/// # Errors
/// The refusal.
pub(crate) fn permit_publish(
    hooks: &dyn Hooks,
    client: &ClientInfo,
    publish: &Publish,
    last: &mut Option<Permit>,
) -> Result<(), ReasonCode> {
    if is_below(sys::ROOT, &publish.topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    let generation = client.rules.generation();
    let unsaid = if !generation.has_rules() {
        true
    } else if let Some(permit) = last.as_ref().filter(|it| it.covers(generation, publish)) {
        permit.unsaid
    } else {
        let unsaid = match client.judge(Request::publish(publish)) {
            Verdict::Refused(reason) => return Err(reason),
            verdict => verdict == Verdict::Unsaid,
        };
        *last = Some(Permit {
            generation,
            // In memory of its own: the packet's topic holds on to a whole buffer.
            topic: ByteString::from(&*publish.topic),
            qos: publish.qos,
            retain: publish.retain,
            unsaid,
        });
        unsaid
    };
    if unsaid && !hooks.authorize(client.who(), Access::Publish, &publish.topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    Ok(())
}

/// Is the first level of this topic name or filter `root`?
pub(crate) fn is_below(root: &str, topic: &str) -> bool {
    topic
        .strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Who<'_> = Who {
        user: "alice",
        client_id: "phone",
    };
    const BOB: Who<'_> = Who {
        user: "bob",
        client_id: "b/o#b",
    };
    const ALLOWED: Verdict = Verdict::Allowed {
        qos_max: Qos::ExactlyOnce,
    };
    const REFUSED: Verdict = Verdict::Refused(ReasonCode::NotAuthorized);

    fn acl(json: serde_json::Value) -> Acl {
        let file: AclFile = serde_json::from_value(json).unwrap();
        Acl::new(file).unwrap()
    }

    fn publish(topic: &str) -> Request<'_> {
        Request::Publish {
            topic,
            qos: Qos::AtLeastOnce,
            retain: false,
        }
    }

    fn subscribe(filter: &str) -> Request<'_> {
        Request::Subscribe { filter }
    }

    #[test]
    fn the_first_rule_that_concerns_the_request_decides() {
        let acl = acl(serde_json::json!({
            "groups": {"family": ["alice"]},
            "rules": [
                {"deny": ["publish"], "topics": ["home/alarm"]},
                {"groups": ["family"], "allow": ["publish", "subscribe"], "topics": ["home/#"]},
                {"deny": ["subscribe"], "topics": ["test/nosubscribe"], "reason": "unspecified"},
                {"allow": ["subscribe"], "topics": ["#"]},
            ],
        }));
        for (who, request, verdict) in [
            (ALICE, publish("home/alarm"), REFUSED),
            (ALICE, publish("home/light"), ALLOWED),
            (BOB, publish("home/light"), Verdict::Unsaid),
            (BOB, subscribe("home/light"), ALLOWED),
            (BOB, publish("elsewhere"), Verdict::Unsaid),
            (
                BOB,
                subscribe("test/nosubscribe"),
                Verdict::Refused(ReasonCode::UnspecifiedError),
            ),
        ] {
            assert_eq!(acl.judge(who, request), verdict, "{who:?} {request:?}");
        }
    }

    #[test]
    fn a_filter_is_allowed_if_all_of_it_is_and_denied_if_any_of_it_is() {
        let acl = acl(serde_json::json!({"rules": [
            {"deny": ["subscribe"], "topics": ["a/secret"]},
            {"allow": ["subscribe"], "topics": ["a/+", "b/#"]},
        ]}));
        for (filter, verdict) in [
            ("a/b", ALLOWED),
            ("b/+/c/#", ALLOWED),
            ("b", ALLOWED),
            ("a/+", REFUSED),
            ("a/#", REFUSED),
            ("#", REFUSED),
            ("+/open", Verdict::Unsaid),
            ("a/b/#", Verdict::Unsaid),
        ] {
            assert_eq!(acl.judge(BOB, subscribe(filter)), verdict, "{filter}");
        }
    }

    #[test]
    fn an_allowing_rule_may_limit_qos_and_retain() {
        let acl = acl(serde_json::json!({"rules": [
            {"allow": ["publish", "subscribe"], "topics": ["t"], "qos_max": 1, "retain": false},
        ]}));
        let request = |qos, retain| Request::Publish {
            topic: "t",
            qos,
            retain,
        };
        let limited = Verdict::Allowed {
            qos_max: Qos::AtLeastOnce,
        };
        assert_eq!(acl.judge(BOB, request(Qos::AtLeastOnce, false)), limited);
        assert_eq!(acl.judge(BOB, request(Qos::ExactlyOnce, false)), REFUSED);
        assert_eq!(acl.judge(BOB, request(Qos::AtMostOnce, true)), REFUSED);
        assert_eq!(acl.judge(BOB, subscribe("t")), limited);
    }

    #[test]
    fn an_exact_rule_is_about_its_very_filters() {
        let acl = acl(serde_json::json!({"rules": [
            {"deny": ["subscribe"], "topics": ["#", "test/nosubscribe"], "exact": true},
            {"allow": ["subscribe"], "topics": ["#"]},
        ]}));
        for (filter, verdict) in [
            ("#", REFUSED),
            ("test/nosubscribe", REFUSED),
            ("test/#", ALLOWED),
            ("+/+", ALLOWED),
            ("a", ALLOWED),
        ] {
            assert_eq!(acl.judge(BOB, subscribe(filter)), verdict, "{filter}");
        }
    }

    #[test]
    fn users_and_clients_have_places_of_their_own_unless_their_name_is_a_trick() {
        let acl = acl(serde_json::json!({"rules": [
            {"deny": ["publish"], "topics": ["locked/%c"]},
            {"allow": ["publish", "subscribe"], "topics": ["u/%u/#", "c/dev-%c"]},
        ]}));
        assert_eq!(acl.judge(ALICE, publish("u/alice/x")), ALLOWED);
        assert_eq!(acl.judge(ALICE, publish("c/dev-phone")), ALLOWED);
        assert_eq!(acl.judge(ALICE, publish("u/bob/x")), Verdict::Unsaid);
        assert_eq!(acl.judge(ALICE, subscribe("u/+/x")), Verdict::Unsaid);
        let trick = Who {
            user: "+",
            client_id: "#",
        };
        assert_eq!(acl.judge(trick, subscribe("u/+/x")), Verdict::Unsaid);
        assert_eq!(acl.judge(trick, publish("locked/anything")), REFUSED);
        assert_eq!(acl.judge(ALICE, publish("locked/phone")), REFUSED);
        assert_eq!(acl.judge(ALICE, publish("locked/tablet")), Verdict::Unsaid);
    }

    #[test]
    fn each_replacement_is_another_generation_that_tells_whether_there_are_rules() {
        let rules = Rules::default();
        let open = || acl(serde_json::json!({"rules": [{"allow": ["publish"], "topics": ["#"]}]}));
        let mut seen = vec![rules.generation()];
        for (next, has_rules) in [(open(), true), (open(), true), (Acl::default(), false)] {
            rules.replace(next);
            let generation = rules.generation();
            assert_eq!(generation.has_rules(), has_rules);
            assert!(!seen.contains(&generation));
            seen.push(generation);
        }
    }

    #[test]
    fn a_root_is_a_whole_level() {
        assert!(is_below("chat", "chat"));
        assert!(is_below("chat", "chat/a"));
        assert!(!is_below("chat", "chatter/a"));
        assert!(!is_below("chat", "/chat"));
        assert!(!is_below("chat", "+/a"));
    }
}
