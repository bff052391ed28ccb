//! Words by which users and conversations are found.

use std::collections::BTreeSet;

use proto::ids::ConversationKind;

use super::conversation::Settings;
use super::profile::Profile;
use super::support::is_visitor;
use super::user::User;

/// Words of one user or conversation; and bytes of one, after which only its beginning counts.
const WORDS_MAX: usize = 32;
const WORD_MAX: usize = 64;

/// The words of a text: letters and digits, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(word)
}

/// What a user is found by: the handle, its parts, the words of the name, the tags. Nothing, if he does not want to be found, or is a visitor
/// of a support desk.
pub fn words_of_user(user: &User, profile: &Profile) -> BTreeSet<String> {
    if user.removed_ms.is_some() || !profile.privacy.search || is_visitor(&user.handle) {
        return BTreeSet::new();
    }
    let handle = user.handle.as_str();
    let tags = profile.tags.iter().map(|tag| word(tag));
    let all = std::iter::once(handle.to_owned()).chain(tags);
    let all = all.chain(words(handle)).chain(words(&user.name));
    all.take(WORDS_MAX).collect()
}

/// What a conversation is found by: the tags, and the words of its title. Nothing, if it is not for all, or closed.
pub fn words_of_conversation(kind: ConversationKind, settings: &Settings) -> BTreeSet<String> {
    let can_be_found = matches!(kind, ConversationKind::Group | ConversationKind::Channel);
    if !can_be_found || !settings.public || settings.closed {
        return BTreeSet::new();
    }
    let tags = settings.tags.iter().map(|tag| word(tag));
    tags.chain(words(&settings.title)).take(WORDS_MAX).collect()
}

fn word(text: &str) -> String {
    let mut lower = text.to_lowercase();
    lower.truncate(lower.floor_char_boundary(WORD_MAX));
    lower
}

#[cfg(test)]
mod tests {
    use proto::ids::UserId;

    use super::*;

    #[test]
    fn a_user_is_found_by_handle_name_and_tags() {
        let user = User {
            id: UserId::from_bytes([1; 16]),
            handle: "ann-marie.b".parse().unwrap(),
            name: "Ann-Marie Ölschläger".into(),
            password_hash: None,
            scram: None,
            created_ms: 0,
            removed_ms: None,
        };
        let mut profile = Profile {
            tags: vec!["chess".into()],
            ..Profile::default()
        };
        let found: Vec<_> = words_of_user(&user, &profile).into_iter().collect();
        let expected = ["ann", "ann-marie.b", "b", "chess", "marie", "ölschläger"];
        assert_eq!(found, expected);
        profile.privacy.search = false;
        assert!(words_of_user(&user, &profile).is_empty());
    }

    #[test]
    fn words_are_bounded() {
        let long = "ä".repeat(100);
        assert_eq!(words(&long).next().unwrap().len(), WORD_MAX);
        assert_eq!(words(" \u{0} ,-").count(), 0);
    }
}
