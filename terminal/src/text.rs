//! Text on a screen: what came from the network made harmless, and lines that fit.

use proto::quote::harmless;
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Graphemes of a text that shall be one line.
const LINE_GRAPHEMES_MAX: usize = 256;
/// Characters of a grapheme that are drawn: enough for a family of emoji, too few for a tower of accents.
const GRAPHEME_CHARS_MAX: usize = 12;
/// What a tab becomes.
const TAB: &str = "    ";

/// A text that may be drawn: no control characters, nothing that turns the direction of writing. Line feeds only if it was
/// made as a [block](Shown::block).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown(String);

impl Shown {
    /// One line, of at most 256 graphemes.
    pub(crate) fn line(text: &str) -> Self {
        let mut line = String::new();
        for (index, grapheme) in text.graphemes(true).enumerate() {
            if index == LINE_GRAPHEMES_MAX {
                line.push('…');
                break;
            }
            line.push_str(bounded(grapheme));
        }
        Self(harmless(&line))
    }

    /// Several lines, as they were written.
    pub(crate) fn block(text: &str) -> Self {
        let mut block = String::with_capacity(text.len());
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                block.push('\n');
            }
            let line = line.strip_suffix('\r').unwrap_or(line).replace('\t', TAB);
            let bounded: String = line.graphemes(true).map(bounded).collect();
            block.push_str(&harmless(&bounded));
        }
        Self(block)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn bounded(grapheme: &str) -> &str {
    let end = grapheme.char_indices().nth(GRAPHEME_CHARS_MAX);
    end.map_or(grapheme, |(end, _)| grapheme.get(..end).unwrap_or(grapheme))
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of a text in so many columns, with an ellipsis if that is not all.
pub(crate) fn clipped(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        let more = width(grapheme);
        if used + more + 1 > columns {
            break;
        }
        used += more;
        clipped.push_str(grapheme);
    }
    if columns > 0 {
        clipped.push('…');
    }
    clipped
}

/// Lines of a text that are shown: it may have come from anybody.
pub(crate) const LINES_MAX: usize = 100;

/// Lines of at most so many columns (at least 2): broken between words, and inside of a word that is longer. Never empty; what is
/// behind the first 100 is said to be there.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    // A line has at most as many graphemes as columns, and a blank that is not seen.
    let most = LINES_MAX * (columns + 1) * GRAPHEME_CHARS_MAX * 4;
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut lines = Vec::new();
    for line in text.get(..end).unwrap_or_default().split('\n') {
        if lines.len() > LINES_MAX {
            break;
        }
        wrap_line(line, columns, &mut lines);
    }
    if lines.len() > LINES_MAX || end < text.len() {
        lines.truncate(LINES_MAX);
        lines.push(clipped(
            &format!("… ({} bytes in all)", text.len()),
            columns,
        ));
    }
    lines
}

fn wrap_line(text: &str, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_word_bounds() {
        let wide = width(word);
        if used + wide <= columns {
            line.push_str(word);
            used += wide;
            continue;
        }
        let is_blank = word.chars().all(char::is_whitespace);
        if is_blank {
            // Blanks at the end of a line are not seen, and do not begin the next one.
            lines.push(std::mem::take(&mut line));
            used = 0;
            continue;
        }
        if used > 0 && wide <= columns {
            lines.push(line.trim_end().to_owned());
            word.clone_into(&mut line);
            used = wide;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let wide = width(grapheme);
            if used + wide > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_harmful(character: char) -> bool {
        character.is_control() || harmless(&character.to_string()) != character.to_string()
    }

    proptest! {
        #[test]
        fn no_text_that_is_shown_has_a_control(text in any::<String>()) {
            prop_assert!(!Shown::line(&text).as_str().chars().any(is_harmful));
            let block = Shown::block(&text);
            prop_assert!(!block.as_str().chars().any(|c| c != '\n' && is_harmful(c)));
        }

        #[test]
        fn every_line_fits_and_no_letter_is_lost(text in "[a-zäß \u{4e00}-\u{4e10}\n👩‍👧]{0,80}", columns in 2_usize..20) {
            let lines = wrapped(&text, columns);
            for line in &lines {
                prop_assert!(width(line) <= columns, "{line:?}");
            }
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a\n\nb", 8), ["a", "", "b"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("日本語", 4), ["日本", "語"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn a_long_text_is_not_shown_to_its_end() {
        for long in [
            "\n".repeat(60_000),
            "x".repeat(60_000),
            "a b ".repeat(15_000),
        ] {
            let lines = wrapped(&long, 20);
            assert_eq!(lines.len(), LINES_MAX + 1);
            assert_eq!(lines[LINES_MAX], "… (60000 bytes in a…");
        }
        let fits = "x\n".repeat(LINES_MAX - 1) + "x";
        assert_eq!(wrapped(&fits, 20), vec!["x"; LINES_MAX]);
    }

    #[test]
    fn escapes_are_seen_and_not_obeyed() {
        assert_eq!(
            Shown::line("a\u{1b}[2J\nb\u{202e}").as_str(),
            r"a\u{1b}[2J\nb\u{202e}"
        );
        assert_eq!(Shown::block("a\r\nb\tc\u{9b}").as_str(), "a\nb    c\\u{9b}");
        let tower = format!("x{}y", "\u{301}".repeat(500));
        assert!(Shown::line(&tower).as_str().chars().count() < 20);
        assert_eq!(clipped("grüße", 4), "grü…");
        assert_eq!(clipped("日本", 3), "日…");
    }
}
