//! The model without terminal and network: keys and answers in, effects and state out.

use client_sdk::{Connection, ConversationId, Seq, Target};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Input, Link, Mode, Model};
use crate::clock::Zone;
use crate::command::Which;
use crate::effect::{Act, Answer, Ask, At, Effect, Hit, Listing, Page};
use crate::items::{Body, Item, Key, Row, Words};
use crate::text::Shown;

/// 2026-11-21, 12:00 UTC.
pub(crate) const NOON: u64 = 1_795_262_400_000;

/// A model, and what it wanted since it was asked last.
pub(crate) struct World {
    pub(crate) model: Model,
    todo: Vec<Effect>,
}

pub(crate) fn cid(number: u8) -> ConversationId {
    format!("g.01jz00000000000000000000{number:02}")
        .parse()
        .unwrap()
}

pub(crate) fn row(number: u8, title: &str) -> Row {
    Row {
        title: Shown::line(title),
        peer: title.strip_prefix('@').map(str::to_owned),
        ..Row::begun(&Target::Conversation(cid(number)))
    }
}

pub(crate) fn message(seq: u64, author: &str, text: &str) -> Item {
    Item {
        key: Key::At(Seq::new(seq)),
        ts: NOON + seq * 1_000,
        author: Shown::line(author),
        mine: author == "alice",
        body: Body::Words(Box::new(Words {
            text: Shown::block(text),
            raw: text.to_owned(),
            ..Words::default()
        })),
    }
}

pub(crate) fn waiting(mid: &str, text: &str, refused: Option<&str>) -> Item {
    let mut item = message(0, "alice", text);
    item.key = Key::Waiting(mid.parse().unwrap());
    item.ts = NOON + 3_600_000;
    if let Body::Words(words) = &mut item.body {
        words.refused = refused.map(Shown::line);
    }
    item
}

pub(crate) fn page(items: Vec<Item>) -> Page {
    let span = items
        .first()
        .and_then(Item::seq)
        .zip(items.last().and_then(Item::seq));
    Page {
        cid: None,
        more: span.is_some_and(|(first, _)| first.get() > 1),
        span,
        items,
        ..Page::default()
    }
}

impl World {
    /// Alice, online, with these conversations; the first one is open and empty.
    pub(crate) fn with(rows: Vec<Row>) -> Self {
        let mut model = Model::new("alice", Zone::utc(), false, NOON);
        let todo = model.start(None);
        let mut world = Self { model, todo };
        world.input(Input::Connection(Connection::Online));
        world.list(rows);
        world.answer_page(vec![]);
        world.take();
        world
    }

    /// With a log of the first conversation.
    pub(crate) fn with_log(rows: Vec<Row>, items: Vec<Item>) -> Self {
        let mut world = Self::with(rows);
        world.show(items);
        world.take();
        world
    }

    pub(crate) fn input(&mut self, input: Input) {
        let todo = self.model.update(self.model.now, input);
        self.todo.extend(todo);
    }

    pub(crate) fn list(&mut self, rows: Vec<Row>) {
        let listing = Listing {
            rows,
            ..Listing::default()
        };
        // Another one may be wanted as soon as this one has come.
        self.input(Input::Answer(Answer::Listed(listing)));
    }

    /// Answers the last page that was asked for.
    pub(crate) fn answer_page(&mut self, items: Vec<Item>) {
        self.answer_with(page(items));
    }

    pub(crate) fn answer_with(&mut self, page: Page) {
        let asked = self.todo.iter().rev().find_map(|effect| match effect {
            Effect::Page(target, at, _) => Some((target.clone(), *at)),
            _ => None,
        });
        let (target, at) = asked.expect("a page was asked for");
        self.todo
            .retain(|effect| !matches!(effect, Effect::Page(..)));
        self.input(Input::Answer(Answer::Paged(target, at, page)));
    }

    /// The open conversation changed, and is this now.
    pub(crate) fn show(&mut self, items: Vec<Item>) {
        let cid = self.model.room.as_ref().unwrap().cid.unwrap();
        self.input(Input::Changed(cid));
        self.answer_page(items);
    }

    pub(crate) fn press(&mut self, code: KeyCode, modifiers: KeyModifiers) {
        self.input(Input::Key(KeyEvent::new(code, modifiers)));
    }

    pub(crate) fn key(&mut self, code: KeyCode) {
        self.press(code, KeyModifiers::NONE);
    }

    pub(crate) fn control(&mut self, letter: char) {
        self.press(KeyCode::Char(letter), KeyModifiers::CONTROL);
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        for letter in text.chars() {
            self.key(KeyCode::Char(letter));
        }
    }

    pub(crate) fn enter(&mut self, text: &str) {
        self.type_in(text);
        self.key(KeyCode::Enter);
    }

    /// What it wanted since it was asked last, without reads of the store and hints.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        let is_worth_it = |effect: &Effect| {
            !matches!(effect, Effect::List | Effect::Page(..) | Effect::Typing(..))
        };
        std::mem::take(&mut self.todo)
            .into_iter()
            .filter(is_worth_it)
            .collect()
    }

    fn compose(&self) -> &str {
        self.model.room.as_ref().unwrap().compose.text()
    }

    fn target(&self) -> Target {
        self.model.room.as_ref().unwrap().target.clone()
    }
}

fn three() -> Vec<Row> {
    vec![row(1, "Lunch"), row(2, "@bob"), row(3, "Work")]
}

fn in_first(act: Act) -> Effect {
    Effect::Act(Target::Conversation(cid(1)), act)
}

#[test]
fn what_is_entered_is_sent_to_the_open_conversation() {
    let mut world = World::with(three());
    world.enter("hello");
    world.enter("  ");
    world.enter("//etc");
    assert_eq!(
        world.take(),
        [
            in_first(Act::Send("hello".into(), None)),
            in_first(Act::Send("  //etc".into(), None)),
        ]
    );
    world.enter("/react 👍");
    world.enter("/nonsense");
    let react = Act::React(Which::Newest, "👍".into());
    assert_eq!(world.take(), [in_first(react)]);
    assert!(world.model.notice.as_ref().unwrap().is_trouble);
    assert_eq!(world.compose(), "/nonsense");
}

#[test]
fn each_conversation_keeps_what_was_begun_in_it() {
    let mut world = World::with(three());
    world.type_in("for Lunch");
    world.control('n');
    assert_eq!(world.target(), Target::Conversation(cid(2)));
    assert_eq!(world.compose(), "");
    world.type_in("for bob");
    world.press(KeyCode::Up, KeyModifiers::ALT);
    assert_eq!(world.compose(), "for Lunch");
    world.control('p');
    assert_eq!(world.target(), Target::Conversation(cid(3)));
    world.control('p');
    assert_eq!(world.compose(), "for bob");
}

#[test]
fn what_is_at_the_end_of_a_focused_screen_is_read_once() {
    let mut world = World::with(three());
    world.show(vec![message(1, "bob", "hi")]);
    assert_eq!(world.take(), [in_first(Act::Read(Some(Seq::new(1))))]);
    world.show(vec![message(1, "bob", "hi"), message(2, "alice", "own")]);
    assert_eq!(world.take(), []);
    world.input(Input::Focus(false));
    let more = || {
        vec![
            message(1, "bob", "hi"),
            message(2, "alice", "own"),
            message(3, "bob", "?"),
        ]
    };
    world.show(more());
    assert_eq!(world.take(), []);
    world.input(Input::Focus(true));
    assert_eq!(world.take(), [in_first(Act::Read(Some(Seq::new(3))))]);
}

#[test]
fn nothing_is_read_while_the_eye_is_elsewhere() {
    let long: Vec<_> = (1..=60).map(|seq| message(seq, "bob", "hi")).collect();
    let mut world = World::with_log(three(), long.clone());
    world.key(KeyCode::PageUp);
    let mut longer = long;
    longer.push(message(61, "bob", "new"));
    world.show(longer);
    assert_eq!(world.take(), []);
    world.key(KeyCode::Esc);
    assert_eq!(world.take(), [in_first(Act::Read(Some(Seq::new(61))))]);
}

#[test]
fn a_page_before_the_window_is_asked_for_and_stays_in_sight() {
    let items = |from, to| {
        (from..=to)
            .map(|seq| message(seq, "bob", "hi"))
            .collect::<Vec<_>>()
    };
    let mut world = World::with_log(three(), items(101, 200));
    for _ in 0..10 {
        world.key(KeyCode::PageUp);
    }
    let room = world.model.room.as_ref().unwrap();
    let anchor = room.anchor.clone();
    world.answer_page(items(1, 100));
    let room = world.model.room.as_ref().unwrap();
    assert_eq!(room.items.len(), 200);
    assert_eq!(room.anchor, anchor);
    assert!(!room.more);
}

#[test]
fn the_window_is_bounded_and_the_end_is_found_again() {
    let items = |from, to| {
        (from..=to)
            .map(|seq| message(seq, "bob", "hi"))
            .collect::<Vec<_>>()
    };
    let mut world = World::with_log(three(), items(1_001, 1_100));
    for older in (1..=7).rev() {
        while world
            .todo
            .iter()
            .all(|effect| !matches!(effect, Effect::Page(..)))
        {
            world.key(KeyCode::PageUp);
        }
        let from = 1_001 - (8 - older) * 100;
        world.answer_page(items(from, from + 99));
    }
    let room = world.model.room.as_ref().unwrap();
    assert_eq!(room.items.len(), 500);
    assert!(room.detached);
    assert_eq!(room.span, Some((Seq::new(301), Seq::new(800))));
    world.key(KeyCode::Esc);
    world.answer_page(items(1_001, 1_100));
    let room = world.model.room.as_ref().unwrap();
    assert!(room.is_at_end());
    assert_eq!(room.items.len(), 100);
}

#[test]
fn a_message_that_is_selected_is_answered_edited_or_removed() {
    let log = vec![message(1, "bob", "question"), message(2, "alice", "answer")];
    let mut world = World::with_log(three(), log);
    let up = |world: &mut World, times| {
        world.press(KeyCode::Up, KeyModifiers::CONTROL);
        for _ in 1..times {
            world.key(KeyCode::Up);
        }
    };
    up(&mut world, 2);
    world.key(KeyCode::Char('r'));
    world.enter("because");
    up(&mut world, 1);
    world.key(KeyCode::Char('e'));
    assert_eq!(world.compose(), "answer");
    world.enter("!");
    up(&mut world, 1);
    world.key(KeyCode::Char('d'));
    assert!(matches!(world.model.mode, Mode::Confirm(_)));
    world.key(KeyCode::Char('y'));
    up(&mut world, 2);
    world.key(KeyCode::Char('+'));
    world.enter("2");
    up(&mut world, 2);
    world.key(KeyCode::Char('p'));
    let at = |seq| Which::At(Seq::new(seq));
    assert_eq!(
        world.take(),
        [
            in_first(Act::Send("because".into(), Some(at(1)))),
            in_first(Act::Edit(at(2), "answer!".into())),
            in_first(Act::Delete(at(2))),
            in_first(Act::React(at(1), "❤️".into())),
            in_first(Act::Pin(at(1), true)),
        ]
    );
    up(&mut world, 2);
    world.key(KeyCode::Char('e'));
    assert!(world.model.notice.as_ref().unwrap().is_trouble);
    assert_eq!(world.take(), []);
}

#[test]
fn an_arrow_on_an_empty_line_edits_the_last_own_message_and_others_recall() {
    let log = vec![message(1, "alice", "/typo"), message(2, "bob", "?")];
    let mut world = World::with_log(three(), log);
    world.key(KeyCode::Up);
    assert_eq!(world.compose(), "/typo");
    world.key(KeyCode::Enter);
    let edit = Act::Edit(Which::At(Seq::new(1)), "/typo".into());
    assert_eq!(world.take(), [in_first(edit)]);
    world.enter("one");
    world.type_in("begun");
    world.key(KeyCode::Up);
    assert_eq!(world.compose(), "one");
    world.key(KeyCode::Down);
    assert_eq!(world.compose(), "begun");
}

#[test]
fn what_was_refused_can_be_tried_again_or_dropped() {
    let mut world = World::with(three());
    let mut refused = page(vec![message(1, "bob", "hi")]);
    refused.waiting = vec![waiting("m1", "hello", Some("forbidden: no"))];
    world.input(Input::Changed(cid(1)));
    world.answer_with(refused);
    world.take();
    world.press(KeyCode::Up, KeyModifiers::CONTROL);
    world.key(KeyCode::Char('x'));
    assert_eq!(world.take(), [Effect::Discard(Some("m1".parse().unwrap()))]);
}

#[test]
fn a_text_that_could_not_be_kept_is_given_back() {
    let mut world = World::with(three());
    world.enter("precious");
    let target = world.target();
    let answer = Answer::NotQueued(target, "precious".into(), "the disk is full".into());
    world.input(Input::Answer(answer));
    assert_eq!(world.compose(), "precious");
    assert!(world.model.notice.as_ref().unwrap().is_trouble);
}

#[test]
fn a_group_is_asked_for_with_completed_handles() {
    let mut world = World::with(three());
    world.control('g');
    world.enter("Dinner");
    world.type_in("@b");
    world.key(KeyCode::Tab);
    world.enter("carol");
    let members = vec!["@bob".to_owned(), "carol".to_owned()];
    assert_eq!(
        world.take(),
        [Effect::Ask(Ask::Group("Dinner".into(), members))]
    );
}

#[test]
fn a_conversation_is_chosen_by_parts_of_its_name_or_made() {
    let mut world = World::with(three());
    world.control('k');
    world.enter("wo");
    assert_eq!(world.target(), Target::Conversation(cid(3)));
    world.control('k');
    world.enter("carol");
    assert_eq!(world.take().last(), Some(&Effect::Open("@carol".into())));
    let carol: Target = "@carol".parse().unwrap();
    world.input(Input::Answer(Answer::Opened(
        "@carol".into(),
        carol.clone(),
    )));
    world.enter("hi");
    let send = Effect::Act(carol, Act::Send("hi".into(), None));
    assert!(world.take().contains(&send));

    world.control('k');
    world.enter("me");
    assert_eq!(world.target(), Target::Me);
    world.control('k');
    world.enter("@carol");
    world.input(Input::Answer(Answer::Opened(
        "@carol".into(),
        "@carol".parse().unwrap(),
    )));

    // Its id is known with the first message, and what is being written stays.
    world.type_in("and");
    world.list(vec![row(9, "@carol"), row(1, "Lunch")]);
    assert_eq!(world.target(), Target::Conversation(cid(9)));
    assert_eq!(world.compose(), "and");
}

#[test]
fn what_is_typed_ahead_waits_for_the_conversation_that_was_asked_for() {
    let mut world = World::with(three());
    world.enter("/to @dave");
    world.enter("for dave");
    assert_eq!(world.take(), [Effect::Open("@dave".into())]);
    let dave: Target = "@dave".parse().unwrap();
    world.input(Input::Answer(Answer::Opened("@dave".into(), dave.clone())));
    let send = Effect::Act(dave, Act::Send("for dave".into(), None));
    assert!(world.take().contains(&send));

    // Without it nothing is sent, and an answer that nobody waits for moves nobody.
    world.control('p');
    let here = world.target();
    world.take();
    world.enter("/to @erin");
    world.enter("for erin");
    world.input(Input::Answer(Answer::NotOpened(
        "@erin".into(),
        "no".into(),
    )));
    assert_eq!(world.take(), [Effect::Open("@erin".into())]);
    assert_eq!(world.compose(), "for erin");
    world.input(Input::Answer(Answer::Opened(
        "@erin".into(),
        "@erin".parse().unwrap(),
    )));
    assert_eq!(world.target(), here);
}

#[test]
fn a_group_that_comes_late_takes_nobody_away() {
    let mut world = World::with(three());
    world.enter("/group Dinner @bob");
    world.type_in("mean");
    world.input(Input::Answer(Answer::Made(Target::Conversation(cid(7)))));
    world.enter("while");
    assert!(
        world
            .take()
            .contains(&in_first(Act::Send("meanwhile".into(), None)))
    );
    world.enter("/group Dinner @bob");
    world.input(Input::Answer(Answer::Made(Target::Conversation(cid(8)))));
    assert_eq!(world.target(), Target::Conversation(cid(8)));
}

#[test]
fn a_stranger_opens_nothing_under_somebodys_hands() {
    let mut world = World::with(vec![row(1, "Lunch")]);
    world.model.room = None;
    world.control('k');
    world.type_in("bo");
    world.list(vec![row(1, "Lunch"), row(2, "@eve")]);
    assert!(world.model.room.is_none());
    assert!(matches!(world.model.mode, Mode::Switch(_)));
}

#[test]
fn a_command_deletes_only_what_was_shown_and_never_an_older_message() {
    let mut world = World::with_log(three(), vec![message(1, "alice", "old")]);
    world.enter("/del");
    assert!(matches!(world.model.mode, Mode::Confirm(_)));
    world.key(KeyCode::Enter);
    assert_eq!(world.take(), [], "only y is a yes");
    let mut log = page(vec![message(1, "alice", "old")]);
    log.waiting = vec![waiting("m1", "oops", None)];
    world.input(Input::Changed(cid(1)));
    world.answer_with(log);
    world.enter("/del");
    assert!(matches!(world.model.mode, Mode::Write));
    assert!(world.model.notice.as_ref().unwrap().is_trouble);
}

#[test]
fn two_arrows_do_not_put_an_older_line_into_a_message() {
    let mut world = World::with_log(three(), vec![message(1, "alice", "last")]);
    world.enter("an older line");
    world.take();
    world.key(KeyCode::Up);
    world.key(KeyCode::Up);
    assert_eq!(world.compose(), "last");
}

#[test]
fn nothing_is_read_on_a_screen_that_is_too_small() {
    let mut world = World::with(three());
    world.input(Input::Resize(10, 4));
    world.show(vec![message(1, "bob", "hi")]);
    assert_eq!(world.take(), []);
    world.input(Input::Resize(80, 24));
    assert_eq!(world.take(), [in_first(Act::Read(Some(Seq::new(1))))]);
}

#[test]
fn a_draft_for_a_user_is_found_when_the_conversation_has_its_id() {
    let mut world = World::with(three());
    let carol: Target = "@carol".parse().unwrap();
    world.model.open(carol, &mut Vec::new());
    world.type_in("begun");
    world.control('n');
    world.list(vec![row(9, "@carol"), row(1, "Lunch")]);
    world
        .model
        .open(Target::Conversation(cid(9)), &mut Vec::new());
    assert_eq!(world.compose(), "begun");
}

#[test]
fn results_of_another_search_are_none_of_this_one() {
    let mut world = World::with(three());
    world.control('f');
    world.enter("soup");
    world.key(KeyCode::Esc);
    world.control('f');
    world.enter("salad");
    let hit = || Hit {
        cid: cid(3),
        item: message(77, "bob", "soup"),
    };
    world.input(Input::Answer(Answer::Found(1, vec![hit()], None)));
    let Mode::Search(search) = &world.model.mode else {
        panic!("no search")
    };
    assert!(search.hits.is_empty() && search.is_busy);
    world.input(Input::Answer(Answer::NotListed("full".into())));
    world.input(Input::Answer(Answer::Found(2, vec![hit()], None)));
    let Mode::Search(search) = &world.model.mode else {
        panic!("no search")
    };
    assert_eq!(search.hits.len(), 1);
}

#[test]
fn a_list_that_failed_is_read_again() {
    let mut world = World::with(three());
    world.input(Input::Refresh);
    world.input(Input::Answer(Answer::NotListed("the disk".into())));
    world.todo.clear();
    world.input(Input::Refresh);
    assert!(world.todo.contains(&Effect::List));
}

#[test]
fn a_search_goes_on_and_leads_to_the_place() {
    let mut world = World::with(three());
    world.control('f');
    world.enter("soup");
    assert_eq!(world.take(), [Effect::Find(1, "soup".into(), None, None)]);
    let hit = Hit {
        cid: cid(3),
        item: message(77, "bob", "soup"),
    };
    world.input(Input::Answer(Answer::Found(1, vec![hit], None)));
    world.key(KeyCode::Enter);
    assert_eq!(world.target(), Target::Conversation(cid(3)));
    let around = (27..=126).map(|seq| message(seq, "bob", "soup")).collect();
    world.answer_page(around);
    let room = world.model.room.as_ref().unwrap();
    assert_eq!(room.selected, Some(Key::At(Seq::new(77))));
    assert!(room.detached, "the end is elsewhere");
}

#[test]
fn a_bell_rings_for_others_conversations_only_and_not_if_muted() {
    let mut world = World::with(three());
    let with_unread = |number: usize, muted| {
        let mut rows = three();
        rows[number].unread = 1;
        rows[number].muted = muted;
        rows
    };
    world.list(with_unread(0, false));
    assert_eq!(world.take(), [], "it is before the eyes");
    world.list(three());
    world.list(with_unread(1, true));
    assert_eq!(world.take(), []);
    world.list(with_unread(1, false));
    assert_eq!(world.take(), [Effect::Bell]);
    world.list(with_unread(1, false));
    assert_eq!(world.take(), []);
}

#[test]
fn it_is_told_that_somebody_types_and_forgotten() {
    let mut world = World::with(three());
    world.type_in("h");
    let told = |world: &World| {
        let typing = world
            .todo
            .iter()
            .filter(|effect| matches!(effect, Effect::Typing(_, true)));
        typing.count()
    };
    assert_eq!(told(&world), 1);
    world.type_in("i");
    assert_eq!(told(&world), 1, "not for each key");
    world.input(Input::Typing(cid(1), "bob".into(), true));
    assert_eq!(world.model.typists(), ["bob"]);
    world.model.now += 7_000;
    world.input(Input::Tick);
    assert_eq!(world.model.typists(), [""; 0]);
}

#[test]
fn handles_are_completed_as_far_as_they_are_alike() {
    let rows = vec![row(1, "Lunch"), row(2, "@barbara"), row(3, "@barney")];
    let log = vec![message(1, "zoe", "hi")];
    let mut world = World::with_log(rows, log);
    world.type_in("ask @b");
    world.key(KeyCode::Tab);
    assert_eq!(world.compose(), "ask @bar");
    world.type_in("n");
    world.key(KeyCode::Tab);
    assert_eq!(world.compose(), "ask @barney ");
    world.type_in("and @z");
    world.key(KeyCode::Tab);
    assert_eq!(world.compose(), "ask @barney and @zoe ");
    world.key(KeyCode::Tab);
    assert_eq!(world.compose(), "ask @barney and @zoe ");
}

#[test]
fn what_is_put_away_is_not_shown() {
    let mut rows = three();
    rows[2].archived = true;
    rows[1].pinned = true;
    let world = World::with(rows);
    let shown: Vec<_> = world
        .model
        .visible_rows()
        .iter()
        .map(|row| row.title.to_string())
        .collect();
    assert_eq!(shown, ["@bob", "Lunch"]);
}

#[test]
fn the_end_of_a_connection_is_said_in_words() {
    let mut world = World::with(three());
    world.input(Input::Connection(Connection::Offline {
        reason: "refused\u{1b}[2J".into(),
    }));
    assert_eq!(
        world.model.link,
        Link::Away(Shown::line("offline: refused\u{1b}[2J"))
    );
    world.input(Input::Connection(Connection::SignIn("bad password".into())));
    let Link::Ended(why) = &world.model.link else {
        panic!("{:?}", world.model.link)
    };
    assert!(why.as_str().contains("right password"), "{why}");
}

#[test]
fn pages_of_another_conversation_or_time_change_nothing() {
    let mut world = World::with_log(three(), vec![message(1, "bob", "hi")]);
    let other = Target::Conversation(cid(2));
    let stray = page(vec![message(5, "eve", "stray")]);
    world.input(Input::Answer(Answer::Paged(
        other,
        At::Newest,
        stray.clone(),
    )));
    let target = world.target();
    world.input(Input::Answer(Answer::Paged(target, At::Newest, stray)));
    assert_eq!(world.model.room.as_ref().unwrap().items.len(), 1);
}
