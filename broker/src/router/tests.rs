//! What subscribers get of what is published.

use std::collections::HashMap;

use bytes::Bytes;

use super::receivers::RECENT_RECEIVERS_MAX;
use super::*;
use crate::clock;
use crate::codec::packet::{RetainHandling, SubscribeFilter};
use crate::codec::properties::PublishProperties;
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::journal::Change;

fn publish(topic: &'static str, qos: Qos) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: None,
        payload: Bytes::from_static(b"hi"),
        properties: PublishProperties::default().into(),
    }
}

fn filter(text: &'static str, qos: Qos) -> SubscribeFilter {
    SubscribeFilter {
        filter: TopicFilter::parse(text.into()).unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

fn subscribed(router: &Router, filters: &[(&'static str, Qos, Option<u32>)]) -> Subscriber {
    let mut subscriber = Subscriber::default();
    for (text, qos, identifier) in filters {
        subscribe(&mut subscriber, router, filter(text, *qos), *identifier).unwrap();
    }
    subscriber
}

fn subscribe(
    subscriber: &mut Subscriber,
    router: &Router,
    wanted: SubscribeFilter,
    identifier: Option<u32>,
) -> Result<ReasonCode, ReasonCode> {
    let mut asked = Vec::new();
    let reason = subscriber.subscribe(router, wanted, identifier, &mut asked, &mut None);
    let mut finding = router.find_retained(asked);
    while !subscriber.queue_retained(router, &mut finding, clock::now(), &mut None) {}
    reason
}

fn received(subscriber: &Subscriber) -> Vec<Queued> {
    let mut taken = Vec::new();
    if let Some(queue) = subscriber.queue() {
        queue.take(usize::MAX, usize::MAX, &mut taken);
    }
    taken
}

fn send(router: &Router, publisher: &mut Publisher, publish: Publish) -> Routed {
    router.publish(Arc::new(publish), publisher, clock::now())
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers_at_the_highest_qos() {
    let router = Router::new(&Config::default());
    let subscriber = subscribed(
        &router,
        &[
            ("a/+", Qos::AtLeastOnce, Some(1)),
            ("a/#", Qos::AtMostOnce, Some(2)),
        ],
    );
    let mut publisher = Publisher::default();
    send(&router, &mut publisher, publish("a/b", Qos::ExactlyOnce));
    let got = received(&subscriber);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].qos, Qos::AtLeastOnce);
    let mut identifiers = got[0].subscription_identifiers.clone();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2]);
}

#[test]
fn no_local_keeps_my_own_messages_from_me() {
    let router = Router::new(&Config::default());
    let mut subscriber = Subscriber::default();
    let mut wanted = filter("a", Qos::AtMostOnce);
    wanted.no_local = true;
    subscribe(&mut subscriber, &router, wanted, None).unwrap();
    let mut own = Publisher::default();
    own.set_queue(subscriber.queue().unwrap());
    send(&router, &mut own, publish("a", Qos::AtMostOnce));
    assert!(received(&subscriber).is_empty());
    send(
        &router,
        &mut Publisher::default(),
        publish("a", Qos::AtMostOnce),
    );
    assert_eq!(received(&subscriber).len(), 1);
}

#[test]
fn a_remembered_topic_notices_new_subscriptions_and_ended_ones() {
    let router = Router::new(&Config::default());
    let mut publisher = Publisher::default();
    send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
    let mut subscriber = subscribed(&router, &[("a", Qos::AtMostOnce, None)]);
    send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
    assert_eq!(received(&subscriber).len(), 1);
    let (reason, _) =
        subscriber.unsubscribe(&router, &filter("a", Qos::AtMostOnce).filter, &mut None);
    assert_eq!(reason, ReasonCode::Success);
    send(&router, &mut publisher, publish("a", Qos::AtMostOnce));
    assert!(received(&subscriber).is_empty());
}

#[test]
fn a_long_list_of_receivers_follows_changes_too() {
    let router = Router::new(&Config::default());
    let filters = [("a", Qos::AtMostOnce, None)];
    let mut subscribers: Vec<Subscriber> = (0..=RECENT_RECEIVERS_MAX)
        .map(|_| subscribed(&router, &filters))
        .collect();
    let mut publishers = [Publisher::default(), Publisher::default()];
    for publisher in &mut publishers {
        send(&router, publisher, publish("a", Qos::AtMostOnce));
    }
    assert!(publishers.iter().all(|it| it.recent.is_empty()));
    let mut gone = subscribers.pop().unwrap();
    gone.end(&router);
    subscribers.extend([subscribed(&router, &filters), subscribed(&router, &filters)]);
    for publisher in &mut publishers {
        send(&router, publisher, publish("a", Qos::AtMostOnce));
    }
    let counts: Vec<usize> = subscribers.iter().map(|it| received(it).len()).collect();
    let mut expected = vec![4; RECENT_RECEIVERS_MAX];
    expected.extend([2, 2]);
    assert_eq!(counts, expected);
}

#[test]
fn of_overlapping_subscriptions_no_local_silences_its_own_only() {
    let router = Router::new(&Config::default());
    let mut subscriber = subscribed(&router, &[("a/#", Qos::AtMostOnce, Some(1))]);
    let mut wanted = filter("a/b", Qos::AtLeastOnce);
    wanted.no_local = true;
    subscribe(&mut subscriber, &router, wanted, Some(2)).unwrap();
    let mut own = Publisher::default();
    own.set_queue(subscriber.queue().unwrap());
    send(&router, &mut own, publish("a/b", Qos::AtLeastOnce));
    let got = received(&subscriber);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].qos, Qos::AtMostOnce);
    assert_eq!(got[0].subscription_identifiers, [1]);
}

#[test]
fn a_full_queue_is_told() {
    let config = Config {
        queue_messages_max: 1,
        ..Config::default()
    };
    let router = Router::new(&config);
    let _subscriber = subscribed(&router, &[("a", Qos::AtLeastOnce, None)]);
    let mut publisher = Publisher::default();
    let dropped: Vec<usize> = (0..2)
        .map(|_| send(&router, &mut publisher, publish("a", Qos::AtLeastOnce)).dropped)
        .collect();
    assert_eq!(dropped, [0, 1]);
}

#[test]
fn subscriptions_and_levels_are_bounded() {
    let config = Config {
        subscriptions_max: 1,
        filter_levels_max: 2,
        ..Config::default()
    };
    let router = Router::new(&config);
    let mut subscriber = Subscriber::default();
    let mut subscribe_to = |text| {
        subscribe(
            &mut subscriber,
            &router,
            filter(text, Qos::AtMostOnce),
            None,
        )
    };
    assert_eq!(subscribe_to("a/b/c"), Err(ReasonCode::TopicFilterInvalid));
    assert_eq!(subscribe_to("a"), Ok(ReasonCode::Success));
    assert_eq!(subscribe_to("b"), Err(ReasonCode::QuotaExceeded));
    assert_eq!(subscribe_to("a"), Ok(ReasonCode::Success));
}

#[test]
fn retained_messages_come_with_the_subscription() {
    let router = Router::new(&Config::default());
    let mut retained = publish("a/b", Qos::AtLeastOnce);
    retained.retain = true;
    send(&router, &mut Publisher::default(), retained);
    let subscriber = subscribed(&router, &[("a/#", Qos::ExactlyOnce, Some(7))]);
    let got = received(&subscriber);
    assert_eq!(got.len(), 1);
    assert!(got[0].retain);
    assert_eq!(got[0].qos, Qos::AtLeastOnce);
    assert_eq!(got[0].subscription_identifiers, [7]);
}

#[test]
fn retained_messages_that_take_long_to_find_never_follow_newer_ones() {
    let router = Router::new(&Config::default());
    let mut publisher = Publisher::default();
    let mut retain = |number: usize, payload: &'static [u8]| {
        let topic = format!("many/{number:03}").leak();
        let mut retained = publish(topic, Qos::AtMostOnce);
        retained.retain = true;
        retained.payload = Bytes::from_static(payload);
        send(&router, &mut publisher, retained);
    };
    for number in 0..300 {
        retain(number, b"old");
    }
    let (mut subscriber, mut asked) = (Subscriber::default(), Vec::new());
    let wanted = filter("many/+", Qos::AtMostOnce);
    subscriber
        .subscribe(&router, wanted, None, &mut asked, &mut None)
        .unwrap();
    let mut finding = router.find_retained(asked);
    let mut go_on = || subscriber.queue_retained(&router, &mut finding, clock::now(), &mut None);
    assert!(!go_on());
    retain(0, b"new"); // was found
    retain(299, b"new"); // was not
    let mut pieces = 1;
    while !go_on() {
        pieces += 1;
    }
    assert!(pieces > 1);
    let got = received(&subscriber);
    let of = |topic: &str| -> Vec<(&[u8], bool)> {
        let messages = got.iter().filter(|queued| *queued.publish.topic == *topic);
        messages
            .map(|queued| (&*queued.publish.payload, queued.retain))
            .collect()
    };
    assert_eq!(of("many/000"), [(&b"old"[..], true), (b"new", false)]);
    assert_eq!(of("many/299"), [(&b"new"[..], false), (b"new", true)]);
    assert_eq!(got.len(), 302);
}

fn journaled(config: &Config) -> (Router, Arc<Journal>) {
    let journal = Arc::new(Journal::new(100));
    let router = Router::new(config).with_journal(Some(Arc::clone(&journal)));
    (router, journal)
}

fn at_rest(topic: &'static str, number: u64) -> Message {
    Message {
        publish: Arc::new(publish(topic, Qos::AtLeastOnce)),
        expires_at: None,
        owner: None,
        number: Some(number),
    }
}

#[test]
fn retained_messages_that_find_no_room_again_are_cleared_at_rest() {
    let (router, journal) = journaled(&Config {
        retained_messages_max: 1,
        ..Config::default()
    });
    let found = vec![at_rest("a", 1), at_rest("b", 2), at_rest("a", 3)];
    assert_eq!(router.restore_retained(found), 1);
    let mut taken = Vec::new();
    journal.take(&mut taken, Duration::ZERO, Duration::ZERO);
    let changes = taken.into_iter().flat_map(|written| written.changes);
    let cleared: Vec<u64> = changes
        .map(|change| match change {
            Change::Cleared(number) => number,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(cleared, [2, 1]);
}

#[test]
fn where_nothing_has_expired_nothing_is_journaled() {
    let (router, journal) = journaled(&Config::default());
    router.restore_retained(vec![at_rest("a", 1)]);
    let mut subscriber = Subscriber::default();
    subscriber.set_number(1);
    subscriber.set_durable(true);
    subscribe(
        &mut subscriber,
        &router,
        filter("a", Qos::AtLeastOnce),
        None,
    )
    .unwrap();
    let before = format!("{journal:?}");
    router.expire_retained(clock::now());
    let queue = subscriber.queue().unwrap();
    assert_eq!(router.expire_queued(queue, clock::now()), 0);
    assert_eq!(format!("{journal:?}"), before);
}

fn payloads(subscriber: &Subscriber) -> Vec<Bytes> {
    received(subscriber)
        .into_iter()
        .map(|queued| queued.publish.payload.clone())
        .collect()
}

fn send_numbered(router: &Router, topic: &'static str, count: usize) -> usize {
    let mut publisher = Publisher::default();
    (0..count)
        .map(|number| {
            let mut numbered = publish(topic, Qos::AtLeastOnce);
            numbered.payload = number.to_string().into();
            send(router, &mut publisher, numbered).dropped
        })
        .sum()
}

#[test]
fn members_of_a_group_take_turns() {
    let router = Router::new(&Config::default());
    let members = [1, 2, 3].map(|identifier| {
        subscribed(
            &router,
            &[("$share/g/a/+", Qos::AtLeastOnce, Some(identifier))],
        )
    });
    let other = subscribed(&router, &[("$share/h/a/+", Qos::AtMostOnce, None)]);
    send_numbered(&router, "a/b", 6);
    for (member, expected) in members.iter().zip([["0", "3"], ["1", "4"], ["2", "5"]]) {
        assert_eq!(payloads(member), expected);
    }
    assert_eq!(received(&other).len(), 6);
}

#[test]
fn a_share_gives_a_copy_beside_that_of_an_own_subscription() {
    let router = Router::new(&Config::default());
    let filters = [
        ("a", Qos::AtMostOnce, Some(1)),
        ("$share/g/a", Qos::AtLeastOnce, Some(2)),
    ];
    let subscriber = subscribed(&router, &filters);
    send_numbered(&router, "a", 1);
    let got: Vec<_> = received(&subscriber)
        .into_iter()
        .map(|it| (it.qos, it.subscription_identifiers))
        .collect();
    assert_eq!(
        got,
        [(Qos::AtMostOnce, vec![1]), (Qos::AtLeastOnce, vec![2])]
    );
}

#[test]
fn who_is_connected_and_has_room_goes_before_who_is_away_and_nobody_before_the_end() {
    let config = Config {
        queue_messages_max: 2,
        ..Config::default()
    };
    let router = Router::new(&config);
    let filters = [("$share/g/a", Qos::AtLeastOnce, None)];
    let [away, here] = [(); 2].map(|()| subscribed(&router, &filters));
    away.queue().unwrap().leave();
    assert_eq!(send_numbered(&router, "a", 2), 0);
    assert!(received(&away).is_empty());
    // The connected one is full.
    assert_eq!(send_numbered(&router, "a", 2), 0);
    assert_eq!(send_numbered(&router, "a", 1), 1);
    assert_eq!(received(&here).len(), 2);
    assert_eq!(received(&away).len(), 2);
}

#[test]
fn qos0_is_for_connected_members_only() {
    let router = Router::new(&Config::default());
    let filters = [("$share/g/a", Qos::AtMostOnce, None)];
    let away = subscribed(&router, &filters);
    away.queue().unwrap().leave();
    assert_eq!(send_numbered(&router, "a", 1), 0);
    assert!(received(&away).is_empty());
}

#[test]
fn what_waits_for_a_member_that_leaves_goes_to_another() {
    let router = Router::new(&Config::default());
    let filters = [("$share/g/a", Qos::AtLeastOnce, None)];
    let [mut leaves, mut ends, stays] = [(); 3].map(|()| subscribed(&router, &filters));
    send_numbered(&router, "a", 6);
    let (reason, left) = leaves.unsubscribe(
        &router,
        &filter("$share/g/a", Qos::AtMostOnce).filter,
        &mut None,
    );
    assert_eq!((reason, left.len()), (ReasonCode::Success, 2));
    assert_eq!(router.give_on(left, &mut None), 0);
    let left = ends.end(&router);
    assert_eq!(router.give_on(left, &mut None), 0);
    let mut got = payloads(&stays);
    got.sort_unstable();
    assert_eq!(got, ["0", "1", "2", "3", "4", "5"]);
    assert!(received(&leaves).is_empty());
}

#[test]
fn the_last_member_that_unsubscribes_keeps_what_waits_for_it() {
    let router = Router::new(&Config::default());
    let mut alone = subscribed(&router, &[("$share/g/a", Qos::AtLeastOnce, None)]);
    send_numbered(&router, "a", 2);
    let (_, left) = alone.unsubscribe(
        &router,
        &filter("$share/g/a", Qos::AtMostOnce).filter,
        &mut None,
    );
    assert!(left.is_empty());
    send_numbered(&router, "a", 1);
    assert_eq!(received(&alone).len(), 2);
    assert!(router.table.read().unwrap().groups.is_empty());
}

#[test]
fn a_shared_subscription_brings_no_retained_messages_and_may_change_its_terms() {
    let router = Router::new(&Config::default());
    let mut retained = publish("a", Qos::AtLeastOnce);
    retained.retain = true;
    send(&router, &mut Publisher::default(), retained.clone());
    let mut subscriber = subscribed(&router, &[("$share/g/a", Qos::AtLeastOnce, Some(1))]);
    assert!(received(&subscriber).is_empty());
    let mut wanted = filter("$share/g/a", Qos::AtMostOnce);
    wanted.retain_as_published = true;
    subscribe(&mut subscriber, &router, wanted, Some(2)).unwrap();
    send(&router, &mut Publisher::default(), retained);
    let got = received(&subscriber);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].qos, got[0].retain), (Qos::AtMostOnce, true));
    assert_eq!(got[0].subscription_identifiers, [2]);
}

#[test]
fn subscriptions_and_retained_messages_are_counted() {
    let router = Router::new(&Config::default());
    let filters = [
        ("a", Qos::AtMostOnce, None),
        ("a", Qos::AtLeastOnce, None),
        ("$share/g/a", Qos::AtMostOnce, None),
        ("$share/g/a", Qos::AtLeastOnce, None),
    ];
    let mut first = subscribed(&router, &filters);
    let mut second = subscribed(&router, &filters);
    for topic in ["a", "$SYS/a"] {
        let mut retained = publish(topic, Qos::AtMostOnce);
        retained.retain = true;
        send(&router, &mut Publisher::default(), retained);
    }
    let counts = |subscriptions, shared| Counts {
        subscriptions,
        shared,
        retained: 1,
    };
    assert_eq!(router.counts(), counts(4, 2));
    first.unsubscribe(
        &router,
        &filter("$share/g/a", Qos::AtMostOnce).filter,
        &mut None,
    );
    assert_eq!(router.counts(), counts(3, 1));
    first.end(&router);
    second.end(&router);
    assert_eq!(router.counts(), counts(0, 0));
}

#[test]
fn statistics_are_found_below_their_root_only_and_know_no_limit() {
    let config = Config {
        retained_messages_max: 0,
        ..Config::default()
    };
    let router = Router::new(&config);
    let mut retained = publish("$SYS/a", Qos::AtMostOnce);
    retained.retain = true;
    let routed = send(&router, &mut Publisher::default(), retained);
    assert!(!routed.retained_refused);
    let found = |text| received(&subscribed(&router, &[(text, Qos::AtMostOnce, None)])).len();
    assert_eq!(["$SYS/#", "$SYS/+", "$SYS/a"].map(found), [1; 3]);
    assert_eq!(["#", "+/a", "$SYSTEM/#"].map(found), [0; 3]);
}

mod against_a_naive_router {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SESSIONS: usize = 4;
    const FILTERS: [&str; 7] = [
        "a",
        "a/+",
        "#",
        "+/b",
        "$share/g/a/#",
        "$share/g/+",
        "$share/h/a/#",
    ];
    const TOPICS: [&str; 4] = ["a", "a/b", "c/b", "$a/b"];

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(usize, usize),
        Unsubscribe(usize, usize),
        End(usize),
        Leave(usize),
        Return(usize),
        Publish(usize),
        /// Takes one message and acknowledges it.
        Consume(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let session = 0..SESSIONS;
        let filter = 0..FILTERS.len();
        prop_oneof![
            4 => (session.clone(), filter.clone()).prop_map(|(s, f)| Step::Subscribe(s, f)),
            2 => (session.clone(), filter).prop_map(|(s, f)| Step::Unsubscribe(s, f)),
            1 => session.clone().prop_map(Step::End),
            1 => session.clone().prop_map(Step::Leave),
            1 => session.clone().prop_map(Step::Return),
            6 => (0..TOPICS.len()).prop_map(Step::Publish),
            3 => session.prop_map(Step::Consume),
        ]
    }

    /// §4.7, word by word.
    fn matches(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let topic: Vec<&str> = topic.split('/').collect();
        let filter: Vec<&str> = filter.split('/').collect();
        let exact = filter.strip_suffix(&["#"]).unwrap_or(&filter);
        let long_enough = if exact.len() < filter.len() {
            topic.len() >= exact.len()
        } else {
            topic.len() == exact.len()
        };
        long_enough && exact.iter().zip(&topic).all(|(f, t)| *f == "+" || f == t)
    }

    /// What each session, and each group, is to get: numbers of messages.
    #[derive(Default)]
    struct Model {
        filters: [HashSet<&'static str>; SESSIONS],
        own: [Vec<String>; SESSIONS],
        shared: HashMap<&'static str, Vec<String>>,
    }

    impl Model {
        fn publish(&mut self, topic: &str, number: &str) {
            for (filters, own) in self.filters.iter().zip(&mut self.own) {
                if filters.iter().any(|filter| matches(filter, topic)) {
                    own.push(number.to_owned());
                }
            }
            // None is ever empty.
            for name in FILTERS.into_iter().filter(|it| it.starts_with("$share/")) {
                if matches(name.splitn(3, '/').nth(2).unwrap(), topic) {
                    let group = self.shared.entry(name).or_default();
                    group.push(number.to_owned());
                }
            }
        }
    }

    fn text(queued: &Queued) -> String {
        String::from_utf8(queued.publish.payload.to_vec()).unwrap()
    }

    fn heard(
        queued: &Queued,
        session: usize,
        own: &mut [Vec<String>],
        shared: &mut HashMap<String, Vec<String>>,
    ) {
        match &queued.share {
            Some(name) => shared
                .entry(name.to_string())
                .or_default()
                .push(text(queued)),
            None => own[session].push(text(queued)),
        }
    }

    proptest! {
        #[test]
        fn each_session_and_one_of_each_group_gets_a_copy_and_nothing_is_lost(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let router = Router::new(&Config::default());
            let mut publisher = Publisher::default();
            let mut subscribers: [Subscriber; SESSIONS] = Default::default();
            let keeper = subscribed(&router, &FILTERS[4..].iter().map(|name| (*name, Qos::AtLeastOnce, None)).collect::<Vec<_>>());
            let mut model = Model::default();
            let mut own: [Vec<String>; SESSIONS] = Default::default();
            let mut shared: HashMap<String, Vec<String>> = HashMap::new();
            for (number, step) in steps.iter().enumerate() {
                match *step {
                    Step::Subscribe(session, place) => {
                        let wanted = filter(FILTERS[place], Qos::AtLeastOnce);
                        let subscriber = &mut subscribers[session];
                        subscribe(subscriber, &router, wanted, None).unwrap();
                        model.filters[session].insert(FILTERS[place]);
                    }
                    Step::Unsubscribe(session, place) => {
                        let ended = filter(FILTERS[place], Qos::AtLeastOnce).filter;
                        let (reason, left) = subscribers[session].unsubscribe(&router, &ended, &mut None);
                        let existed = model.filters[session].remove(FILTERS[place]);
                        prop_assert_eq!(reason == ReasonCode::Success, existed);
                        prop_assert_eq!(router.give_on(left, &mut None), 0);
                    }
                    Step::End(session) => {
                        let left = subscribers[session].end(&router);
                        prop_assert_eq!(router.give_on(left, &mut None), 0);
                        model.filters[session].clear();
                        // What waited for its own subscriptions is gone with it.
                        model.own[session].clear();
                        own[session].clear();
                    }
                    Step::Leave(session) => if let Some(queue) = subscribers[session].queue() {
                        queue.leave();
                    },
                    Step::Return(session) => if let Some(queue) = subscribers[session].queue() {
                        queue.connect();
                    },
                    Step::Publish(place) => {
                        let mut message = publish(TOPICS[place], Qos::AtLeastOnce);
                        message.payload = number.to_string().into();
                        let routed = send(&router, &mut publisher, message);
                        prop_assert_eq!(routed.dropped, 0);
                        model.publish(TOPICS[place], &number.to_string());
                    }
                    Step::Consume(session) => {
                        let mut taken = Vec::new();
                        if let Some(queue) = subscribers[session].queue() {
                            queue.take(1, 1, &mut taken);
                        }
                        for queued in &taken {
                            heard(queued, session, &mut own, &mut shared);
                        }
                    }
                }
            }
            for (session, subscriber) in subscribers.iter().chain([&keeper]).enumerate() {
                for queued in &received(subscriber) {
                    heard(queued, session, &mut own, &mut shared);
                }
            }
            prop_assert_eq!(&own, &model.own);
            for (name, expected) in &model.shared {
                let mut got = shared.remove(*name).unwrap_or_default();
                got.sort_unstable_by_key(|it| it.parse::<usize>().unwrap());
                prop_assert_eq!(&got, expected, "of {}", name);
            }
        }
    }
}
