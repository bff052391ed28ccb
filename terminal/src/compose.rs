//! A text that is being written: what it is, where the cursor stands, and keys that change it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_segmentation::UnicodeSegmentation;

use crate::text::{Shown, width};

/// Bytes that can be written at once: what the server takes.
const BYTES_MAX: usize = 60 * 1024;

/// What is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compose {
    text: String,
    /// In bytes, between two graphemes.
    cursor: usize,
}

impl Compose {
    /// With a text, and the cursor behind it.
    pub(crate) fn with(text: impl Into<String>) -> Self {
        let text = text.into();
        let cursor = text.len();
        Self { text, cursor }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes the text out.
    pub(crate) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// What stands before the cursor, and behind it.
    fn halves(&self) -> (&str, &str) {
        self.text.split_at_checked(self.cursor).unwrap_or_default()
    }

    /// Puts a text in at the cursor; what is too much is left out. Line ends become line feeds, other controls nothing.
    pub(crate) fn insert(&mut self, text: &str) {
        let plain: String = text
            .replace("\r\n", "\n")
            .replace('\r', "\n")
            .chars()
            .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
            .collect();
        let mut room = BYTES_MAX.saturating_sub(self.text.len()).min(plain.len());
        while !plain.is_char_boundary(room) {
            room -= 1;
        }
        let fitting = plain.get(..room).unwrap_or_default();
        self.text.insert_str(self.cursor, fitting);
        self.cursor += fitting.len();
    }

    /// Changes as the key says. Whether it was a key for this.
    pub(crate) fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('a') if control => self.cursor = self.line_start(),
            KeyCode::Char('e') if control => self.cursor = self.line_end(),
            KeyCode::Char('u') if control => self.cut(self.line_start(), self.cursor),
            KeyCode::Char('w') if control => self.cut(self.word_start(), self.cursor),
            KeyCode::Char('b') if alt => self.cursor = self.word_start(),
            KeyCode::Char('f') if alt => self.cursor = self.word_end(),
            KeyCode::Char(character) if !control && !alt => {
                self.insert(character.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Backspace if control || alt => self.cut(self.word_start(), self.cursor),
            KeyCode::Backspace => self.cut(self.before(), self.cursor),
            KeyCode::Delete => self.cut(self.cursor, self.behind()),
            KeyCode::Left if control => self.cursor = self.word_start(),
            KeyCode::Right if control => self.cursor = self.word_end(),
            KeyCode::Left if !alt => self.cursor = self.before(),
            KeyCode::Right if !alt => self.cursor = self.behind(),
            KeyCode::Home => self.cursor = self.line_start(),
            KeyCode::End => self.cursor = self.line_end(),
            _ => return false,
        }
        true
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
    }

    fn before(&self) -> usize {
        let last = self.halves().0.graphemes(true).next_back();
        self.cursor - last.map_or(0, str::len)
    }

    fn behind(&self) -> usize {
        let next = self.halves().1.graphemes(true).next();
        self.cursor + next.map_or(0, str::len)
    }

    fn line_start(&self) -> usize {
        self.halves().0.rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        let rest = self.halves().1;
        self.cursor + rest.find('\n').unwrap_or(rest.len())
    }

    fn word_start(&self) -> usize {
        let before = self.halves().0.trim_end();
        before.rfind(char::is_whitespace).map_or(0, |at| {
            before.get(at..).map_or(at, |rest| at + first_len(rest))
        })
    }

    fn word_end(&self) -> usize {
        let rest = self.halves().1;
        let blanks = rest.len() - rest.trim_start().len();
        let word = rest.get(blanks..).unwrap_or_default();
        self.cursor + blanks + word.find(char::is_whitespace).unwrap_or(word.len())
    }

    /// Moves a line up. `false` if there is none.
    pub(crate) fn up(&mut self) -> bool {
        let start = self.line_start();
        if start == 0 {
            return false;
        }
        let column = self.column();
        self.cursor = start - 1;
        self.go_to_column(column);
        true
    }

    /// Moves a line down. `false` if there is none.
    pub(crate) fn down(&mut self) -> bool {
        let end = self.line_end();
        if end == self.text.len() {
            return false;
        }
        let column = self.column();
        self.cursor = end + 1;
        self.go_to_column(column);
        true
    }

    fn column(&self) -> usize {
        let line = self.text.get(self.line_start()..self.cursor);
        line.unwrap_or_default().graphemes(true).count()
    }

    fn go_to_column(&mut self, column: usize) {
        let (start, end) = (self.line_start(), self.line_end());
        let line = self.text.get(start..end).unwrap_or_default();
        let before = line.graphemes(true).take(column).map(str::len);
        self.cursor = start + before.sum::<usize>();
    }

    /// The word that ends at the cursor.
    pub(crate) fn word(&self) -> &str {
        let before = self.halves().0;
        let start = before.rfind(char::is_whitespace).map_or(0, |at| {
            before.get(at..).map_or(at, |rest| at + first_len(rest))
        });
        before.get(start..).unwrap_or_default()
    }

    /// Puts another word in its place.
    pub(crate) fn replace_word(&mut self, word: &str) {
        let start = self.cursor - self.word().len();
        self.cut(start, self.cursor);
        self.insert(word);
    }

    /// The text in lines of so many columns, harmless, and line and column of the cursor.
    pub(crate) fn drawn(&self, columns: usize) -> (Vec<String>, (usize, usize)) {
        let columns = columns.max(2);
        let mut lines = vec![String::new()];
        let mut used = 0;
        let mut at = (0, 0);
        let mut place = 0;
        for grapheme in self.text.graphemes(true) {
            if place == self.cursor {
                at = (lines.len() - 1, used);
            }
            place += grapheme.len();
            if grapheme == "\n" {
                lines.push(String::new());
                used = 0;
                continue;
            }
            let shown = if grapheme == "\t" {
                Shown::block(grapheme)
            } else {
                Shown::line(grapheme)
            };
            let wide = width(shown.as_str());
            // A column stays free for the cursor behind the last character.
            if used + wide >= columns && used > 0 {
                if place - grapheme.len() == self.cursor {
                    at = (lines.len(), 0);
                }
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(shown.as_str());
            }
            used += wide;
        }
        if place == self.cursor {
            at = (lines.len() - 1, used);
        }
        (lines, at)
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn press(compose: &mut Compose, code: KeyCode, modifiers: KeyModifiers) {
        assert!(compose.key(KeyEvent::new(code, modifiers)), "{code:?}");
    }

    #[test]
    fn the_cursor_moves_by_what_people_see_as_letters() {
        let mut compose = Compose::with("a👩‍👩‍👧e\u{301}");
        press(&mut compose, KeyCode::Left, KeyModifiers::NONE);
        press(&mut compose, KeyCode::Backspace, KeyModifiers::NONE);
        assert_eq!(compose.text(), "ae\u{301}");
        press(&mut compose, KeyCode::Delete, KeyModifiers::NONE);
        assert_eq!(compose.text(), "a");
        press(&mut compose, KeyCode::Home, KeyModifiers::NONE);
        press(&mut compose, KeyCode::Char('ß'), KeyModifiers::SHIFT);
        assert_eq!(compose.take(), "ßa");
        assert!(compose.is_empty());
    }

    #[test]
    fn words_and_lines_are_cut_and_walked() {
        let control = KeyModifiers::CONTROL;
        let mut compose = Compose::with("one two  ");
        press(&mut compose, KeyCode::Char('w'), control);
        assert_eq!(compose.text(), "one ");
        press(&mut compose, KeyCode::Left, control);
        press(&mut compose, KeyCode::Right, control);
        press(&mut compose, KeyCode::Char('u'), control);
        assert_eq!(compose.text(), " ");
        let mut compose = Compose::with("first\nsecond");
        assert!(compose.up());
        assert!(!compose.up());
        compose.insert("!");
        assert_eq!(compose.text(), "first!\nsecond");
        assert!(compose.down());
        assert!(!compose.down());
    }

    #[test]
    fn what_is_pasted_has_no_controls_and_is_bounded() {
        let mut compose = Compose::default();
        compose.insert("a\r\nb\u{1b}[2J\u{7}\rc");
        assert_eq!(compose.text(), "a\nb[2J\nc");
        compose.insert(&"ä".repeat(BYTES_MAX));
        assert!(compose.text().len() <= BYTES_MAX);
    }

    #[test]
    fn a_word_is_completed() {
        let mut compose = Compose::with("hi @bo");
        assert_eq!(compose.word(), "@bo");
        compose.replace_word("@bob ");
        assert_eq!(compose.text(), "hi @bob ");
        assert_eq!(compose.word(), "");
    }

    #[test]
    fn it_is_drawn_with_its_cursor() {
        let compose = Compose::with("abc\nde");
        assert_eq!(compose.drawn(10), (vec!["abc".into(), "de".into()], (1, 2)));
        let compose = Compose::with("abcdef");
        assert_eq!(compose.drawn(4), (vec!["abc".into(), "def".into()], (1, 3)));
    }

    proptest! {
        #[test]
        fn no_key_breaks_it(keys in proptest::collection::vec((0_u8..14, any::<char>()), 0..60)) {
            let mut compose = Compose::default();
            for (kind, character) in keys {
                let (code, modifiers) = match kind {
                    0 => (KeyCode::Left, KeyModifiers::NONE),
                    1 => (KeyCode::Right, KeyModifiers::NONE),
                    2 => (KeyCode::Backspace, KeyModifiers::NONE),
                    3 => (KeyCode::Delete, KeyModifiers::NONE),
                    4 => (KeyCode::Left, KeyModifiers::CONTROL),
                    5 => (KeyCode::Right, KeyModifiers::CONTROL),
                    6 => (KeyCode::Char('w'), KeyModifiers::CONTROL),
                    7 => (KeyCode::Char('u'), KeyModifiers::CONTROL),
                    8 => (KeyCode::Home, KeyModifiers::NONE),
                    9 => { compose.insert("\n"); continue }
                    10 => { compose.up(); continue }
                    11 => { compose.down(); continue }
                    _ => (KeyCode::Char(character), KeyModifiers::NONE),
                };
                compose.key(KeyEvent::new(code, modifiers));
                let (lines, (line, column)) = compose.drawn(10);
                prop_assert!(line < lines.len() && column <= 10, "{lines:?} {line} {column}");
            }
        }
    }
}
