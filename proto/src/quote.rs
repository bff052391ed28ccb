//! What somebody else wrote, in messages and log lines of ours: never long, and nothing that reaches a terminal.

use crate::payload::line::{escape, is_unsafe};

/// Characters that are shown; then an ellipsis.
const SHOWN_MAX: usize = 64;

/// The beginning of a text, with line ends, controls and bidirectional controls escaped.
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN_MAX {
            shown.push('…');
            break;
        }
        push(character, &mut shown);
    }
    shown
}

/// All of a text, with the same escapes. For eyes: they cannot be told from what was written like that.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        push(character, &mut harmless);
    }
    harmless
}

fn push(character: char, shown: &mut String) {
    if is_unsafe(character) {
        escape(character, shown);
    } else {
        shown.push(character);
    }
}

/// As [`shown`], between backquotes.
pub fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(quoted("alice"), "`alice`");
        assert_eq!(shown("a\nb\u{1b}[2J\u{202e}"), r"a\nb\u{1b}[2J\u{202e}");
        let long = "ä".repeat(100_000);
        assert_eq!(shown(&long), format!("{}…", "ä".repeat(64)));
        assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(harmless(&long), long);
        assert_eq!(harmless("a\u{7f}\u{9b}\u{2028}"), r"a\u{7f}\u{9b}\u{2028}");
    }
}
