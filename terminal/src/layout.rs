//! The log of a conversation as lines of the screen, from a model to words; colours are the view's.

use client_sdk::{Seq, Status};

use crate::clock::Zone;
use crate::items::{Body, Item, Key, Words};
use crate::model::{Anchor, Room};
use crate::text::{clipped, width, wrapped};

/// Columns of a name.
const NAME_MAX: usize = 12;
/// With fewer columns than this, names get a line of their own.
const NARROW: usize = 44;
/// Columns of a quotation.
const QUOTE_MAX: usize = 48;

/// What part of a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Quiet,
    Name,
    OwnName,
    Mention,
    Trouble,
    New,
}

/// How it is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) ascii: bool,
    pub(crate) columns: usize,
}

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Which line of which item it is.
    pub(crate) anchor: Anchor,
    pub(crate) parts: Vec<(Tone, String)>,
}

impl Look<'_> {
    /// The state of an own message, as a sign and a word.
    pub(crate) fn state(&self, status: Status) -> &'static str {
        match (status, self.ascii) {
            (Status::Pending, false) => "⧗ waiting",
            (Status::Pending, true) => ". waiting",
            (Status::Delivered, false) => "✓✓ delivered",
            (Status::Delivered, true) => "++ delivered",
            (Status::Read, false) => "✓✓ read",
            (Status::Read, true) => "++ read",
            (_, false) => "✓ sent",
            (_, true) => "+ sent",
        }
    }

    fn or<'t>(&self, sign: &'t str, ascii: &'t str) -> &'t str {
        if self.ascii { ascii } else { sign }
    }

    fn rule(&self, text: &str) -> String {
        let dash = self.or("─", "-");
        let left = self.columns.saturating_sub(width(text) + 2);
        let (before, behind) = (dash.repeat(left / 2), dash.repeat(left - left / 2));
        clipped(&format!("{before} {text} {behind}"), self.columns)
    }
}

/// All lines of a conversation, oldest first.
pub(crate) fn lines(room: &Room, look: &Look<'_>) -> Vec<Line> {
    let names = room.all().map(|item| width(name(item)));
    let names = names.max().unwrap_or(0).min(NAME_MAX);
    let mut lines = Vec::new();
    let mut day = None;
    let mut is_new_told = false;
    for item in room.all() {
        let mut own = Vec::new();
        let its_day = look.zone.day(item.ts);
        if its_day != day {
            day = its_day;
            own.push(vec![(
                Tone::Quiet,
                look.rule(&look.zone.day_in_words(item.ts)),
            )]);
        }
        if !is_new_told && is_new(room, item) {
            is_new_told = true;
            own.push(vec![(Tone::New, look.rule("new"))]);
        }
        own.extend(item_lines(room, item, names, look));
        let key = &item.key;
        let anchored = own.into_iter().enumerate().map(|(nth, parts)| Line {
            anchor: Anchor {
                key: key.clone(),
                nth,
            },
            parts,
        });
        lines.extend(anchored);
    }
    lines
}

fn is_new(room: &Room, item: &Item) -> bool {
    let after = room.new_after.zip(item.seq());
    after.is_some_and(|(after, seq)| seq > after) && !item.mine
}

fn name(item: &Item) -> &str {
    match &item.body {
        Body::Words(_) if item.mine => "you",
        Body::Words(_) => item.author.as_str(),
        Body::Note(_) => "",
    }
}

type Parts = Vec<(Tone, String)>;

fn item_lines(room: &Room, item: &Item, names: usize, look: &Look<'_>) -> Vec<Parts> {
    let time = look.zone.time(item.ts);
    let words = match &item.body {
        Body::Words(words) => words,
        Body::Note(note) => {
            let columns = look.columns.saturating_sub(width(&time) + 3);
            let lines = wrapped(note.as_str(), columns).into_iter().enumerate();
            let line = |(nth, line)| {
                let before = if nth == 0 {
                    format!("{time} * ")
                } else {
                    " ".repeat(width(&time) + 3)
                };
                vec![(Tone::Quiet, before), (Tone::Quiet, line)]
            };
            return lines.map(line).collect();
        }
    };
    let name_tone = if item.mine { Tone::OwnName } else { Tone::Name };
    let shown_name = clipped(name(item), NAME_MAX);
    let is_narrow = look.columns < NARROW;
    let indent = if is_narrow {
        1
    } else {
        width(&time) + names + 2
    };
    let content = message_lines(room, item, words, look.columns.saturating_sub(indent), look);
    let mut lines = Vec::with_capacity(content.len() + 1);
    if is_narrow {
        lines.push(vec![
            (Tone::Quiet, format!("{time} ")),
            (name_tone, shown_name.clone()),
        ]);
    }
    for (nth, parts) in content.into_iter().enumerate() {
        let mut line = if nth == 0 && !is_narrow {
            let padding = " ".repeat(names.saturating_sub(width(&shown_name)) + 1);
            vec![
                (Tone::Quiet, format!("{time} ")),
                (name_tone, shown_name.clone()),
                (Tone::Plain, padding),
            ]
        } else {
            vec![(Tone::Plain, " ".repeat(indent))]
        };
        line.extend(parts);
        lines.push(line);
    }
    lines
}

fn message_lines(
    room: &Room,
    item: &Item,
    words: &Words,
    columns: usize,
    look: &Look<'_>,
) -> Vec<Parts> {
    let mut lines = Vec::new();
    if let Some(quoted) = words.reply_to {
        let text = format!("{} {}", look.or("↳", ">"), quotation(room, quoted));
        lines.push(vec![(Tone::Quiet, clipped(&text, columns.min(QUOTE_MAX)))]);
    }
    let tone = if words.mentions_me {
        Tone::Mention
    } else {
        Tone::Plain
    };
    let body = wrapped(words.text.as_str(), columns);
    lines.extend(body.into_iter().map(|line| vec![(tone, line)]));
    for beside in &words.beside {
        let wrapped = wrapped(beside.as_str(), columns);
        lines.extend(wrapped.into_iter().map(|line| vec![(Tone::Quiet, line)]));
    }
    let marks = marks(words, look);
    if !marks.is_empty() {
        let wrapped = wrapped(&marks, columns);
        lines.extend(wrapped.into_iter().map(|line| vec![(Tone::Quiet, line)]));
    }
    if item.mine {
        push_state(room, item, words, columns, look, &mut lines);
    }
    lines
}

/// Behind the last line, if there is room.
fn push_state(
    room: &Room,
    item: &Item,
    words: &Words,
    columns: usize,
    look: &Look<'_>,
    lines: &mut Vec<Parts>,
) {
    let (tone, state) = match (&words.refused, item.seq()) {
        (Some(why), _) => (
            Tone::Trouble,
            format!("{} refused: {why}", look.or("✗", "!")),
        ),
        (None, Some(seq)) => (Tone::Quiet, look.state(room.reached.status(seq)).to_owned()),
        (None, None) if words.is_edit => {
            let state = format!("{} (an edit)", look.state(Status::Pending));
            (Tone::Quiet, state)
        }
        (None, None) => (Tone::Quiet, look.state(Status::Pending).to_owned()),
    };
    if let Some(last) = lines.last_mut() {
        let used: usize = last.iter().map(|(_, text)| width(text)).sum();
        if used + 2 + width(&state) <= columns {
            last.push((tone, format!("  {state}")));
            return;
        }
    }
    lines.extend(
        wrapped(&state, columns)
            .into_iter()
            .map(|line| vec![(tone, line)]),
    );
}

/// The beginning of a message, with its author.
pub(crate) fn quotation(room: &Room, seq: Seq) -> String {
    let item = room.item(&Key::At(seq));
    let told = item.and_then(|item| Some((name(item), item.words()?)));
    told.map_or_else(
        || format!("#{seq}"),
        |(name, words)| {
            let first = words.text.as_str().lines().next().unwrap_or_default();
            format!("{name}: {}", clipped(first, QUOTE_MAX))
        },
    )
}

fn marks(words: &Words, look: &Look<'_>) -> String {
    let mut marks: Vec<_> = words
        .reactions
        .iter()
        .map(|(emoji, count, mine)| format!("[{emoji} {count}{}]", if *mine { "*" } else { "" }))
        .collect();
    if let Some(root) = words.thread {
        marks.push(format!("(thread of #{root})"));
    }
    if words.edited {
        marks.push("(edited)".to_owned());
    }
    if words.pinned {
        marks.push("(pinned)".to_owned());
    }
    if let Some(expires) = words.expires {
        marks.push(format!("(gone {})", look.zone.minute(expires)));
    }
    marks.join(" ")
}

/// Which lines are seen in so many rows: those that end with the anchor, or with the end.
pub(crate) fn seen(lines: &[Line], anchor: Option<&Anchor>, rows: usize) -> std::ops::Range<usize> {
    let end = anchor
        .and_then(|anchor| {
            let of_item = |line: &&Line| line.anchor.key == anchor.key;
            let first = lines
                .iter()
                .position(|line| line.anchor.key == anchor.key)?;
            let count = lines.iter().skip(first).take_while(of_item).count();
            Some(first + anchor.nth.saturating_add(1).min(count))
        })
        .unwrap_or(lines.len());
    let end = end.max(rows.min(lines.len()));
    end.saturating_sub(rows)..end
}
