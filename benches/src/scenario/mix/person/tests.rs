//! Packets made by hand: what is wrong with them is counted.

use broker::codec::packet::Version;
use broker::codec::properties::PublishProperties;
use broker::codec::reason::ReasonCode;

use super::*;
use crate::clock::Clock;
use crate::series::{Noted, Series};

const RUN: u32 = 7;

/// Number 0; with 1 in a conversation in which each has written three messages, and not in the one of 1 and 2.
async fn person(version: Version) -> Person {
    let (client, _broker) = Client::of_test(version).await;
    let conversations = [vec![0, 1], vec![1, 2]].map(|members| {
        let conversation = Conversation::new(members, false);
        for written in &conversation.written {
            written.store(3, Ordering::Release);
        }
        conversation
    });
    let schedule = Schedule::new(Clock::start(), 0, 1, 1);
    let series = Series::new(schedule.measure_from, schedule.stop);
    let (window, ver) = (4, 0);
    let ready = Ready {
        client,
        window,
        ver,
    };
    let task = Task {
        number: 0,
        run: RUN,
        page: 1,
        conversations: Arc::from(conversations),
        schedule,
        tapes: [Noted::Ack, Noted::Delivery].map(|noted| Tape::new(&series, noted)),
        progress: Progress::start(true).0,
    };
    Person::new(ready, task, mpsc::channel(1).1)
}

fn publish(topic: &str, payload: impl Into<bytes::Bytes>) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: topic.into(),
        packet_id: None,
        payload: payload.into(),
        properties: PublishProperties::default().into(),
    })
}

/// Of the member at `place` of a conversation of two.
fn message(run: u32, conversation: u16, place: u32, message: u32) -> Packet {
    let stamp = Stamp {
        run,
        stream: conversation,
        number: 2 * message + place,
        sent_at: 0,
    };
    publish("chat/me/in/c", stamp.payload(60))
}

fn op(person: &Person, what: What) -> Op {
    Op {
        due: person.task.schedule.measure_from,
        conversation: 0,
        what,
    }
}

fn ack(packet_id: u16, reason: ReasonCode) -> Packet {
    let mut ack = Ack::success(PacketId::new(packet_id).unwrap());
    ack.reason = reason;
    Packet::PubAck(ack)
}

#[tokio::test]
async fn what_is_lost_repeated_out_of_order_or_for_others_is_counted() {
    let mut person = person(Version::V5).await;
    for number in [1, 0, 0] {
        person.client.hear(&message(RUN, 0, 1, number));
    }
    person.client.hear(&message(RUN, 1, 0, 0)); // not a member
    person.client.hear(&message(RUN, 0, 1, 3)); // never written
    person.client.hear(&message(RUN, 9, 0, 0)); // no such conversation
    person.client.hear(&message(RUN + 1, 0, 1, 0));
    person.handle_packets().unwrap();
    let mut acked = Bits::default();
    (0..3).for_each(|number| assert!(acked.insert(number)));
    let conversations = Arc::clone(&person.task.conversations);
    conversations[0].acked[1].set(acked).unwrap();
    person.judge(Patience::Lost);
    let seen = &person.seen;
    assert_eq!((seen.lost, seen.late, seen.delivered), (1, 0, 2));
    assert_eq!((seen.duplicates, seen.reordered), (1, 1));
    assert_eq!((seen.misdelivered, seen.foreign), (3, 1));
    // He himself has not told what was acknowledged to him.
    assert_eq!(seen.unjudged, 1);
}

#[tokio::test]
async fn a_read_whose_reply_never_comes_is_not_answered() {
    let mut person = person(Version::V5).await;
    let read = op(&person, What::Read(ReadKind::Changes));
    person.read(read).unwrap();
    person.client.hear(&ack(1, ReasonCode::Success));
    person.handle_packets().unwrap();
    assert!(!person.is_idle());
    person.settle();
    assert_eq!(person.seen.unacked, 1);
    assert_eq!(person.seen.read[ReadKind::Changes as usize].count(), 1);
}

#[tokio::test]
async fn a_read_without_ack_and_reply_counts_once() {
    for kind in ReadKind::ALL {
        let mut person = person(Version::V5).await;
        let read = op(&person, What::Read(kind));
        person.read(read).unwrap();
        person.settle();
        assert_eq!((person.seen.unacked, person.seen.reads), (1, 0));
    }
}

#[tokio::test]
async fn what_3_1_1_refuses_is_not_acknowledged() {
    let mut person = person(Version::V311).await;
    person.write(op(&person, What::Write(60)));
    let mark = op(&person, What::Read(ReadKind::Mark));
    person.read(mark).unwrap();
    for packet_id in [1, 2] {
        let topic = format!("chat/me/err/@{packet_id}");
        person.client.hear(&publish(&topic, "no"));
        person.client.hear(&ack(packet_id, ReasonCode::Success));
    }
    person.handle_packets().unwrap();
    let seen = &person.seen;
    assert_eq!((seen.refused, seen.acked, seen.reads), (2, 0, 0));
    assert_eq!(seen.ack.count(), 0);
    assert!(person.is_idle() && person.acked.is_empty());
}

#[tokio::test]
async fn what_was_not_begun_counts_as_long_as_it_waited() {
    let mut person = person(Version::V5).await;
    for what in [What::Write(60), What::Read(ReadKind::Last)] {
        let op = op(&person, what);
        person.take(op);
    }
    person.stop();
    assert_eq!(person.seen.unsent, 2);
    assert_eq!(person.seen.ack.count(), 1);
    assert_eq!(person.seen.read[ReadKind::Last as usize].count(), 1);
}
