//! What walks have found, as the few steps that it takes.

use super::rules::{DOUBTFUL, Kind, Place, Role, User};
use super::step::{History, How, Step, To, Way, What};
use super::{Walk, walk_of};

const ALICE: User = 0;
const BOB: User = 1;
const CAROL: User = 2;

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

    /// Alice makes a conversation with Bob in it.
    fn makes(&mut self, kind: Kind, role: Role) {
        let history = match kind {
            Kind::Broadcast => History::Joined,
            _ => History::All,
        };
        let create = What::Create {
            kind,
            desk: false,
            public: kind == Kind::Channel,
            title: "made".to_owned(),
            history,
            members: vec![(BOB, role)],
        };
        self.does(ALICE, create);
    }

    fn blocks(&mut self, by: User, user: User) {
        self.does(by, What::Block { user, on: true });
    }

    /// All devices of a user come: for JSON, and for protobuf or text.
    fn comes(&mut self, user: User) {
        let address = self.server.address();
        for device in &mut self.devices {
            if device.user == user {
                device.come(address, &mut self.world);
            }
        }
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

#[test]
fn what_a_reader_has_read_is_told_to_his_other_devices() {
    let mut walk = walk_of(0);
    walk.makes(Kind::Channel, Role::Reader);
    walk.writes(ALICE, To::Conversation(FIRST));
    walk.look_at_everything();
    let read = What::Read {
        place: FIRST,
        seq: Some(2),
        private: false,
    };
    walk.does(BOB, read);
    walk.look_at_everything();
    walk.does(
        BOB,
        What::Hide {
            place: FIRST,
            seq: 2,
        },
    );
    walk.look_at_everything();
}

#[test]
fn a_reader_who_may_write_now_is_told_so_and_of_what_follows() {
    let mut walk = walk_of(0);
    walk.makes(Kind::Channel, Role::Reader);
    walk.look_at_everything();
    let role = What::Role {
        place: FIRST,
        user: BOB,
        role: Role::Member,
    };
    walk.does(ALICE, role);
    walk.look_at_everything();
    walk.writes(ALICE, To::Conversation(FIRST));
    walk.look_at_everything();
}

#[test]
fn nothing_waits_for_who_comes_goes_and_comes_while_a_channel_is_quiet() {
    let mut walk = walk_of(0);
    walk.makes(Kind::Channel, Role::Reader);
    walk.writes(ALICE, To::Conversation(FIRST));
    let place = FIRST;
    for what in [
        What::Join { place },
        What::Leave { place, heir: None },
        What::Join { place },
    ] {
        walk.does(CAROL, what);
        walk.look_at_everything();
    }
}

#[test]
fn what_nobody_could_approve_is_not_held() {
    let mut walk = walk_of(0);
    walk.makes(Kind::Broadcast, Role::Reader);
    let send = What::Send {
        to: To::Conversation(FIRST),
        how: How::Plain,
        text: DOUBTFUL.to_owned(),
    };
    walk.take(&Step {
        by: ALICE,
        way: Way::Topic,
        id: Some("id".to_owned()),
        what: send,
    });
    walk.look_at_everything();
}

#[test]
fn a_broadcast_list_is_not_handed_over() {
    let mut walk = walk_of(0);
    walk.makes(Kind::Broadcast, Role::Reader);
    for heir in [Some(BOB), None] {
        walk.does(ALICE, What::Leave { place: FIRST, heir });
        walk.look_at_everything();
    }
}

#[test]
fn that_a_case_was_closed_which_nobody_had_is_told_in_protobuf_too() {
    let mut walk = walk_of(0);
    let desk = FIRST;
    walk.does(
        ALICE,
        What::Create {
            kind: Kind::Group,
            desk: true,
            public: false,
            title: "desk".to_owned(),
            history: History::All,
            members: vec![(BOB, Role::Member)],
        },
    );
    walk.does(CAROL, What::OpenCase { desk });
    walk.comes(CAROL);
    walk.does(CAROL, What::CloseCase { place: desk + 1 });
    walk.look_at_everything();
}
