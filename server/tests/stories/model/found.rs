//! What walks have found, as the few steps that it takes.

use super::rules::{Place, User};
use super::step::{How, Step, To, Way, What};
use super::{Walk, walk_of};

const ALICE: User = 0;
const BOB: User = 1;

impl Walk {
    fn does(&mut self, by: User, what: What) {
        let way = if what.is_call_only() {
            Way::Call
        } else {
            Way::Topic
        };
        let id = None;
        self.take(&Step { by, way, id, what });
    }

    fn writes(&mut self, by: User, to: To) {
        let (how, text) = (How::Plain, "text".to_owned());
        self.does(by, What::Send { to, how, text });
    }

    fn blocks(&mut self, by: User, user: User) {
        self.does(by, What::Block { user, on: true });
    }

    fn comes(&mut self, user: User) {
        let address = self.server.address();
        let device = self.devices.iter_mut().find(|device| device.user == user);
        device.unwrap().come(address, &mut self.world);
    }
}

/// The first conversation.
const FIRST: Place = 0;

#[test]
fn an_ack_is_followed_by_all_that_it_counts_for() {
    let mut walk = walk_of(0);
    for _ in 0..50 {
        walk.writes(ALICE, To::User(BOB)); // 3.1.1: looks at head and number of messages
    }
    walk.look_at_everything();
}

#[test]
fn a_device_is_not_shown_how_somebody_reacted_who_was_blocked_later() {
    let mut walk = walk_of(0);
    walk.writes(ALICE, To::User(BOB));
    let react = What::React {
        place: FIRST,
        seq: 1,
        emoji: Some("👍".to_owned()),
        add: true,
    };
    walk.does(ALICE, react);
    walk.blocks(BOB, ALICE);
    walk.comes(BOB);
    walk.look_at_everything();
}

#[test]
fn a_conversation_that_a_blocked_user_began_is_told_when_something_is_seen_there() {
    let mut walk = walk_of(0);
    walk.blocks(BOB, ALICE);
    walk.writes(ALICE, To::User(BOB));
    walk.look_at_everything();
    walk.writes(BOB, To::User(ALICE));
    walk.look_at_everything();
}
