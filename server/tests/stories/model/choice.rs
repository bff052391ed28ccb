//! Which step comes next: chosen by chance, mostly such as make sense.

use std::collections::VecDeque;

use super::rules::{DOUBTFUL, EDITS_MAX, EMOJI_MAX, Kind, NAMES, Place, Role, User, World};
use super::step::{Client, History, How, Step, To, Way, What};
use crate::harness::Random;

/// Emoji that are used.
const EMOJI: [&str; EMOJI_MAX + 2] = [
    "👍",
    "👎",
    "❤️",
    "🎉",
    "😀",
    "😢",
    "🚀",
    "👀",
    "+1",
    "👩‍👩‍👧",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
];
/// Groups, channels and broadcast lists of one walk.
const MADE_MAX: usize = 8;
/// Steps that may be tried again.
const KEPT: usize = 40;

/// Chooses steps.
pub(super) struct Choice {
    random: Random,
    /// Steps that were chosen together.
    planned: VecDeque<Step>,
    /// The last steps that had an id.
    done: VecDeque<Step>,
    last_id: u64,
}

impl Choice {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            planned: VecDeque::new(),
            done: VecDeque::new(),
            last_id: 0,
        }
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).unwrap()
    }

    /// Happens so many times in a hundred.
    pub(super) fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    fn user(&mut self) -> User {
        self.below(NAMES.len())
    }

    /// The next step.
    pub(super) fn next(&mut self, world: &World) -> Step {
        if let Some(step) = self.planned.pop_front() {
            return step;
        }
        if self.percent(4)
            && let Some(step) = self.again()
        {
            return step;
        }
        let by = self.user();
        let what = self.what(world, by);
        let step = self.step(by, what);
        if step.id.is_some() {
            self.done.push_back(step.clone());
            if self.done.len() > KEPT {
                self.done.pop_front();
            }
        }
        step
    }

    /// A step with a way and perhaps an id.
    fn step(&mut self, by: User, what: What) -> Step {
        // What is doubtful is found again by its id, which a call would make another one.
        let is_doubtful = matches!(&what, What::Send { text, .. } if text.contains(DOUBTFUL));
        let way = match &what {
            What::Read { .. } | What::Unread { .. } | What::Received { .. } => Way::Topic,
            what if what.is_call_only() => Way::Call,
            _ if is_doubtful => Way::Topic,
            _ if self.percent(15) => Way::Call,
            _ => Way::Topic,
        };
        // Where 3.1.1 has a place for a message id.
        let is_plain = matches!(
            what,
            What::Send {
                how: How::Plain,
                ..
            }
        );
        let has_place = way == Way::Call || is_plain || Client::of(by) != Client::Text;
        let wanted = has_place && what.takes_id() && (is_doubtful || self.percent(50));
        self.last_id += 1;
        let id = wanted.then(|| format!("id-{}", self.last_id));
        Step { by, way, id, what }
    }

    /// An earlier step once more, as it was or with another body.
    fn again(&mut self) -> Option<Step> {
        let count = self.done.len();
        let chosen = (count > 0).then(|| self.below(count))?;
        let mut step = self.done[chosen].clone();
        if self.percent(25) {
            match &mut step.what {
                What::Send { text, .. } | What::Edit { text, .. } => text.push('!'),
                What::Pin { on, .. } => *on = !*on,
                What::React { add, .. } => *add = !*add,
                What::Settings { title, .. } => *title = Some("another".to_owned()),
                _ => {}
            }
        }
        Some(step)
    }

    fn what(&mut self, world: &World, by: User) -> What {
        let text = format!("text {}", self.last_id);
        if made(world) < 4 || (self.percent(2) && self.percent(40)) {
            return self.create(world, by);
        }
        if self.percent(6)
            && let Some(what) = self.wait(world, by)
        {
            return what;
        }
        if self.percent(5)
            && let Some(what) = self.support(world, by)
        {
            return what;
        }
        if self.percent(10) {
            let to = To::User(self.user());
            let how = How::Plain;
            return What::Send { to, how, text };
        }
        if self.percent(4) {
            return self.block(world, by);
        }
        if self.percent(3) {
            let all = world.conversations.iter().enumerate();
            let channels = all.filter(|(_, one)| one.kind == Kind::Channel);
            let channels: Vec<Place> = channels.map(|(place, _)| place).collect();
            if let Some(place) = self.one_of(&channels) {
                return What::Join { place };
            }
        }
        let place = self.place(world, by);
        match self.below(100) {
            0..28 => {
                let to = To::Conversation(place);
                if self.percent(6) {
                    let (how, text) = (How::Plain, format!("{text} {DOUBTFUL}"));
                    return What::Send { to, how, text };
                }
                let how = match self.below(6) {
                    0 => How::Reply(self.seq(world, place)),
                    1 => How::Thread(self.seq(world, place)),
                    _ => How::Plain,
                };
                What::Send { to, how, text }
            }
            28..46 => self.mark(world, by, place),
            46..78 => self.act(world, by, place),
            _ => self.change(world, place),
        }
    }

    /// Something waits for its time or for a moderator, or has waited long enough.
    fn wait(&mut self, world: &World, by: User) -> Option<What> {
        let text = format!("text {}", self.last_id);
        if self.percent(45) {
            let place = self.place(world, by);
            let all = world.conversations[place].held.keys().cloned();
            let held: Vec<(User, String)> = all.collect();
            let (from, id) = match held.len() {
                0 => self.one_of(&world.conversations[place].approved)?,
                count => held[self.below(count)].clone(),
            };
            return Some(if self.percent(70) {
                What::Approve { place, from, id }
            } else {
                What::Reject { place, from, id }
            });
        }
        let own = world.scheduled.keys().filter(|(user, _)| *user == by);
        let own: Vec<String> = own.map(|(_, id)| id.clone()).collect();
        if own.is_empty() || self.percent(40) {
            let to = if self.percent(30) {
                To::User(self.user())
            } else {
                To::Conversation(self.place(world, by))
            };
            let id = match own.len() {
                count if count > 0 && self.percent(15) => own[self.below(count)].clone(),
                _ => format!("later-{}", self.last_id),
            };
            let text = self.doubtful(text, 15);
            return Some(What::Schedule { to, text, id });
        }
        let id = own[self.below(own.len())].clone();
        Some(match self.below(6) {
            0 => What::Reschedule { id, text },
            1 => What::Cancel { id },
            _ => What::SendNow { id },
        })
    }

    /// Somebody asks a desk for help, or helps.
    fn support(&mut self, world: &World, by: User) -> Option<What> {
        let all = || world.conversations.iter().enumerate();
        let desks = all().filter(|(_, one)| one.desk).map(|(place, _)| place);
        let cases = all().filter(|(_, one)| one.case.is_some());
        let cases: Vec<Place> = cases.map(|(place, _)| place).collect();
        if cases.is_empty() || self.percent(20) {
            let desks: Vec<Place> = desks.collect();
            let desk = self.one_of(&desks)?;
            return Some(What::OpenCase { desk });
        }
        let place = self.one_of(&cases)?;
        Some(match self.below(8) {
            0..4 => What::Claim { place },
            4..6 => {
                let to = self.percent(70).then(|| self.user());
                What::HandOn { place, to }
            }
            6 => What::CloseCase { place },
            _ => What::Send {
                to: To::Conversation(place),
                how: How::Plain,
                text: format!("text {} of {by}", self.last_id),
            },
        })
    }

    /// The text, which in so many of a hundred times a moderator should look at.
    fn doubtful(&mut self, text: String, of_hundred: usize) -> String {
        if self.percent(of_hundred) {
            return format!("{text} {DOUBTFUL}");
        }
        text
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let count = all.len();
        (count > 0).then(|| all[self.below(count)].clone())
    }

    /// Somebody is blocked, and writes on; or is not any more.
    fn block(&mut self, world: &World, by: User) -> What {
        let blocked = world.blocked_by(by);
        if !blocked.is_empty() && self.percent(50) {
            let user = blocked[self.below(blocked.len())];
            return What::Block { user, on: false };
        }
        let user = self.user();
        for _ in 0..self.below(4) {
            let (writes, to) = if self.percent(75) {
                (user, by)
            } else {
                (by, user)
            };
            let what = match world.direct(by, user) {
                Some(place) if self.percent(40) => self.act(world, writes, place),
                Some(place) if self.percent(30) => self.mark(world, by, place),
                _ => What::Send {
                    to: To::User(to),
                    how: How::Plain,
                    text: format!("text {}", self.last_id),
                },
            };
            let step = self.step(writes, what);
            self.planned.push_back(step);
        }
        let on = self.percent(90);
        What::Block { user, on }
    }

    /// Mostly a conversation of this user.
    fn place(&mut self, world: &World, by: User) -> Place {
        let all = world.conversations.len();
        for _ in 0..8 {
            let place = self.below(all);
            let conversation = &world.conversations[place];
            let is_fitting = match self.below(20) {
                0 => true,
                1 => conversation.members.contains_key(&by),
                _ => conversation.is_present(by),
            };
            if is_fitting {
                return place;
            }
        }
        self.below(all)
    }

    /// Mostly a recent entry, sometimes one that is not there.
    fn seq(&mut self, world: &World, place: Place) -> u64 {
        let head = world.conversations[place].head();
        let back = match self.below(10) {
            0..7 => self.random.below(8),
            7..9 => self.random.below(head),
            _ => return head + self.random.below(3),
        };
        head.saturating_sub(back).max(1)
    }

    /// Mostly a recent message, of this user if `own`.
    fn message(&mut self, world: &World, place: Place, own: Option<User>) -> u64 {
        for _ in 0..12 {
            let seq = self.seq(world, place);
            let entry = world.conversations[place].entry(seq);
            let is_fitting = entry.is_some_and(|entry| {
                entry.kind == "message" && own.is_none_or(|own| entry.from == own)
            });
            if is_fitting {
                return seq;
            }
        }
        self.seq(world, place)
    }

    fn create(&mut self, world: &World, by: User) -> What {
        if made(world) >= MADE_MAX {
            return What::Send {
                to: To::User(self.user()),
                how: How::Plain,
                text: format!("text {}", self.last_id),
            };
        }
        // One of each kind first.
        let kind = match made(world) {
            0 | 3 => Kind::Group,
            1 => Kind::Channel,
            2 => Kind::Broadcast,
            _ => [Kind::Group, Kind::Group, Kind::Channel, Kind::Broadcast][self.below(4)],
        };
        let others = (0..NAMES.len()).filter(|user| *user != by);
        let mut members = Vec::new();
        for user in others {
            if self.percent(50) {
                let role = match kind {
                    Kind::Broadcast => 0,
                    Kind::Channel => [0, 0, 0, 1, 2, 3][self.below(6)],
                    _ => [0, 1, 1, 1, 2, 3][self.below(6)],
                };
                members.push((user, Role::ALL[role]));
            }
        }
        let history = match kind {
            Kind::Broadcast => History::Joined,
            _ => self.history(),
        };
        What::Create {
            kind,
            desk: kind == Kind::Group && made(world) != 3,
            public: kind == Kind::Channel,
            title: format!("conversation {}", self.last_id),
            history,
            members,
        }
    }

    fn history(&mut self) -> History {
        match self.below(3) {
            0 => History::All,
            1 => History::Joined,
            _ => History::Last(self.random.below(12) + 1),
        }
    }

    fn mark(&mut self, world: &World, by: User, place: Place) -> What {
        let seq = self.seq(world, place);
        match self.below(12) {
            0..7 => {
                let private = self.percent(20);
                let all = world.conversations[place].is_present(by) && self.percent(25);
                let seq = (!all).then_some(seq);
                What::Read {
                    place,
                    seq,
                    private,
                }
            }
            7..9 => What::Received { place, seq },
            9..11 => What::Unread {
                place,
                flag: self.percent(60),
            },
            _ => {
                let mut maybe = || self.percent(40).then(|| self.percent(50));
                What::Prefer {
                    place,
                    muted: maybe(),
                    archived: maybe(),
                    on_top: maybe(),
                    watch: maybe(),
                }
            }
        }
    }

    fn act(&mut self, world: &World, by: User, place: Place) -> What {
        let text = format!("text {}", self.last_id);
        let own = self.percent(80).then_some(by);
        match self.below(32) {
            0..9 => {
                let seq = self.message(world, place, own);
                let text = self.doubtful(text, 4);
                What::Edit { place, seq, text }
            }
            9..13 => {
                let seq = self.message(world, place, own);
                What::Delete { place, seq }
            }
            13..16 => What::Hide {
                place,
                seq: self.seq(world, place),
            },
            16..25 => self.react(world, place),
            25..29 => What::Pin {
                place,
                seq: self.message(world, place, None),
                on: self.percent(70),
            },
            29 => What::Report {
                place,
                seq: self.seq(world, place),
            },
            30 => self.edit_too_often(world, by, place),
            _ => self.react_too_often(world, by, place),
        }
    }

    fn react(&mut self, world: &World, place: Place) -> What {
        let seq = self.message(world, place, None);
        let emoji = EMOJI[self.below(4)].to_owned();
        match self.below(8) {
            0 => What::React {
                place,
                seq,
                emoji: None,
                add: false,
            },
            turn => What::React {
                place,
                seq,
                emoji: Some(emoji),
                add: turn > 2,
            },
        }
    }

    /// Now and then one message is edited until it cannot be any more.
    fn edit_too_often(&mut self, world: &World, by: User, place: Place) -> What {
        let seq = self.message(world, place, Some(by));
        let edit = |number: usize| What::Edit {
            place,
            seq,
            text: format!("edit {number}"),
        };
        if self.percent(8) {
            let steps: Vec<Step> = (0..EDITS_MAX)
                .map(|number| self.step(by, edit(number)))
                .collect();
            self.planned.extend(steps);
        }
        edit(EDITS_MAX)
    }

    fn react_too_often(&mut self, world: &World, by: User, place: Place) -> What {
        let seq = self.message(world, place, None);
        let react = |emoji: &str| What::React {
            place,
            seq,
            emoji: Some(emoji.to_owned()),
            add: true,
        };
        let steps: Vec<Step> = EMOJI[1..]
            .iter()
            .map(|emoji| self.step(by, react(emoji)))
            .collect();
        self.planned.extend(steps);
        react(EMOJI[0])
    }

    /// Members come and go, and their rights.
    fn change(&mut self, world: &World, place: Place) -> What {
        let user = self.user();
        let kind = world.conversations[place].kind;
        match self.below(30) {
            0..11 => {
                let mut users = vec![user];
                while self.percent(25) {
                    users.push(self.user());
                }
                users.sort_unstable();
                users.dedup();
                let is_many = matches!(kind, Kind::Channel | Kind::Broadcast);
                let role = match self.below(7) {
                    turn if is_many && turn < 5 => 0,
                    turn => [0, 1, 1, 1, 2, 3, 4][turn],
                };
                let role = Role::ALL[role];
                What::Add { place, users, role }
            }
            11..16 => What::Remove { place, user },
            16..20 => What::Leave {
                place,
                heir: self.percent(50).then_some(user),
            },
            20 => What::Transfer { place, user },
            21 => What::Ban { place, user },
            22 => What::Unban { place, user },
            23..26 => What::Role {
                place,
                user,
                role: Role::ALL[self.below(Role::ALL.len())],
            },
            _ => {
                let title = self.percent(60).then(|| format!("title {}", self.last_id));
                let history = (title.is_none() || self.percent(50)).then(|| self.history());
                What::Settings {
                    place,
                    title,
                    history,
                }
            }
        }
    }
}

/// How many groups, channels and broadcast lists there are.
fn made(world: &World) -> usize {
    let made = |kind| matches!(kind, Kind::Group | Kind::Channel | Kind::Broadcast);
    let all = world.conversations.iter();
    all.filter(|one| made(one.kind)).count()
}
