//! Random lives of a client: connections break at any moment, answers and acknowledgements come in any order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Publish(bool, Qos),
    Deliver(Qos),
    ToServer(u8),
    ToClient(u8),
    Answer(u8),
    Acknowledge(u8),
    Break,
    /// So many changes become durable.
    Commit(u8),
    Crash,
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), qos()).prop_map(|(plugin, qos)| Step::Publish(plugin, qos)),
        4 => qos().prop_map(Step::Deliver),
        6 => (1..4_u8).prop_map(Step::ToServer),
        6 => (1..4_u8).prop_map(Step::ToClient),
        3 => any::<u8>().prop_map(Step::Answer),
        3 => any::<u8>().prop_map(Step::Acknowledge),
        1 => Just(Step::Break),
    ]
}

fn step_at_rest() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => step(),
        8 => (1..5_u8).prop_map(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

/// What was said, and at which QoS, in order.
#[derive(Default)]
struct Said {
    by_client: Vec<(u32, Qos)>,
    /// What the client said to the plugin.
    to_plugin: HashSet<u32>,
    by_server: Vec<(u32, Qos)>,
}

fn perform(pair: &mut Pair, said: &mut Said, step: &Step) {
    let number = u32::try_from(said.by_client.len() + said.by_server.len()).unwrap();
    match step {
        Step::Publish(plugin, qos) => {
            said.by_client.push((number, *qos));
            if *plugin {
                said.to_plugin.insert(number);
            }
            let topic = if *plugin { "plug/t" } else { "t" };
            let packet = pair.client.publish(topic, *qos, number);
            pair.to_server.extend(packet);
        }
        Step::Deliver(qos) => {
            said.by_server.push((number, *qos));
            pair.deliver(number, *qos);
        }
        Step::ToServer(count) => {
            for _ in 0..*count {
                pair.step_server();
            }
        }
        Step::ToClient(count) => {
            for _ in 0..*count {
                pair.step_client();
            }
        }
        Step::Answer(pick) if !pair.tickets.is_empty() => {
            let place = usize::from(*pick) % pair.tickets.len();
            pair.answer(place);
        }
        Step::Acknowledge(pick) if !pair.client.due.is_empty() => {
            let place = usize::from(*pick) % pair.client.due.len();
            let packet = pair.client.acknowledge(place);
            pair.to_server.push_back(packet);
        }
        Step::Answer(_) | Step::Acknowledge(_) => {}
        Step::Break => {
            pair.disconnect();
            pair.connect();
        }
        Step::Commit(count) => {
            pair.commit((*count).into());
        }
        Step::Crash => pair.crash(),
    }
}

/// Every message came as often as its QoS allows, first copies in order.
fn check(said: &[(u32, Qos)], heard: &[u32]) -> Result<(), TestCaseError> {
    for (number, qos) in said {
        let times = heard.iter().filter(|it| *it == number).count();
        match qos {
            Qos::AtMostOnce => prop_assert!(times <= 1, "{} came {} times", number, times),
            Qos::AtLeastOnce => prop_assert!(times >= 1, "{} was lost", number),
            Qos::ExactlyOnce => prop_assert_eq!(times, 1, "{} came {} times", number, times),
        }
    }
    let mut seen = HashSet::new();
    let first: Vec<u32> = heard
        .iter()
        .copied()
        .filter(|it| seen.insert(*it))
        .collect();
    for same_qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let of_qos = |number: &u32| said.contains(&(*number, same_qos));
        let order: Vec<u32> = first.iter().copied().filter(of_qos).collect();
        prop_assert!(
            order.is_sorted(),
            "{:?} out of order: {:?}",
            same_qos,
            order
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_message_arrives_as_often_as_its_qos_says(
        five: bool,
        receive_maximum in 1..6_u16,
        pending_max in 1..10_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let version = if five { Version::V5 } else { Version::V311 };
        let mut pair = Pair::new(version, |config| {
            config.receive_maximum = receive_maximum;
            config.pending_publishes_max = pending_max;
            config.inflight_max = 4;
        });
        let mut said = Said::default();
        for step in &steps {
            perform(&mut pair, &mut said, step);
        }
        pair.run();
        prop_assert_eq!(pair.error, None);
        check(&said.by_client, &pair.accepted)?;
        check(&said.by_server, &pair.client.received)?;
        // Nothing is left over.
        prop_assert!(pair.client.sent.is_empty() && pair.client.waiting.is_empty());
        prop_assert!(pair.plugin_exchanges.is_empty());
        prop_assert!(pair.session().is_settled());
        prop_assert_eq!(pair.session().window(), 4);
        prop_assert_eq!(pair.session().state.received.counted(), 0);
    }

    #[test]
    fn a_session_at_rest_keeps_its_promises_over_crashes(
        five: bool,
        receive_maximum in 1..6_u16,
        steps in prop::collection::vec(step_at_rest(), 0..250),
    ) {
        let version = if five { Version::V5 } else { Version::V311 };
        let mut pair = Pair::at_rest(version, |config| {
            config.receive_maximum = receive_maximum;
            config.inflight_max = 4;
        });
        let mut said = Said::default();
        for step in &steps {
            perform(&mut pair, &mut said, step);
        }
        pair.run();
        prop_assert_eq!(pair.error, None);
        // The plugin has a store of its own: between its topics and ours there is no order over a crash.
        for plugin in [false, true] {
            let is_ours = |number: u32| said.to_plugin.contains(&number) == plugin;
            let by_client = said.by_client.iter().copied().filter(|it| is_ours(it.0));
            let accepted = pair.accepted.iter().copied().filter(|it| is_ours(*it));
            check(&by_client.collect::<Vec<_>>(), &accepted.collect::<Vec<_>>())?;
        }
        let lost = std::mem::take(&mut pair.disk.as_mut().unwrap().lost);
        said.by_server.retain(|(number, _)| !lost.contains(number));
        check(&said.by_server, &pair.client.received)?;
        // QoS 1 does not overtake what waits to be at rest.
        let mut seen: HashSet<u32> = said.by_server.iter().filter(|it| it.1 == Qos::AtMostOnce).map(|it| it.0).collect();
        let first: Vec<u32> = pair.client.received.iter().copied().filter(|it| seen.insert(*it)).collect();
        prop_assert!(first.is_sorted(), "out of order: {first:?}");
        prop_assert!(pair.client.sent.is_empty() && pair.client.waiting.is_empty());
        prop_assert!(pair.session().is_settled());
        prop_assert_eq!(pair.session().window(), 4);
        // Crashed again, nothing comes again.
        let heard = pair.client.received.len();
        let accepted = pair.accepted.len();
        pair.crash();
        pair.run();
        prop_assert_eq!((pair.client.received.len(), pair.accepted.len()), (heard, accepted));
    }

    #[test]
    fn acks_leave_in_the_order_of_arrival(
        publishes in prop::collection::vec((any::<bool>(), 1..3_u8), 1..20),
        answers in prop::collection::vec(any::<u8>(), 20),
    ) {
        let mut pair = Pair::connected(Version::V5);
        let mut sent = Vec::new();
        for (number, (plugin, qos)) in (0..).zip(publishes) {
            let qos = if qos == 1 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
            let topic = if plugin { "plug/t" } else { "t" };
            let packet = pair.client.publish(topic, qos, number).unwrap();
            if let Packet::Publish(publish) = &packet {
                sent.extend(publish.packet_id);
            }
            pair.send(packet);
        }
        for answer in answers {
            if !pair.tickets.is_empty() {
                let place = usize::from(answer) % pair.tickets.len();
                pair.answer(place);
            }
        }
        while pair.step_client() {}
        prop_assert_eq!(&pair.client.acks, &sent);
    }
}
