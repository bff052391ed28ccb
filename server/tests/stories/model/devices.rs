//! Devices that come and go: each gets everything from where it began, in order, once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use broker::codec::packet::{Publish, Version};
use serde_json::Value;

use super::rules::{NAMES, Place, User, World};
use super::shown;
use crate::harness::{Client, Login};

/// In which form a device reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
    Text,
}

/// A persistent session with an inbox.
pub(super) struct Device {
    pub(super) user: User,
    number: usize,
    form: Form,
    client: Option<Client>,
    /// It reads nothing, and so acknowledges nothing.
    dozes: bool,
    /// Where it has got to, by conversation; `None`: it has never been there.
    cursors: Option<BTreeMap<Place, u64>>,
    /// Where it has got to on this connection.
    since: BTreeMap<Place, u64>,
    /// Where a crash may have lost acknowledgements: what was acknowledged may come again.
    doubtful: BTreeSet<Place>,
    /// Nobody has done anything since it came.
    has_just_come: bool,
}

impl Device {
    /// The two devices of each user: one for JSON, one for protobuf or text.
    pub(super) fn all() -> Vec<Self> {
        let users = 0..NAMES.len();
        let both = users.flat_map(|user| [(user, 0), (user, 1)]);
        both.map(|(user, number)| Self {
            user,
            number,
            form: match (number, user % 2) {
                (0, _) => Form::Json,
                (_, 0) => Form::Protobuf,
                _ => Form::Text,
            },
            client: None,
            dozes: false,
            cursors: None,
            since: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            has_just_come: false,
        })
        .collect()
    }

    pub(super) fn name(&self) -> String {
        let name = ["phone", "laptop"][self.number];
        format!("{}'s {name}", NAMES[self.user])
    }

    pub(super) fn is_there(&self) -> bool {
        self.client.is_some()
    }

    /// Is it there, and does it read?
    pub(super) fn reads(&self) -> bool {
        self.is_there() && !self.dozes
    }

    /// It stops reading.
    pub(super) fn doze(&mut self) {
        if let Some(client) = &mut self.client {
            client.acks_by_itself = false;
            self.dozes = true;
        }
    }

    /// It goes, with or without a word.
    pub(super) fn go(&mut self, politely: bool) {
        let Some(client) = self.client.take() else {
            return;
        };
        if politely && !self.dozes {
            client.disconnect();
        }
        self.dozes = false;
    }

    /// The server was killed: the connection is gone, and perhaps the last acknowledgements.
    pub(super) fn crash(&mut self) {
        self.client = None;
        self.dozes = false;
        self.doubtful = self
            .cursors
            .iter()
            .flatten()
            .map(|(place, _)| *place)
            .collect();
    }

    /// It comes, perhaps in the place of a connection of its own that still stands.
    pub(super) fn come(&mut self, address: SocketAddr, world: &mut World) {
        // Only MQTT 5 tells the place of a line of text.
        let old = self.form == Form::Json && self.user.is_multiple_of(2);
        let version = if old { Version::V311 } else { Version::V5 };
        let id = format!("device-{}", self.number);
        let login = Login::new(NAMES[self.user]).version(version).device(&id);
        let mut client = login.connect(address);
        assert_eq!(
            client.session_present,
            self.cursors.is_some(),
            "a session that was there stays"
        );
        if self.cursors.is_none() {
            self.begin(world);
            client.subscribe(match self.form {
                Form::Json => "chat/me/in/+",
                Form::Protobuf => "chat/me/pb/+",
                Form::Text => "chat/me/txt/+",
            });
        }
        let _taken_over = self.client.replace(client);
        self.dozes = false;
        self.since.clear();
        self.has_just_come = true;
        self.read(world);
        self.has_just_come = false;
    }

    /// A new device begins at what its user has not read.
    fn begin(&mut self, world: &World) {
        let start = |(place, _)| Some((place, start_of(world, self.user, place)?));
        let all = world.conversations.iter().enumerate();
        self.cursors = Some(all.filter_map(start).collect());
    }

    /// Takes and acknowledges everything that is to come, and makes sure that nothing else comes.
    pub(super) fn read(&mut self, world: &mut World) {
        if !self.reads() {
            return;
        }
        while self.waits(world) {
            let message = self.client.as_mut().unwrap().next_message();
            self.take(&message, world);
        }
        loop {
            let more = self.client.as_mut().unwrap().arrivals();
            if more.is_empty() {
                return; // and all acknowledgements have reached the server
            }
            for message in more {
                self.take(&message, world);
            }
        }
    }

    /// Is there something that it has to get?
    fn waits(&self, world: &World) -> bool {
        (0..world.conversations.len()).any(|place| self.next(world, place, None).is_some())
    }

    /// The next entry that it has to get of a conversation, behind `after` or where it is.
    fn next(&self, world: &World, place: Place, after: Option<u64>) -> Option<u64> {
        let conversation = &world.conversations[place];
        conversation.members.get(&self.user)?;
        let cursor = self.cursors.as_ref()?.get(&place).copied().unwrap_or(0);
        let after = after.unwrap_or(cursor);
        (after + 1..=conversation.head())
            .find(|seq| conversation.claims(self.user, *seq) && self.shows(world, place, *seq))
    }

    /// Does the form of this device show the entry at all?
    fn shows(&self, world: &World, place: Place, seq: u64) -> bool {
        let conversation = &world.conversations[place];
        let is_written = ["message", "edit"].contains(&conversation.entry(seq).unwrap().kind);
        match conversation.gone(self.user, seq) {
            Some(_) => self.form != Form::Text,
            None => self.form != Form::Text || is_written,
        }
    }

    fn take(&mut self, message: &Publish, world: &mut World) {
        let (place, seq, told) = self.look_at(message, world);
        let name = self.name();
        let conversation = &world.conversations[place];
        let cid = &conversation.cid;
        let cursor = self.cursors.as_ref().unwrap().get(&place).copied();
        let cursor = cursor.unwrap_or(0);
        // What was in flight as a line of text comes again under its identifier, also if it has no line any more.
        let is_empty_line = self.form == Form::Text && message.dup && told == "";
        let expected = match self.since.get(&place) {
            Some(last) => self.next(world, place, Some(*last)),
            None if self.doubtful.contains(&place) && seq <= cursor => Some(seq),
            None => self.next(world, place, None),
        };
        let member = &conversation.members[&self.user];
        let is_claimed = conversation.claims(self.user, seq);
        assert!(
            message.dup || !conversation.is_only_looked_at(self.user),
            "{name} got {seq} of {cid}, which only comes to who watches it"
        );
        let is_more = !is_claimed && expected.is_none_or(|expected| seq < expected);
        assert!(
            is_empty_line || is_more || expected == Some(seq),
            "{name} got {seq} of {cid} instead of {expected:?}: {told}"
        );
        assert!(
            member.awaits(seq),
            "{name} got {seq} of {cid}, which is not for {}: {told}",
            NAMES[self.user]
        );
        // What comes again, nobody knows when, may have been on its way while it changed.
        let is_late = self.doubtful.contains(&place) && seq <= cursor && !self.has_just_come;
        if !is_empty_line && !is_late {
            let shown = self.expected(world, place, seq);
            assert_eq!(told, shown, "{name} got {seq} of {cid} like that");
        }
        self.since.insert(place, seq);
        if seq >= cursor {
            self.doubtful.remove(&place);
        }
        let cursors = self.cursors.as_mut().unwrap();
        cursors.insert(place, seq.max(cursor));
        world.conversations[place].acknowledged(self.user, seq);
    }

    fn expected(&self, world: &World, place: Place, seq: u64) -> Value {
        let conversation = &world.conversations[place];
        let shown = conversation.shown(self.user, seq, &world.uids);
        if self.form != Form::Text {
            return shown::delivered(shown);
        }
        let sign = if shown["kind"] == "edit" { "* " } else { "" };
        let text = shown["text"].as_str().unwrap_or("(nothing)");
        let from = shown["from"].as_str().unwrap();
        format!("{from}: {sign}{text}").into()
    }

    /// Which entry of which conversation it is, and what is told of it.
    fn look_at(&self, message: &Publish, world: &World) -> (Place, u64, Value) {
        let (_, cid) = message.topic.rsplit_once('/').unwrap();
        let place = world.place_named(cid);
        let place = place.unwrap_or_else(|| panic!("{} got {message:?}", self.name()));
        let told = match self.form {
            Form::Json => shown::of_json(&serde_json::from_slice(&message.payload).unwrap()),
            Form::Protobuf => shown::of_protobuf(message),
            Form::Text => {
                let pairs = &message.properties.user_properties;
                let seq = pairs.iter().find(|(name, _)| *name == "seq").unwrap();
                let line = std::str::from_utf8(&message.payload).unwrap();
                return (place, seq.1.parse().unwrap(), line.into());
            }
        };
        (place, told["seq"].as_u64().unwrap(), shown::delivered(told))
    }
}

/// Where a new device of a user begins in a conversation: at the read mark, behind own entries that follow it, and not
/// before the first joining.
fn start_of(world: &World, user: User, place: Place) -> Option<u64> {
    let conversation = &world.conversations[place];
    let member = conversation.members.get(&user)?;
    let first = (1..=conversation.head()).find(|seq| member.awaits(*seq))?;
    let read = member.marks.own_read().max(first - 1);
    let is_own = |seq: &u64| {
        let entry = conversation.entry(*seq);
        entry.is_some_and(|entry| entry.from == user)
    };
    let behind = read + 1..=conversation.head();
    Some(read + behind.take_while(is_own).count() as u64)
}
