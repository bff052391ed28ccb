//! A random walk of users, devices and groups through the whole chat, beside a simple model of it: every answer, every
//! history, count, receipt and right must be the same.
//!
//! 1. [`choice`] chooses a step, [`rules`] say what must come of it, [`acting`] does it.
//! 2. [`devices`] that are there take what is theirs after each step; those that were away, when they come back.
//! 3. [`checks`] look at everything that users are shown: at some of it every so often, at all of it, [`receipts`] as well, at
//!    restarts and at the end.
//!
//! A walk is the same for the same seed. What a seed finds becomes a test of its own: the few steps that it takes ([`found`]).

mod acting;
mod checks;
mod choice;
mod devices;
mod found;
mod receipts;
mod rules;
mod shown;
mod step;

use std::collections::VecDeque;
use std::fs;

use serde_json::json;
use tempfile::TempDir;

use self::acting::{Actor, Heard};
use self::choice::Choice;
use self::devices::Device;
use self::rules::{Answer, DOUBTFUL, NAMES, World};
use self::step::{Step, What};
use crate::harness::{Launch, Login, Server, eventually};
use crate::scheduled::in_ms;

/// Steps that are told when one fails, if `MQCHAT_MODEL_TOLD` says nothing else.
const TOLD: u64 = 30;

/// One walk.
struct Walk {
    server: Server,
    /// Where the words are that are doubtful.
    _words: TempDir,
    actors: Vec<Actor>,
    devices: Vec<Device>,
    /// Account versions up to which each user knows everything.
    versions: Vec<u64>,
    world: World,
    choice: Choice,
    tale: Tale,
}

impl Walk {
    fn new(seed: u64, set: impl FnOnce(Launch) -> Launch) -> Self {
        let tale = Tale {
            seed,
            number: 0,
            last: VecDeque::new(),
            told: usize::try_from(number("MQCHAT_MODEL_TOLD").unwrap_or(TOLD)).unwrap(),
        };
        let words = TempDir::with_prefix("mqchat-story-").unwrap();
        let list = words.path().join("words");
        fs::write(&list, DOUBTFUL).unwrap();
        let server = Server::in_new_directory(|launch| {
            let launch = launch
                .dev()
                .variable("MQCHAT_FILTER__WORDS_FILE", &list)
                .variable("MQCHAT_FILTER__WORDS_POLICY", "hold")
                .variable("MQCHAT_CHAT__USER_INVITATIONS_PER_MIN", "0")
                .variable("MQCHAT_CHAT__USER_JOINS_PER_MIN", "0")
                .variable("MQCHAT_CHAT__USER_BROADCASTS_PER_MIN", "0")
                .variable("MQCHAT_CHAT__RECEIPT_INTERVAL_MS", "20")
                .variable("MQCHAT_CHAT__RECEIPT_INTERVAL_MAX_MS", "40");
            set(launch)
        });
        let mut walk = Self {
            server,
            _words: words,
            actors: Vec::new(),
            devices: Device::all(),
            versions: Vec::new(),
            world: World::default(),
            choice: Choice::new(seed),
            tale,
        };
        walk.world.far_ms = in_ms(7 * 24 * 3_600_000);
        walk.connect();
        for actor in &mut walk.actors {
            let me = actor.client.call("me.get", &json!({})).unwrap();
            walk.world.uids.push(me["uid"].as_str().unwrap().to_owned());
            let all = actor.client.call("sync.changes", &json!({})).unwrap();
            walk.versions.push(all["ver"].as_u64().unwrap());
        }
        walk
    }

    fn connect(&mut self) {
        let address = self.server.address();
        let users = 0..NAMES.len();
        self.actors = users.map(|user| Actor::connect(user, address)).collect();
    }

    fn go(&mut self, steps: usize) {
        for _ in 0..steps {
            self.tale.number += 1;
            match self.choice.below(1_000) {
                0..60 => self.device_moves(),
                60..63 => self.restart(),
                63..95 => self.look(),
                _ => {
                    let step = self.choice.next(&self.world);
                    self.take(&step);
                }
            }
        }
        self.look_at_everything();
        self.tale.last.clear();
    }

    /// A user does something: the answer is that of the model.
    fn take(&mut self, step: &Step) {
        self.tale.tell(&step.to_string());
        if let What::Read {
            place, seq: None, ..
        } = step.what
        {
            // What is delivered must be known before somebody says that it is read.
            let client = &mut self.actors[step.by].client;
            checks::overview(client, &mut self.world, step.by, place);
        }
        let heard = self.actors[step.by].act(step, &self.world);
        let cid = match &heard {
            Heard::Placed { cid: Some(cid), .. } => cid.clone(),
            _ => String::new(),
        };
        let answer = self.world.take(step, &cid);
        self.tale.tell(&format!("… {answer:?}"));
        self.compare(step, &heard, &answer);
        self.settle(step);
        let may_have_come = matches!(step.what, What::SendNow { .. } | What::Reschedule { .. });
        if may_have_come || matches!(answer, Answer::Placed { dup: false, .. }) {
            for device in &mut self.devices {
                device.read(&mut self.world);
            }
        }
    }

    /// What follows of a step by itself has followed: direct messages of a broadcast list, and what was due.
    fn settle(&mut self, step: &Step) {
        for (user, place) in std::mem::take(&mut self.world.under_way) {
            let conversation = &self.world.conversations[place];
            let client = &mut self.actors[user].client;
            let ask = json!({"cid": conversation.cid});
            eventually("the direct messages of a broadcast", || {
                let found = client.call("conv.get", &ask).ok()?;
                (found["head"] == conversation.head()).then_some(())
            });
        }
        let (What::SendNow { id } | What::Reschedule { id, .. }) = &step.what else {
            return;
        };
        let actor = &mut self.actors[step.by];
        checks::settled(&mut actor.client, &self.world, step.by);
        let waiting = self.world.scheduled.get(&(step.by, id.clone()));
        if waiting.is_some_and(|waiting| waiting.refused.is_some()) {
            actor.client.next_on(&format!("chat/me/err/{id}")); // told, too
        }
    }

    fn compare(&mut self, step: &Step, heard: &Heard, answer: &Answer) {
        match (heard, answer) {
            (
                Heard::Placed { seq, dup, .. },
                Answer::Placed {
                    seq: expected,
                    dup: was_before,
                },
            ) => {
                assert_eq!((seq, dup), (expected, was_before), "{step}");
            }
            (Heard::Done | Heard::Acked, Answer::Done) => {}
            (Heard::Acked, Answer::Placed { .. }) => {
                // 3.1.1 is not told where: the head tells.
                let place = self.world.place_of(step).unwrap();
                let client = &mut self.actors[step.by].client;
                checks::overview(client, &mut self.world, step.by, place);
            }
            (Heard::Refused(name), Answer::Refused(expected)) => {
                assert_eq!(name, expected, "{step}");
            }
            _ => panic!("{step}: {heard:?} instead of {answer:?}"),
        }
    }

    /// A device comes, goes or falls asleep.
    fn device_moves(&mut self) {
        let chosen = self.choice.below(self.devices.len());
        let turn = self.choice.below(6);
        let address = self.server.address();
        let device = &mut self.devices[chosen];
        let name = device.name();
        if device.reads() {
            match turn {
                0..2 => {
                    self.tale.tell(&format!("{name} dozes"));
                    device.doze();
                }
                2 => {
                    self.tale.tell(&format!("{name} takes over from itself"));
                    device.come(address, &mut self.world);
                }
                _ => {
                    self.tale.tell(&format!("{name} goes"));
                    device.go(turn > 3);
                }
            }
        } else {
            self.tale.tell(&format!("{name} comes"));
            device.come(address, &mut self.world);
        }
    }

    /// The server is killed, or stops, and starts again.
    fn restart(&mut self) {
        let is_killed = self.choice.percent(60);
        let members = self.world.conversations.iter_mut();
        let marks = members.flat_map(|one| one.members.values_mut());
        let marks = marks.map(|member| &mut member.marks);
        if is_killed {
            self.tale.tell("SIGKILL");
            self.server.kill();
            marks.for_each(rules::Marks::crashed);
            self.devices.iter_mut().for_each(Device::crash);
        } else {
            self.tale.tell("a restart");
            self.server.terminate();
            assert!(self.server.wait_for_exit().success());
            marks.for_each(rules::Marks::stopped);
            self.devices.iter_mut().for_each(|device| device.go(false));
        }
        self.actors.clear();
        self.server.restart();
        self.connect();
        self.look_at_everything();
    }

    /// Somebody looks at something.
    fn look(&mut self) {
        if self.world.conversations.is_empty() {
            return;
        }
        let user = self.choice.below(NAMES.len());
        let place = self.choice.below(self.world.conversations.len());
        self.tale.tell(&format!("{} looks at {place}", NAMES[user]));
        let client = &mut self.actors[user].client;
        checks::conversation(client, &mut self.world, user, place);
        checks::list(client, &self.world, user);
        self.versions[user] = checks::sync(client, &mut self.world, user, self.versions[user]);
    }

    /// Everybody looks at everything.
    fn look_at_everything(&mut self) {
        self.tale.tell("all look at everything");
        for device in &mut self.devices {
            device.read(&mut self.world);
        }
        let address = self.server.address();
        for place in 0..self.world.conversations.len() {
            for user in 0..NAMES.len() {
                let client = &mut self.actors[user].client;
                checks::conversation(client, &mut self.world, user, place);
            }
            if let Some(reader) = self.world.conversations[place].present().next() {
                checks::log(&Login::new(NAMES[reader]), &self.world, address, place);
            }
        }
        for user in 0..NAMES.len() {
            let client = &mut self.actors[user].client;
            checks::list(client, &self.world, user);
            checks::scheduled(client, &self.world, user);
            self.versions[user] = checks::sync(client, &mut self.world, user, self.versions[user]);
            receipts::told(&mut self.actors[user], &self.world, user);
            receipts::state(&self.world, user, address);
        }
    }
}

/// What happened last; told if the walk fails.
struct Tale {
    seed: u64,
    number: usize,
    last: VecDeque<String>,
    told: usize,
}

impl Tale {
    fn tell(&mut self, words: &str) {
        if self.last.len() == self.told {
            self.last.pop_front();
        }
        self.last.push_back(format!("{:5} {words}", self.number));
    }
}

impl Drop for Tale {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the walk with the seed {} failed at step {}",
                self.seed, self.number
            );
            for words in &self.last {
                eprintln!("{words}");
            }
        }
    }
}

/// A number from the environment, for longer walks.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// A walk that has not begun.
fn walk_of(seed: u64) -> Walk {
    Walk::new(seed, |launch| launch)
}

fn walk(seeds: &[u64], steps: u64, set: impl Fn(Launch) -> Launch) {
    let given = number("MQCHAT_MODEL_SEED").map(|seed| vec![seed]);
    let steps = number("MQCHAT_MODEL_STEPS").unwrap_or(steps);
    for seed in given.as_deref().unwrap_or(seeds) {
        Walk::new(*seed, &set).go(usize::try_from(steps).unwrap());
    }
}

#[test]
fn a_random_walk_finds_what_the_model_says() {
    walk(&[1, 2, 3], 850, |launch| launch);
}

#[test]
fn a_random_walk_on_sled_finds_what_the_model_says() {
    walk(&[4], 400, |launch| {
        launch.variable("MQCHAT_STORE__ENGINE", "sled")
    });
}

#[test]
fn a_random_walk_past_large_channels_finds_what_the_model_says() {
    let seed = number("MQCHAT_MODEL_SEED").unwrap_or(5);
    let mut walk = Walk::new(seed, |launch| {
        launch.variable("MQCHAT_CHAT__CHANNEL_INBOX_MAX", "0")
    });
    walk.world.channels_are_large = true;
    let steps = number("MQCHAT_MODEL_STEPS").unwrap_or(300);
    walk.go(usize::try_from(steps).unwrap());
}
