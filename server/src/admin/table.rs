//! Lists for people: columns that are as wide as what is in them.

use std::fmt;

/// A page of lines below a head.
pub(super) struct Table<const N: usize> {
    pub(super) head: [&'static str; N],
    pub(super) lines: Vec<[String; N]>,
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut widths = self.head.map(|text| text.chars().count());
        for line in &self.lines {
            for (width, text) in widths.iter_mut().zip(line) {
                *width = text.chars().count().max(*width);
            }
        }
        let head = self.head.map(str::to_owned);
        for line in std::iter::once(&head).chain(&self.lines) {
            let cells = line.iter().zip(widths);
            let cells = cells.map(|(text, width)| format!("{text:width$}"));
            let line: Vec<_> = cells.collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// What somebody else wrote, with nothing that a terminal would obey.
pub(super) fn harmless(text: &str) -> String {
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let table = Table {
            head: ["A", "LONG"],
            lines: vec![["äöü".into(), "1".into()], ["b".into(), String::new()]],
        };
        assert_eq!(table.to_string(), "A    LONG\näöü  1\nb\n");
        assert_eq!(harmless("a\u{1b}[2J\u{202e}\n"), r"a\u{1b}[2J\u{202e}\n");
    }
}
