//! A report to look at: one HTML file with its own style and its own drawings, which asks nobody for anything.
//!
//! It is well-formed XML as well. Everything that comes from outside is escaped: names, labels, notes, what `/proc` tells.

mod chart;
mod figure;
mod sections;
mod style;

use std::fmt::{self, Display, Write as _};

use crate::report::Report;
use crate::setting::{Setting, VERSION};

/// The whole file.
pub(crate) fn page(report: &Report, setting: &Setting) -> String {
    let title = match &setting.label {
        Some(label) => format!("{label} · {}", report.name()),
        None => format!("mqchat-bench {}", report.name()),
    };
    let mut page = Page::default();
    page.add(format_args!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{}</title><style>{}</style></head><body><main>",
        Text(&title),
        style::CSS
    ));
    header(report, setting, &mut page);
    sections::told(report, &mut page);
    if let Some(versus) = &report.versus {
        sections::versus(versus, &mut page);
    } else {
        sections::headlines(report, &mut page);
        if let Some(steps) = &report.steps {
            sections::steps(steps, &mut page);
        }
        sections::latencies(report, &mut page);
        if let Some(series) = &report.series {
            sections::series(series, &mut page);
        }
        sections::figures(report, &mut page);
    }
    sections::setting(setting, &mut page);
    page.add(format_args!(
        "<footer>mqchat-bench {}. What each figure means: benches/README.md.</footer></main></body></html>\n",
        Text(VERSION)
    ));
    page.0
}

fn header(report: &Report, setting: &Setting, page: &mut Page) {
    let name = Text(report.name());
    match &setting.label {
        Some(label) => page.add(format_args!(
            "<header><p class=\"kind\">{name}</p><h1>{}</h1>",
            Text(label)
        )),
        None => page.add(format_args!(
            "<header><p class=\"kind\">mqchat-bench</p><h1>{name}</h1>"
        )),
    }
    page.add(format_args!(
        "<p class=\"when\">{} · {}</p></header>",
        Text(&setting.started),
        Text(&setting.servers.join(" · "))
    ));
}

/// What has been written so far.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn add(&mut self, content: fmt::Arguments<'_>) {
        self.0
            .write_fmt(content)
            .expect("a String takes everything");
    }
}

/// Text that may be anything: written so that it stays text, between tags and in attributes.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // XML knows no other controls; nor do readers.
                '\n' | '\t' => f.write_char(' ')?,
                control if control.is_control() => f.write_char('\u{FFFD}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let hostile = "</title><script>alert('1')</script>\" onload=\"x&\u{1b}[2K";
        assert_eq!(
            Text(hostile).to_string(),
            "&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onload=&quot;x&amp;\u{FFFD}[2K"
        );
    }
}
