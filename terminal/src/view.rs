//! Draws the model. Decides colours and places; what is said comes from the model. Nothing depends on colour alone.

mod over;

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use crate::items::Row;
use crate::layout::{self, Tone, lines, seen};
use crate::model::{Link, Mode, Model, Room};
use crate::text::{clipped, width};

/// Draws all of it.
pub(crate) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < 20 || area.height < 6 || !model.is_drawn() {
        frame.render_widget(Paragraph::new("too small"), area);
        return;
    }
    // The screen may be smaller already than the model has heard.
    let list_columns = model.list_columns().min(area.width.saturating_sub(20));
    let status = Rect::new(0, area.height - 1, area.width, 1);
    let above = area.height - 1;
    if list_columns > 0 {
        list(model, frame, Rect::new(0, 0, list_columns, above));
    }
    let right = Rect::new(list_columns, 0, area.width - list_columns, above);
    conversation(model, frame, right);
    status_line(model, frame, status);
    over::draw(model, frame);
}

pub(super) const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Quiet => QUIET,
        Tone::Name => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        Tone::OwnName => Style::new().fg(Color::Green).add_modifier(Modifier::BOLD),
        Tone::Mention => STRONG,
        Tone::Trouble => Style::new().fg(Color::Red),
        Tone::New => Style::new().fg(Color::Yellow),
    }
}

fn list(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let columns = usize::from(area.width - 1);
    let login = model.me.as_ref().map_or(&model.login, |(_, handle)| handle);
    let title = format!(" mqchat @{}", proto::quote::shown(login));
    let title = Line::styled(padded(&title, columns), BAR);
    frame.render_widget(
        Paragraph::new(title),
        Rect::new(area.x, area.y, area.width, 1),
    );
    let rows = model.visible_rows();
    let open = model.room.as_ref().map(|room| &room.target);
    let is_open = |row: &Row| open.is_some_and(|open| row.is(open));
    let room_for = usize::from(area.height - 1);
    let at = rows.iter().position(|row| is_open(row)).unwrap_or(0);
    let first = (at + 1).saturating_sub(room_for);
    let mut drawn: Vec<_> = rows
        .iter()
        .skip(first)
        .take(room_for)
        .map(|row| list_row(row, is_open(row), columns))
        .collect();
    if rows.is_empty() && model.is_listed {
        let hint = [
            "",
            " Nothing here yet.",
            " Ctrl-K writes to",
            " somebody, Ctrl-G",
            " makes a group.",
        ];
        drawn.extend(hint.map(|line| Line::styled(line, QUIET)));
    }
    let body = Rect::new(area.x, area.y + 1, area.width - 1, area.height - 1);
    frame.render_widget(Paragraph::new(drawn), body);
    let rule = if model.ascii { "|" } else { "│" };
    let edge = vec![Line::styled(rule, QUIET); usize::from(area.height)];
    let edge_area = Rect::new(area.right() - 1, area.y, 1, area.height);
    frame.render_widget(Paragraph::new(edge), edge_area);
}

/// Filled up with blanks.
pub(super) fn padded(text: &str, columns: usize) -> String {
    let text = clipped(text, columns);
    let padding = columns.saturating_sub(width(&text));
    text + &" ".repeat(padding)
}

fn list_row(row: &Row, is_open: bool, columns: usize) -> Line<'static> {
    let open = if is_open { '>' } else { ' ' };
    let mark = match row {
        Row { mentions: 1.., .. } => '@',
        row if row.is_unread() => '*',
        Row { muted: true, .. } => '~',
        Row { pinned: true, .. } => '^',
        _ => ' ',
    };
    let count = match row.unread {
        0 => String::new(),
        unread => format!(" {unread}"),
    };
    let title = padded(
        row.title.as_str(),
        columns.saturating_sub(3 + width(&count)),
    );
    let text = format!("{open}{mark} {title}{count}");
    let style = match (is_open, row.is_unread() && !row.muted) {
        (true, _) => BAR,
        (false, true) => STRONG,
        (false, false) => Style::new(),
    };
    Line::styled(text, style)
}

fn conversation(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let columns = usize::from(area.width);
    let title = title(model, columns);
    frame.render_widget(
        Paragraph::new(title),
        Rect::new(area.x, area.y, area.width, 1),
    );
    let compose_rows = model.compose_rows();
    let quoting = u16::from(model.is_quoting());
    let log_rows = area.height.saturating_sub(1 + compose_rows + quoting);
    let log_area = Rect::new(area.x, area.y + 1, area.width, log_rows);
    if let Some(room) = &model.room {
        log(model, room, frame, log_area);
        if quoting > 0 {
            let about = Rect::new(area.x, log_area.bottom(), area.width, 1);
            frame.render_widget(
                Paragraph::new(Line::styled(quoted(room, columns), QUIET)),
                about,
            );
        }
        let below = log_area.bottom() + quoting;
        let bottom = Rect::new(area.x, below, area.width, compose_rows);
        compose(model, room, frame, bottom);
    } else {
        let hint = "Ctrl-K: write to somebody or go to a conversation   F1: help";
        let hint = clipped(hint, columns);
        frame.render_widget(Paragraph::new(Line::styled(hint, QUIET)), log_area);
    }
}

fn title(model: &Model, columns: usize) -> Line<'static> {
    let mut text = format!(" {}", model.title());
    if let Some(presence) = model.peer_presence() {
        text = format!("{text} ({})", proto::quote::shown(presence));
    }
    if let Some(row) = model
        .room
        .as_ref()
        .and_then(|room| model.row_of(&room.target))
    {
        if row.muted {
            text.push_str(" (muted)");
        }
        if row.archived {
            text.push_str(" (archived)");
        }
    }
    if model
        .room
        .as_ref()
        .is_some_and(|room| room.anchor.is_some() || room.detached)
    {
        text.push_str("  -- scrolled back: Esc goes to the end --");
    }
    Line::styled(padded(&text, columns), BAR)
}

fn log(model: &Model, room: &Room, frame: &mut Frame<'_>, area: Rect) {
    let lines = lines(room, &model.look());
    let range = seen(&lines, room.anchor.as_ref(), usize::from(area.height));
    let shown = lines.get(range).unwrap_or_default();
    let selected = room.selected.as_ref();
    let mut drawn: Vec<_> = shown
        .iter()
        .map(|line| {
            let is_selected = selected == Some(&line.anchor.key);
            let mut spans = vec![Span::raw(if is_selected { ">" } else { " " })];
            let parts = line.parts.iter();
            spans.extend(parts.map(|(tone, text)| Span::styled(text.clone(), style(*tone))));
            let line = Line::from(spans);
            if is_selected {
                line.patch_style(BAR)
            } else {
                line
            }
        })
        .collect();
    if drawn.is_empty() {
        let hint = if room.is_loaded {
            " No messages yet."
        } else {
            " Loading …"
        };
        drawn.push(Line::styled(hint, QUIET));
    }
    // The newest line stands just above what is written.
    let free = usize::from(area.height).saturating_sub(drawn.len());
    let mut all = vec![Line::default(); free];
    all.append(&mut drawn);
    frame.render_widget(Paragraph::new(all), area);
}

fn quoted(room: &Room, columns: usize) -> String {
    let text = match (room.editing, room.replying) {
        (Some(seq), _) => format!(" editing {} (Esc: no)", layout::quotation(room, seq)),
        (None, Some(seq)) => format!(" reply to {} (Esc: no)", layout::quotation(room, seq)),
        (None, None) => String::new(),
    };
    clipped(&text, columns)
}

fn compose(model: &Model, room: &Room, frame: &mut Frame<'_>, area: Rect) {
    let columns = usize::from(area.width.saturating_sub(2));
    let (lines, (line, column)) = room.compose.drawn(columns);
    let rows = usize::from(area.height);
    let first = (line + 1).saturating_sub(rows);
    let drawn = lines.into_iter().enumerate().skip(first).take(rows);
    let drawn = drawn.map(|(nth, text)| {
        let before = if nth == 0 { "> " } else { "  " };
        Line::from(vec![Span::styled(before, STRONG), Span::raw(text)])
    });
    frame.render_widget(Paragraph::new(drawn.collect::<Vec<_>>()), area);
    if matches!(model.mode, Mode::Write) {
        frame.set_cursor_position(place(area, column + 2, line - first));
    }
}

/// A place inside of an area, as far as it goes.
pub(super) fn place(area: Rect, column: usize, row: usize) -> Position {
    let inside = |value: usize, most: u16| u16::try_from(value).unwrap_or(most).min(most);
    Position::new(
        area.x + inside(column, area.width.saturating_sub(1)),
        area.y + inside(row, area.height.saturating_sub(1)),
    )
}

fn status_line(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let (sign, link) = match &model.link {
        Link::Online => ("+", "online".to_owned()),
        Link::Away(why) => ("-", why.to_string()),
        Link::Ended(why) => ("!", why.to_string()),
    };
    let mut parts = vec![format!(" {sign} {link}")];
    if model.waiting > 0 {
        parts.push(format!("{} waiting to be sent", model.waiting));
    }
    if model.refused > 0 {
        parts.push(format!("{} refused", model.refused));
    }
    let unread = model
        .rows
        .iter()
        .filter(|row| !row.muted)
        .map(|row| row.unread);
    let unread: u64 = unread.sum();
    if model.list_columns() == 0 && unread > 0 {
        parts.push(format!("{unread} unread"));
    }
    let typists = model.typists();
    if !typists.is_empty() {
        let names = typists.iter().take(3).map(|one| proto::quote::shown(one));
        let names: Vec<_> = names.collect();
        let verb = if typists.len() == 1 { "is" } else { "are" };
        parts.push(format!("{} {verb} typing", names.join(", ")));
    }
    let columns = usize::from(area.width);
    let mut spans = Vec::new();
    if let Some(notice) = &model.notice {
        let style = if notice.is_trouble {
            style(Tone::Trouble)
        } else {
            Style::new()
        };
        let text = clipped(&format!(" {}", notice.text), columns);
        let left = format!(" {sign} |");
        spans.push(Span::raw(clipped(
            &left,
            columns.saturating_sub(width(&text)),
        )));
        spans.push(Span::styled(text, style));
    } else {
        spans.push(Span::raw(clipped(&parts.join(" | "), columns)));
    }
    let used: usize = spans.iter().map(|span| width(&span.content)).sum();
    let hint = "F1 help ";
    if used + hint.len() < columns {
        let padding = columns - used - hint.len();
        spans.push(Span::raw(" ".repeat(padding)));
        spans.push(Span::raw(hint));
    }
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(Line::from(spans)).style(BAR), area);
}

#[cfg(test)]
mod tests;
