//! Topic filters with places for the user and the client, and how they compare with topic names and filters.

use super::Who;
use crate::codec::topic::{TopicError, TopicFilter};

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Level>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// `+`
    One,
    /// `#`
    Rest,
    Text(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    User,
    Client,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("rules are for filters without `$share`")]
    Share,
    #[error("`%` stands before `u`, `c` or `%`")]
    Percent,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let filter = TopicFilter::parse(text.into())?;
        if filter.split_share().0.is_some() {
            return Err(PatternError::Share);
        }
        let level = |level| match level {
            "+" => Ok(Level::One),
            "#" => Ok(Level::Rest),
            text => parts(text).map(Level::Text),
        };
        let levels: Result<_, _> = text.split('/').map(level).collect();
        Ok(Self(levels?))
    }

    /// Is every topic that `filter` stands for one of this pattern's? A topic name stands for itself.
    pub(super) fn covers(&self, who: Who<'_>, filter: &str) -> bool {
        if self.is_wild() && filter.starts_with('$') {
            return false; // wildcards at the root do not match these [MQTT-4.7.2-1]
        }
        let mut levels = filter.split('/');
        for own in &self.0 {
            let level = levels.next();
            match (own, level) {
                (Level::Rest, _) => return true,
                (Level::One, Some(level)) if level != "#" => {}
                (Level::Text(parts), Some(level)) if equals(parts, who, level, false) => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Is some topic that `filter` stands for one of this pattern's?
    pub(super) fn overlaps(&self, who: Who<'_>, filter: &str) -> bool {
        let is_wild = filter.starts_with(['+', '#']);
        if (self.is_wild() && filter.starts_with('$')) || (is_wild && self.begins_with_dollar()) {
            return false;
        }
        let mut levels = filter.split('/');
        for own in &self.0 {
            match (own, levels.next()) {
                (Level::Rest, _) | (_, Some("#")) => return true,
                (_, Some("+")) | (Level::One, Some(_)) => {}
                (Level::Text(parts), Some(level)) if equals(parts, who, level, true) => {}
                _ => return false,
            }
        }
        matches!(levels.next(), None | Some("#"))
    }

    /// Is this pattern the very text of `filter`?
    pub(super) fn is(&self, who: Who<'_>, filter: &str, denying: bool) -> bool {
        let mut levels = filter.split('/');
        let same = |own: &Level, level| match own {
            Level::One => level == "+",
            Level::Rest => level == "#",
            Level::Text(parts) => equals(parts, who, level, denying),
        };
        self.0
            .iter()
            .all(|own| levels.next().is_some_and(|level| same(own, level)))
            && levels.next().is_none()
    }

    fn is_wild(&self) -> bool {
        matches!(self.0.first(), Some(Level::One | Level::Rest))
    }

    fn begins_with_dollar(&self) -> bool {
        matches!(self.0.first(), Some(Level::Text(parts))
            if matches!(parts.first(), Some(Part::Text(text)) if text.starts_with('$')))
    }
}

fn parts(text: &str) -> Result<Vec<Part>, PatternError> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let mut after = after.chars();
        let part = match after.next() {
            Some('u') => Part::User,
            Some('c') => Part::Client,
            Some('%') => {
                plain.push('%');
                rest = after.as_str();
                continue;
            }
            _ => return Err(PatternError::Percent),
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(part);
        rest = after.as_str();
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// Is this level the text of these parts? A name with a meaning of its own in topics stands for nothing, or, when it is
/// about denying, for everything.
fn equals(parts: &[Part], who: Who<'_>, level: &str, denying: bool) -> bool {
    let mut rest = level;
    for part in parts {
        let text = match part {
            Part::Text(text) => text,
            Part::User | Part::Client => {
                let name = if *part == Part::User {
                    who.user
                } else {
                    who.client_id
                };
                if name.is_empty() || name.starts_with('$') || name.contains(['/', '+', '#']) {
                    return denying;
                }
                name
            }
        };
        match rest.strip_prefix(text) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHO: Who<'_> = Who {
        user: "u",
        client_id: "c",
    };

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn percent_signs_are_written_twice() {
        assert!(pattern("100%%/%u%c").covers(WHO, "100%/uc"));
        assert_eq!(Pattern::parse("50%"), Err(PatternError::Percent));
        assert_eq!(Pattern::parse("$share/g/a"), Err(PatternError::Share));
    }

    #[test]
    fn wildcards_at_the_root_leave_dollar_topics_alone() {
        assert!(!pattern("#").covers(WHO, "$SYS/uptime"));
        assert!(!pattern("+/uptime").overlaps(WHO, "$SYS/uptime"));
        assert!(!pattern("$SYS/#").overlaps(WHO, "#"));
        assert!(pattern("$SYS/#").covers(WHO, "$SYS/uptime"));
        assert!(pattern("#").covers(WHO, "#"));
    }

    #[test]
    fn levels_may_be_empty() {
        assert!(pattern("/").covers(WHO, "/"));
        assert!(pattern("+/+").covers(WHO, "/"));
        assert!(!pattern("+").covers(WHO, "/"));
        assert!(pattern("a/#").covers(WHO, "a"));
    }

    #[test]
    fn taken_literally_a_wildcard_stands_for_itself() {
        for (text, filter, same) in [
            ("#", "#", true),
            ("#", "a", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b", false),
            ("a/b", "a/b", true),
            ("a/b", "a/#", false),
            ("a", "a/b", false),
            ("%u/+", "u/+", true),
            ("%u/+", "v/+", false),
        ] {
            assert_eq!(
                pattern(text).is(WHO, filter, false),
                same,
                "{text} {filter}"
            );
        }
    }

    /// Topic names of up to three levels over a small alphabet: enough to tell all filters below apart.
    fn names() -> Vec<String> {
        let letters = ["a", "b", "c", ""];
        let mut names: Vec<String> = letters.iter().map(ToString::to_string).collect();
        for _ in 0..3 {
            let longer: Vec<String> = names
                .iter()
                .flat_map(|name| letters.map(|letter| format!("{name}/{letter}")))
                .collect();
            names.extend(longer);
        }
        names.retain(|name| !name.is_empty());
        names
    }

    fn filters() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "+"]);
        (prop::collection::vec(level, 1..3), any::<bool>()).prop_map(|(levels, rest)| {
            let text = levels.join("/");
            if rest { format!("{text}/#") } else { text }
        })
    }

    proptest! {
        #[test]
        fn covering_and_overlapping_are_what_the_topics_say(a in filters(), b in filters()) {
            let (one, other) = (pattern(&a), pattern(&b));
            let names = names();
            let of_b: Vec<&String> = names.iter().filter(|name| other.covers(WHO, name)).collect();
            let covered = of_b.iter().all(|name| one.covers(WHO, name));
            let overlaps = of_b.iter().any(|name| one.covers(WHO, name));
            prop_assert_eq!(one.covers(WHO, &b), covered, "{} covers {}", a, b);
            prop_assert_eq!(one.overlaps(WHO, &b), overlaps, "{} overlaps {}", a, b);
        }
    }
}
