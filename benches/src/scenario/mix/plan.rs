//! Who is in which conversation, and who does what next: everything that is left to chance follows from a seed.

use std::sync::Arc;

use super::Conversation;
use super::args::{Bytes, MixArgs, ReadKind, Weights};
use crate::error::BenchError;
use crate::random::Random;

/// One operation of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    /// When, in nanoseconds of the clock.
    pub(super) due: u64,
    /// Which conversation.
    pub(super) conversation: usize,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A message of so many bytes.
    Write(usize),
    Read(ReadKind),
}

/// All conversations, and the chance behind everything.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) conversations: Arc<[Conversation]>,
    groups: usize,
    /// In which conversations each person is.
    of_person: Vec<Vec<usize>>,
    direct_percent: u64,
    payloads: Weights<Bytes>,
    reads: u32,
    read_kinds: Weights<ReadKind>,
    random: Random,
    number: u64,
}

impl Plan {
    pub(super) fn new(args: &MixArgs, seed: u64) -> Result<Self, BenchError> {
        let mut random = Random::named(seed, "mix");
        let users = usize::from(args.users.get());
        if users < 2 {
            let told = "mix needs two users at least".to_owned();
            return Err(BenchError::Options(told));
        }
        let mut conversations = Vec::new();
        let average = u64::from(args.group_size.get());
        let mut size = average;
        for group in 0..usize::from(args.groups.get()) {
            // From half of the average to one and a half; the next one makes up for it.
            size = if group % 2 == 0 {
                random.between(average.div_ceil(2), average + average / 2 + 1)
            } else {
                2 * average - size
            };
            let members = group_members(&mut random, (users, size), group % users);
            conversations.push(Conversation::new(members, true));
        }
        let groups = conversations.len();
        for person in 0..users {
            for _ in 0..args.directs {
                let other = (person + 1 + index(&mut random, users - 1)) % users;
                let is_there = conversations
                    .iter()
                    .skip(groups)
                    .any(|it| it.place(person).is_some() && it.place(other).is_some());
                if !is_there {
                    conversations.push(Conversation::new(vec![person, other], false));
                }
            }
        }
        if conversations.len() > usize::from(u16::MAX) {
            let told = "more than 65,535 conversations".to_owned();
            return Err(BenchError::Options(told));
        }
        let mut of_person = vec![Vec::new(); users];
        for (number, conversation) in conversations.iter().enumerate() {
            for member in &conversation.members {
                if let Some(all) = of_person.get_mut(*member) {
                    all.push(number);
                }
            }
        }
        Ok(Self {
            conversations: conversations.into(),
            groups,
            of_person,
            direct_percent: args.direct_percent.into(),
            payloads: args.payloads.clone(),
            reads: args.reads,
            read_kinds: args.read_kinds.clone(),
            random,
            number: 0,
        })
    }

    /// What is due next: of whom, what, and how many it comes to.
    pub(super) fn next(&mut self, due: u64) -> (usize, Op, u64) {
        let is_write = self.number.is_multiple_of(u64::from(self.reads) + 1);
        self.number += 1;
        if is_write {
            self.write(due)
        } else {
            self.read(due)
        }
    }

    fn write(&mut self, due: u64) -> (usize, Op, u64) {
        let directs = self.conversations.len() - self.groups;
        let is_direct = directs > 0 && self.random.below(100) < self.direct_percent;
        let conversation = if is_direct {
            self.groups + index(&mut self.random, directs)
        } else {
            index(&mut self.random, self.groups)
        };
        let members = self.conversations.get(conversation);
        let members = members.map_or(&[][..], |it| &it.members);
        let person = self.random.pick(members).unwrap_or_default();
        let bytes = self.payloads.pick(&mut self.random).map_or(0, |it| it.0);
        let what = What::Write(bytes);
        let op = Op {
            due,
            conversation,
            what,
        };
        (person, op, members.len() as u64)
    }

    fn read(&mut self, due: u64) -> (usize, Op, u64) {
        // Somebody, in a conversation of his; who has none is passed over.
        let first = index(&mut self.random, self.of_person.len());
        let all = self.of_person.len();
        let mut people = (0..all).map(|offset| (first + offset) % all);
        let has_one = |person: &usize| self.of_person.get(*person).is_some_and(|it| !it.is_empty());
        let person = people.find(has_one).unwrap_or_default();
        let of_person = self.of_person.get(person).map_or(&[][..], Vec::as_slice);
        let conversation = self.random.pick(of_person).unwrap_or_default();
        let kind = self.read_kinds.pick(&mut self.random);
        let what = What::Read(kind.unwrap_or(ReadKind::Changes));
        let op = Op {
            due,
            conversation,
            what,
        };
        (person, op, 0)
    }
}

/// So many, and no more than there are; the owner first.
fn group_members(random: &mut Random, (users, size): (usize, u64), owner: usize) -> Vec<usize> {
    let size = usize::try_from(size).unwrap_or(usize::MAX).clamp(2, users);
    let mut others: Vec<usize> = (0..users).collect();
    others.retain(|user| *user != owner);
    let mut members = vec![owner];
    while members.len() < size && !others.is_empty() {
        let at = index(random, others.len());
        members.push(others.swap_remove(at));
    }
    members
}

/// Below this, which is not 0.
fn index(random: &mut Random, below: usize) -> usize {
    usize::try_from(random.below(below.max(1) as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mix: MixArgs,
    }

    fn plan(seed: u64) -> Plan {
        Plan::new(&Line::parse_from(["mix"]).mix, seed).unwrap()
    }

    #[test]
    fn everything_follows_from_the_seed() {
        let ops = |seed| {
            let mut plan = plan(seed);
            (0..500).map(|due| plan.next(due)).collect::<Vec<_>>()
        };
        assert_eq!(ops(3), ops(3));
        assert_ne!(ops(3), ops(4));
    }

    #[test]
    fn shares_are_as_they_were_asked_for() {
        let mut plan = plan(1);
        let sizes = plan.conversations.iter().filter(|it| it.is_group);
        let sizes: Vec<_> = sizes.map(|it| it.members.len()).collect();
        assert_eq!(sizes.len(), 10);
        assert!(
            sizes.iter().all(|size| (50..=150).contains(size)),
            "{sizes:?}"
        );
        assert_eq!(sizes.iter().sum::<usize>(), 1_000, "100 on average");
        let (mut writes, mut direct, mut long) = (0, 0, 0);
        for due in 0..42_000 {
            let (person, op, receivers) = plan.next(due);
            let conversation = &plan.conversations[op.conversation];
            assert!(
                conversation.place(person).is_some(),
                "only members do something"
            );
            if let What::Write(bytes) = op.what {
                writes += 1;
                direct += u32::from(receivers == 2);
                long += u32::from(bytes == 1_024);
            }
        }
        assert_eq!(writes, 2_000);
        assert!(
            (900..1_100).contains(&direct) && (300..500).contains(&long),
            "{direct} {long}"
        );
    }
}
