//! Messages as lines of text, for `chat/me/txt/…`.

use std::fmt::Write;

/// One message as one line: the handle, a colon, a blank and the escaped text.
///
/// What is escaped, and cannot be taken for anything else because the backslash is escaped too:
///
/// | In the text | In the line |
/// |---|---|
/// | backslash | `\\` |
/// | line feed, carriage return, tab | `\n` `\r` `\t` |
/// | other C0 controls, DEL, C1 controls (U+0080–U+009F) | `\u{1b}`: hexadecimal, lower case, no leading zeros |
/// | line and paragraph separator (U+2028, U+2029) | `\u{2028}` |
/// | bidirectional controls (U+061C, U+200E, U+200F, U+202A–U+202E, U+2066–U+2069) | `\u{202e}` |
///
/// So a sender can neither fake the line of somebody else, nor speak to a terminal, nor turn the order of what is shown.
/// A handle has no colon, thus the first `: ` ends it.
pub fn escape_line(handle: &str, text: &str) -> String {
    let mut line = String::with_capacity(handle.len() + 2 + text.len() + text.len() / 16);
    line.push_str(handle);
    line.push_str(": ");
    for character in text.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            _ if is_unsafe(character) => escape(character, &mut line),
            _ => line.push(character),
        }
    }
    line
}

/// Writes a character by its name: as `\n`, `\r`, `\t` or `\u{1b}`.
pub(crate) fn escape(character: char, line: &mut String) {
    match character {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        _ => write!(line, "\\u{{{:x}}}", u32::from(character))
            .expect("writing to a String cannot fail"),
    }
}

/// Controls, whatever ends a line, and whatever changes the direction of writing.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an escaped text back.
    fn unescape(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                out.push(character);
                continue;
            }
            match characters.next()? {
                '\\' => out.push('\\'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'u' => {
                    let code: String = characters.by_ref().take_while(|c| *c != '}').collect();
                    let number = u32::from_str_radix(code.strip_prefix('{')?, 16).ok()?;
                    out.push(char::from_u32(number)?);
                }
                _ => return None,
            }
        }
        Some(out)
    }

    fn nasty_text() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{a0}'),
            proptest::char::range('\u{2000}', '\u{2070}'),
            Just('\u{61c}'),
            Just('\\'),
        ];
        proptest::collection::vec(character, 0..40).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn no_line_has_a_control_or_a_change_of_direction(text in nasty_text()) {
            let line = escape_line("bob", &text);
            prop_assert!(!line.chars().any(is_unsafe), "{line:?}");
            prop_assert_eq!(line.lines().count(), 1);
        }

        #[test]
        fn escaping_can_be_undone(text in nasty_text()) {
            let line = escape_line("bob", &text);
            prop_assert_eq!(line.strip_prefix("bob: ").and_then(unescape), Some(text));
        }
    }

    #[test]
    fn nobody_can_fake_a_line() {
        assert_eq!(
            escape_line("eve", "hi\r\nalice: I owe you"),
            r"eve: hi\r\nalice: I owe you"
        );
        assert_eq!(escape_line("eve", r"\n"), r"eve: \\n");
        assert_eq!(
            escape_line("eve", "\u{1b}[2J\u{9b}\u{202e}"),
            r"eve: \u{1b}[2J\u{9b}\u{202e}"
        );
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = "grüße 👩‍👩‍👧 שלום \"x\" C:/";
        assert_eq!(escape_line("a.b-c_1", text), format!("a.b-c_1: {text}"));
    }
}
