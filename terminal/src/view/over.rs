//! What lies over the screen: questions, choices, searches, things to be read.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph};

use super::{QUIET, padded, place};
use crate::compose::Compose;
use crate::effect::Hit;
use crate::model::{Mode, Model, Prompt, Search, Switch, Told};
use crate::text::clipped;

/// Draws it, if there is anything.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    match &model.mode {
        Mode::Write | Mode::Select => {}
        Mode::Going(whom, _) => {
            let area = centred(frame, 3);
            let inside = window(frame, area, "Esc: stay here", model.ascii);
            let text = format!("going to {}", proto::quote::shown(whom));
            frame.render_widget(Paragraph::new(text), inside);
        }
        Mode::Prompt(prompt) => ask(prompt, model, frame),
        Mode::Switch(switch) => choose(switch, model, frame),
        Mode::Search(search) => find(search, model, frame),
        Mode::Told(told) => tell(told, model, frame),
        Mode::Confirm(confirm) => {
            let area = centred(frame, 3);
            let inside = window(frame, area, "Sure?", model.ascii);
            let question = confirm.question.as_str();
            let text = clipped(question, usize::from(inside.width));
            frame.render_widget(Paragraph::new(text), inside);
        }
    }
}

/// In the middle, with so many rows.
fn centred(frame: &Frame<'_>, rows: usize) -> Rect {
    let area = frame.area();
    let width = area.width.saturating_sub(4).min(76);
    let most = area.height.saturating_sub(3);
    let height = u16::try_from(rows).unwrap_or(most).min(most);
    Rect::new(
        (area.width - width) / 2,
        (area.height.saturating_sub(1) - height) / 2,
        width,
        height,
    )
}

fn window(frame: &mut Frame<'_>, area: Rect, title: &str, ascii: bool) -> Rect {
    let title = clipped(title, usize::from(area.width.saturating_sub(4)));
    let mut block = Block::bordered().title(format!(" {title} "));
    if ascii {
        block = block.border_set(ASCII);
    }
    let inside = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    inside
}

const ASCII: ratatui::symbols::border::Set<'static> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Draws a field, with the cursor in it.
fn field(compose: &Compose, frame: &mut Frame<'_>, area: Rect) {
    let columns = usize::from(area.width.saturating_sub(2));
    let (lines, (line, column)) = compose.drawn(columns);
    let text = lines.get(line).cloned().unwrap_or_default();
    frame.render_widget(Paragraph::new(format!("> {text}")), area);
    frame.set_cursor_position(place(area, column + 2, 0));
}

fn row_of(area: Rect, nth: u16) -> Rect {
    let row = Rect::new(area.x, area.y.saturating_add(nth), area.width, 1);
    row.intersection(area)
}

fn below(area: Rect, nth: u16) -> Rect {
    let height = area.height.saturating_sub(nth);
    Rect::new(area.x, area.y.saturating_add(nth), area.width, height)
}

fn ask(prompt: &Prompt, model: &Model, frame: &mut Frame<'_>) {
    let area = centred(frame, 4);
    let title = match &prompt.kind {
        crate::model::PromptKind::GroupMembers(title) => {
            format!("New group: {}", proto::quote::shown(title))
        }
        crate::model::PromptKind::GroupTitle => "New group".to_owned(),
        crate::model::PromptKind::React(seq) => format!("#{seq}"),
    };
    let inside = window(frame, area, &title, model.ascii);
    let question = clipped(&prompt.question(), usize::from(inside.width));
    frame.render_widget(
        Paragraph::new(Line::styled(question, QUIET)),
        row_of(inside, 0),
    );
    field(&prompt.field, frame, row_of(inside, 1));
}

fn choose(switch: &Switch, model: &Model, frame: &mut Frame<'_>) {
    let area = centred(frame, 16);
    let inside = window(frame, area, "Go to, or write to a handle", model.ascii);
    field(&switch.field, frame, row_of(inside, 0));
    let choices = switch.choices(&model.rows);
    let lines = choices.iter().map(|choice| {
        let row = choice
            .target
            .as_ref()
            .ok()
            .and_then(|target| model.row_of(target));
        let unread = row.map_or(0, |row| row.unread);
        match unread {
            0 => format!("  {}", choice.title),
            unread => format!("* {} {unread}", choice.title),
        }
    });
    rows(lines.collect(), switch.at, frame, below(inside, 1));
}

/// Lines of which one is chosen.
fn rows(lines: Vec<String>, at: usize, frame: &mut Frame<'_>, area: Rect) {
    let height = usize::from(area.height);
    let columns = usize::from(area.width);
    let first = (at + 1).saturating_sub(height);
    let drawn = lines.into_iter().enumerate().skip(first).take(height);
    let drawn = drawn.map(|(nth, line)| {
        let is_chosen = nth == at;
        let chosen = if is_chosen { ">" } else { " " };
        let text = padded(&format!("{chosen}{line}"), columns);
        let style = if is_chosen {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        Line::styled(text, style)
    });
    frame.render_widget(Paragraph::new(drawn.collect::<Vec<_>>()), area);
}

fn find(search: &Search, model: &Model, frame: &mut Frame<'_>) {
    let area = centred(frame, usize::MAX);
    let title = if search.is_here {
        "Search this conversation (Tab: all)"
    } else {
        "Search all conversations (Tab: this one)"
    };
    let inside = window(frame, area, title, model.ascii);
    field(&search.field, frame, row_of(inside, 0));
    let count = search.hits.len();
    let state = match (&search.searched, search.is_busy) {
        (None, _) => "Enter searches what is stored on this device".to_owned(),
        (_, true) => "searching".to_owned(),
        _ if count == 0 => "nothing found".to_owned(),
        _ if search.has_more() => format!("{count} found so far; Enter goes there"),
        _ => format!("{count} found; Enter goes there"),
    };
    frame.render_widget(
        Paragraph::new(Line::styled(state, QUIET)),
        row_of(inside, 1),
    );
    let lines = search.hits.iter().map(|hit| told_hit(hit, model));
    rows(lines.collect(), search.at, frame, below(inside, 2));
}

fn told_hit(hit: &Hit, model: &Model) -> String {
    let row = model.rows.iter().find(|row| row.cid() == Some(hit.cid));
    let title = row.map_or_else(|| hit.cid.to_string(), |row| row.title.to_string());
    let text = hit.item.words().map_or("", |words| words.text.as_str());
    let text = text.replace('\n', " ");
    let when = model.zone.minute(hit.item.ts);
    let author = if hit.item.mine {
        "you"
    } else {
        hit.item.author.as_str()
    };
    format!("{when} {} {author}: {text}", clipped(&title, 20))
}

fn tell(told: &Told, model: &Model, frame: &mut Frame<'_>) {
    let area = centred(frame, told.lines.len() + 3);
    let inside = window(frame, area, told.title.as_str(), model.ascii);
    let text_area = Rect::new(
        inside.x,
        inside.y,
        inside.width,
        inside.height.saturating_sub(1),
    );
    let columns = usize::from(inside.width);
    let most = told
        .lines
        .len()
        .saturating_sub(usize::from(text_area.height));
    let lines = told.lines.iter().skip(told.from.min(most));
    let lines = lines.map(|line| Line::raw(clipped(line.as_str(), columns)));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), text_area);
    let hint = Line::styled("Up, Down; any other key closes", QUIET);
    frame.render_widget(
        Paragraph::new(hint),
        row_of(inside, inside.height.saturating_sub(1)),
    );
}
