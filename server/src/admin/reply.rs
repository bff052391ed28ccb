//! What came of a request, and how the command line shows it.

use std::fmt;

use chat_plugin::domain::user::{Token, User};
use proto::ids::UserId;
use serde::{Deserialize, Serialize};

/// What came of a request.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    /// A page of users; `next` is the last one that was looked at, if there may be more.
    Users {
        users: Vec<ListedUser>,
        next: Option<UserId>,
    },
    Token {
        id: String,
        text: String,
    },
    Tokens(Vec<ListedToken>),
    /// Those that were not imported: the numbers of their lines, and why.
    Imported {
        refused: Vec<(usize, String)>,
    },
    Refused(String),
}

/// A line of `user list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedUser {
    uid: UserId,
    handle: String,
    name: String,
    password: bool,
}

/// A line of `token list`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListedToken {
    id: String,
    created_ms: u64,
    label: String,
}

impl Reply {
    /// A page of at most `limit` users: those who were not removed.
    pub(super) fn users(page: Vec<User>, limit: usize) -> Self {
        let next = page.last().map(|user| user.id);
        let next = next.filter(|_| page.len() >= limit);
        let present = page.into_iter().filter(|user| user.removed_ms.is_none());
        let listed = present.map(|user| ListedUser {
            uid: user.id,
            handle: user.handle.to_string(),
            name: user.name,
            password: user.password_hash.is_some(),
        });
        Self::Users {
            users: listed.collect(),
            next,
        }
    }

    pub(super) fn tokens(tokens: Vec<Token>) -> Self {
        let listed = tokens.into_iter().map(|token| ListedToken {
            id: token.id,
            created_ms: token.created_ms,
            label: token.label,
        });
        Self::Tokens(listed.collect())
    }

    /// Behind whom the next page begins.
    pub(super) fn next(&self) -> Option<UserId> {
        match self {
            Self::Users { next, .. } => *next,
            _ => None,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => Ok(()),
            Self::Refused(why) => f.write_str(why),
            Self::Token { text, .. } => f.write_str(text),
            Self::Imported { refused } => refused
                .iter()
                .try_for_each(|(line, why)| writeln!(f, "line {line}: {why}")),
            Self::Users { users, .. } => users.iter().try_for_each(|user| {
                let login = if user.password {
                    "password"
                } else {
                    "tokens only"
                };
                writeln!(f, "{}\t{}\t{}\t{}", user.handle, user.uid, login, user.name)
            }),
            Self::Tokens(tokens) => tokens.iter().try_for_each(|token| {
                let created = Utc(token.created_ms);
                writeln!(f, "{}\t{created}\t{}", token.id, token.label)
            }),
        }
    }
}

/// Milliseconds since 1970 as `2026-11-21T05:40:00Z`.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years from March on, in eras of 400 years: the leap day comes last (Hinnant, «chrono-compatible date algorithms»).
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shown_as_a_date() {
        let shown = |seconds: u64| Utc(seconds * 1_000 + 999).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_removed_user_is_not_listed_but_looked_at() {
        let user = |number: u8, removed_ms| User {
            id: UserId::from_bytes([number; 16]),
            handle: "alice".parse().unwrap(),
            name: String::new(),
            password_hash: None,
            created_ms: 0,
            removed_ms,
        };
        let page = Reply::users(vec![user(1, None), user(2, Some(7))], 2);
        assert_eq!(page.to_string().lines().count(), 1);
        assert_eq!(page.next(), Some(UserId::from_bytes([2; 16])));
        let last = Reply::users(vec![user(1, None), user(2, Some(7))], 3);
        assert_eq!(last.next(), None);
    }
}
