//! The rules as an operator writes them (`docs/operations.md`), and their check.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::pattern::{Pattern, PatternError};
use super::{Acl, Effect, Rule};
use crate::codec::packet::Qos;
use crate::codec::reason::ReasonCode;

/// The file. Unknown names are refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclFile {
    /// Names of groups, and of the users in them.
    pub groups: HashMap<String, Vec<String>>,
    /// The rules, in order.
    pub rules: Vec<RuleEntry>,
}

/// One rule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleEntry {
    /// For these users. Neither users nor groups: for everybody.
    pub users: Option<Vec<String>>,
    /// For the users in these groups.
    pub groups: Option<Vec<String>>,
    /// What is allowed.
    pub allow: Option<Vec<Deed>>,
    /// What is denied.
    pub deny: Option<Vec<Deed>>,
    /// Topic filters; `%u` stands for the name of the user, `%c` for the Client Identifier.
    pub topics: Vec<String>,
    /// Take the topics literally: they concern requests for just these texts, and wildcards stand for themselves.
    pub exact: bool,
    /// Of `allow`: highest QoS, 0 to 2.
    pub qos_max: Option<u8>,
    /// Of `allow`: may publishes be retained?
    pub retain: Option<bool>,
    /// Of `deny`: what the client is told.
    pub reason: Option<Told>,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// PUBLISH.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
}

/// What a client is told of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// 0x87 Not authorized.
    NotAuthorized,
    /// 0x80 Unspecified error: not why.
    Unspecified,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {number}: {what}")]
pub struct AclError {
    number: usize,
    what: RuleError,
}

impl AclError {
    /// Which rule: its place in the file, from 1.
    pub const fn number(&self) -> usize {
        self.number
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum RuleError {
    #[error("either `allow` or `deny` is needed, with `publish`, `subscribe` or both")]
    AllowOrDeny,
    #[error("`topics` is empty")]
    NoTopics,
    #[error("there is no group `{0}`")]
    NoGroup(String),
    #[error("`qos_max` is {0}, it can be 0, 1 or 2")]
    Qos(u8),
    #[error("`{0}` belongs to `{1}`")]
    Misplaced(&'static str, &'static str),
    #[error("topic `{0}`: {1}")]
    Pattern(String, PatternError),
}

impl Acl {
    /// Checks what an operator wrote.
    ///
    /// # Errors
    /// The first rule that makes no sense.
    pub fn new(file: AclFile) -> Result<Self, AclError> {
        let AclFile { groups, rules } = file;
        let checked = rules.into_iter().zip(1..).map(|(rule, number)| {
            let failed = |what| AclError { number, what };
            check(rule, &groups).map_err(failed)
        });
        Ok(Self {
            rules: checked.collect::<Result<_, _>>()?,
        })
    }
}

fn check(rule: RuleEntry, groups: &HashMap<String, Vec<String>>) -> Result<Rule, RuleError> {
    let effect = effect(&rule)?;
    let deeds = rule.allow.or(rule.deny).unwrap_or_default();
    if deeds.is_empty() {
        return Err(RuleError::AllowOrDeny);
    }
    if rule.topics.is_empty() {
        return Err(RuleError::NoTopics);
    }
    let mut users = rule.users.map(HashSet::from_iter);
    if let Some(names) = rule.groups {
        let users = users.get_or_insert_default();
        for name in names {
            let Some(members) = groups.get(&name) else {
                return Err(RuleError::NoGroup(name));
            };
            users.extend(members.iter().cloned());
        }
    }
    let parse = |text: String| match Pattern::parse(&text) {
        Ok(pattern) => Ok(pattern),
        Err(error) => Err(RuleError::Pattern(text, error)),
    };
    Ok(Rule {
        users,
        publish: deeds.contains(&Deed::Publish),
        subscribe: deeds.contains(&Deed::Subscribe),
        topics: rule
            .topics
            .into_iter()
            .map(parse)
            .collect::<Result<_, _>>()?,
        exact: rule.exact,
        effect,
    })
}

fn effect(rule: &RuleEntry) -> Result<Effect, RuleError> {
    match (&rule.allow, &rule.deny) {
        (Some(_), None) if rule.reason.is_some() => Err(RuleError::Misplaced("reason", "deny")),
        (None, Some(_)) if rule.qos_max.is_some() => Err(RuleError::Misplaced("qos_max", "allow")),
        (None, Some(_)) if rule.retain.is_some() => Err(RuleError::Misplaced("retain", "allow")),
        (Some(_), None) => Ok(Effect::Allow {
            qos_max: match rule.qos_max {
                None | Some(2) => Qos::ExactlyOnce,
                Some(1) => Qos::AtLeastOnce,
                Some(0) => Qos::AtMostOnce,
                Some(other) => return Err(RuleError::Qos(other)),
            },
            retain: rule.retain.unwrap_or(true),
        }),
        (None, Some(_)) => Ok(Effect::Deny {
            reason: match rule.reason {
                None | Some(Told::NotAuthorized) => ReasonCode::NotAuthorized,
                Some(Told::Unspecified) => ReasonCode::UnspecifiedError,
            },
        }),
        _ => Err(RuleError::AllowOrDeny),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(rule: &Value) -> String {
        let file = json!({"groups": {"g": ["alice"]}, "rules": [rule]});
        let file: AclFile = serde_json::from_value(file).unwrap();
        Acl::new(file).unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let allow = json!(["publish"]);
        for (rule, expected) in [
            (
                json!({"topics": ["a"]}),
                "rule 1: either `allow` or `deny` is needed, with `publish`, `subscribe` or both",
            ),
            (
                json!({"topics": ["a"], "allow": []}),
                "rule 1: either `allow` or `deny` is needed, with `publish`, `subscribe` or both",
            ),
            (
                json!({"topics": ["a"], "allow": allow, "deny": allow}),
                "rule 1: either `allow` or `deny` is needed, with `publish`, `subscribe` or both",
            ),
            (json!({"allow": allow}), "rule 1: `topics` is empty"),
            (
                json!({"allow": allow, "topics": ["a"], "groups": ["x"]}),
                "rule 1: there is no group `x`",
            ),
            (
                json!({"allow": allow, "topics": ["a"], "qos_max": 3}),
                "rule 1: `qos_max` is 3, it can be 0, 1 or 2",
            ),
            (
                json!({"deny": allow, "topics": ["a"], "retain": true}),
                "rule 1: `retain` belongs to `allow`",
            ),
            (
                json!({"allow": allow, "topics": ["a#"]}),
                "rule 1: topic `a#`: misplaced wildcard",
            ),
            (
                json!({"allow": allow, "topics": ["a/%x"]}),
                "rule 1: topic `a/%x`: `%` stands before `u`, `c` or `%`",
            ),
        ] {
            assert_eq!(error(&rule), expected, "{rule}");
        }
    }

    #[test]
    fn an_empty_list_is_nobody_and_no_list_everybody() {
        let file = json!({
            "groups": {"g": []},
            "rules": [
                {"groups": ["g"], "allow": ["publish"], "topics": ["#"]},
                {"groups": [], "allow": ["publish"], "topics": ["#"]},
                {"users": [], "allow": ["publish"], "topics": ["#"]},
                {"allow": ["publish"], "topics": ["#"]},
            ],
        });
        let acl = Acl::new(serde_json::from_value(file).unwrap()).unwrap();
        let users: Vec<_> = acl.rules.iter().map(|rule| rule.users.clone()).collect();
        let nobody = Some(HashSet::new());
        assert_eq!(users, [nobody.clone(), nobody.clone(), nobody, None]);
    }

    #[test]
    fn a_misspelt_name_is_an_error() {
        let file = json!({"rules": [{"topic": ["a"], "allow": ["publish"]}]});
        let error = serde_json::from_value::<AclFile>(file).unwrap_err();
        assert!(error.to_string().contains("unknown field `topic`"));
    }
}
