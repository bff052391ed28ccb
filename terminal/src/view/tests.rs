//! What is to be read on the screen.

use client_sdk::{Connection, Reached, Seq};
use crossterm::event::{KeyCode, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::effect::{Answer, Listing};
use crate::items::{Body, Item};
use crate::model::Input;
use crate::model::tests::{NOON, World, cid, message, page, row, waiting};
use crate::text::Shown;

/// The screen, a line each, without blanks at the end.
fn screen(world: &mut World, columns: u16, rows: u16) -> Vec<String> {
    world.input(Input::Resize(columns, rows));
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| super::draw(&world.model, frame))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let lines = (0..rows).map(|y| {
        let mut line = String::new();
        let mut x = 0;
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(crate::text::width(symbol).max(1)).unwrap();
        }
        line.trim_end().to_owned()
    });
    lines.collect()
}

fn text(world: &mut World) -> String {
    screen(world, 80, 24).join("\n")
}

fn words(item: &mut Item, change: impl FnOnce(&mut crate::items::Words)) {
    match &mut item.body {
        Body::Words(words) => change(words),
        Body::Note(_) => panic!("no message"),
    }
}

#[test]
fn the_whole_screen_is_as_people_know_it() {
    let mut rows = vec![
        row(1, "Lunch"),
        row(2, "@bob"),
        row(3, "Work"),
        row(4, "Noise"),
    ];
    (rows[1].unread, rows[2].unread, rows[2].mentions) = (12, 3, 1);
    rows[3].muted = true;
    let mut quote = message(3, "carol", "at noon");
    words(&mut quote, |words| {
        words.reply_to = Some(Seq::new(1));
        words.edited = true;
        words.reactions = vec![(Shown::line("👍"), 2, true), (Shown::line("❤"), 1, false)];
    });
    let note = Item {
        body: Body::Note(Shown::line("bob added carol")),
        ..message(2, "bob", "")
    };
    let mut log = page(vec![
        message(
            1,
            "bob",
            "Who comes to lunch today, and when, and where do we meet?",
        ),
        note,
        quote,
        message(4, "alice", "me"),
        message(5, "alice", "too"),
    ]);
    let mut reached = Reached::default();
    (reached.delivered, reached.read) = (Seq::new(5), Seq::new(4));
    log.reached = reached;
    log.waiting = vec![
        waiting("m1", "offline", None),
        waiting("m2", "bad", Some("forbidden: no")),
    ];
    let mut world = World::with(rows.clone());
    world.input(Input::Changed(cid(1)));
    world.answer_with(log);
    let listing = Listing {
        rows,
        waiting: 1,
        refused: 1,
        ..Listing::default()
    };
    world.input(Input::Answer(Answer::Listed(listing)));
    world.input(Input::Typing(cid(1), "carol".into(), true));
    world.type_in("hel");
    assert_eq!(
        screen(&mut world, 80, 16),
        [
            " mqchat @alice     │ Lunch",
            ">  Lunch           │",
            " * @bob          12│",
            " @ Work           3│ ─────────────── Saturday, 21 November 2026 ────────────────",
            " ~ Noise           │ 12:00 bob   Who comes to lunch today, and when, and where",
            "                   │             do we meet?",
            "                   │ 12:00 * bob added carol",
            "                   │ 12:00 carol ↳ bob: Who comes to lunch today, and when, and…",
            "                   │             at noon",
            "                   │             [👍 2*] [❤ 1] (edited)",
            "                   │ 12:00 you   me  ✓✓ read",
            "                   │ 12:00 you   too  ✓✓ delivered",
            "                   │ 13:00 you   offline  ⧗ waiting",
            "                   │ 13:00 you   bad  ✗ refused: forbidden: no",
            "                   │> hel",
            " + online | 1 waiting to be sent | 1 refused | carol is typing          F1 help",
        ]
    );
}

#[test]
fn signs_can_be_ascii() {
    let mut log = page(vec![message(1, "alice", "sent"), message(2, "bob", "hm")]);
    log.waiting = vec![waiting("m1", "offline", None)];
    let mut world = World::with(vec![row(1, "Lunch")]);
    world.model.ascii = true;
    world.input(Input::Changed(cid(1)));
    world.answer_with(log);
    world.control('k');
    let shown = text(&mut world);
    assert!(shown.is_ascii(), "{shown}");
    world.key(KeyCode::Esc);
    let shown = text(&mut world);
    assert!(shown.is_ascii(), "{shown}");
    assert!(
        shown.contains("sent  + sent") && shown.contains("offline  . waiting"),
        "{shown}"
    );
}

#[test]
fn days_and_what_is_new_are_told() {
    let mut rows = vec![row(1, "Lunch"), row(2, "@bob")];
    rows[1].unread = 1;
    rows[1].read = Seq::new(1);
    let mut world = World::with(rows);
    world.control('n');
    let mut yesterday = message(1, "bob", "old");
    yesterday.ts = NOON - 86_400_000;
    world.answer_page(vec![yesterday, message(2, "bob", "fresh")]);
    let shown = text(&mut world);
    let at = |text: &str| {
        shown
            .find(text)
            .unwrap_or_else(|| panic!("{text}\n{shown}"))
    };
    assert!(at("Friday, 20 November 2026") < at("old"));
    assert!(at("Saturday, 21 November 2026") < at(" new "));
    assert!(at(" new ") < at("fresh"));
}

#[test]
fn hostile_text_is_shown_and_not_obeyed() {
    let evil = "\u{1b}[2J\u{9b}1m\u{202e}x\r\u{7}";
    let mut item = message(1, evil, evil);
    words(&mut item, |words| {
        words.reactions = vec![(Shown::line(evil), 1, false)];
        words.beside = vec![Shown::line(evil)];
    });
    let mut world = World::with_log(vec![row(1, evil)], vec![item]);
    world.input(Input::Typing(cid(1), evil.into(), true));
    world.input(Input::Connection(Connection::Offline {
        reason: evil.into(),
    }));
    world.input(Input::Paste(format!("{evil}\u{202e}")));
    for (columns, rows) in [(80, 24), (40, 12)] {
        let shown = screen(&mut world, columns, rows).join("");
        let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!shown.chars().any(bad), "{shown:?}");
        assert!(shown.contains(r"\u{1b}[2J"), "{shown}");
    }
}

#[test]
fn wide_letters_and_long_words_stay_in_their_columns() {
    let log = vec![
        message(1, "bob", &"日本語".repeat(30)),
        message(2, "a-very-long-handle-indeed", &"x".repeat(200)),
        message(3, "bob", "👩‍👩‍👧 family"),
    ];
    let mut world = World::with_log(vec![row(1, &"wide日".repeat(20))], log);
    for columns in [20, 33, 60, 61, 80, 200] {
        screen(&mut world, columns, 30);
        let look = world.model.look();
        for line in crate::layout::lines(world.model.room.as_ref().unwrap(), &look) {
            let wide: usize = line
                .parts
                .iter()
                .map(|(_, text)| crate::text::width(text))
                .sum();
            assert!(wide <= look.columns, "{columns}: {line:?}");
        }
    }
}

#[test]
fn no_size_breaks_it() {
    let log: Vec<_> = (1..50)
        .map(|seq| message(seq, "bob", "some words\nand more"))
        .collect();
    let mut world = World::with_log(vec![row(1, "Lunch"), row(2, "@bob")], log);
    world.input(Input::Paste("a\nb\nc\nd\ne\nf\ng\nh".into()));
    let keys = [
        (KeyCode::F(1), KeyModifiers::NONE),
        (KeyCode::Esc, KeyModifiers::NONE),
        (KeyCode::Char('k'), KeyModifiers::CONTROL),
        (KeyCode::Char('f'), KeyModifiers::CONTROL),
        (KeyCode::Char('g'), KeyModifiers::CONTROL),
        (KeyCode::Esc, KeyModifiers::NONE),
        (KeyCode::Up, KeyModifiers::CONTROL),
        (KeyCode::Char('d'), KeyModifiers::NONE),
        (KeyCode::PageUp, KeyModifiers::NONE),
    ];
    for (code, modifiers) in keys {
        world.press(code, modifiers);
        for (columns, rows) in [(1, 1), (20, 6), (21, 7), (60, 6), (79, 10), (300, 100)] {
            screen(&mut world, columns, rows);
        }
    }
}

#[test]
fn a_narrow_screen_has_no_list_and_says_what_is_unread() {
    let mut rows = vec![row(1, "Lunch"), row(2, "@bob"), row(3, "Noise")];
    (rows[1].unread, rows[2].unread, rows[2].muted) = (4, 5, true);
    let mut world = World::with_log(rows, vec![message(1, "bob", "hi")]);
    let shown = screen(&mut world, 40, 10).join("\n");
    assert!(
        !shown.contains("Noise") && shown.contains("| 4 unread"),
        "{shown}"
    );
    assert!(shown.contains("12:00 bob\n  hi"), "{shown}");
}

#[test]
fn the_selected_message_is_marked_with_a_sign() {
    let log = vec![message(1, "bob", "first"), message(2, "bob", "second")];
    let mut world = World::with_log(vec![row(1, "Lunch")], log);
    world.press(KeyCode::Up, KeyModifiers::CONTROL);
    world.key(KeyCode::Up);
    let shown = text(&mut world);
    assert!(shown.contains(">12:00 bob first"), "{shown}");
    assert!(shown.contains(" 12:00 bob second"), "{shown}");
}

#[test]
fn what_lies_over_the_screen_says_what_it_is_for() {
    let mut world = World::with(vec![row(1, "Lunch"), row(2, "@bob")]);
    world.control('k');
    world.type_in("zoe");
    assert!(text(&mut world).contains(">  write to @zoe"));
    world.control('g');
    assert!(text(&mut world).contains("Title of the new group"));
    world.control('f');
    assert!(text(&mut world).contains("Search all conversations"));
    world.key(KeyCode::F(1));
    assert!(text(&mut world).contains("Alt-Enter begins a new line"));
}
