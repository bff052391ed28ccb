//! Everything that `/metrics` tells: one table, from which the text is made, and with which `docs/operations.md` is
//! compared.

use broker::metrics::{ByQos, Commits, Counter, Gauge, Latency, Sizes};

use super::Sources;
use super::text::{self, Kind, Sample, Value};

/// One name with its values.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Sources) -> Vec<Sample>,
}

/// All families with their values now.
pub(super) fn told(sources: &Sources) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let samples = (family.samples)(sources);
        text::write(&mut out, family.name, family.kind, family.help, samples);
    }
    out
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: fn(&Sources) -> Vec<Sample>,
) -> Family {
    family(name, Kind::Counter, help, samples)
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    samples: fn(&Sources) -> Vec<Sample>,
) -> Family {
    family(name, Kind::Gauge, help, samples)
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    samples: fn(&Sources) -> Vec<Sample>,
) -> Family {
    family(name, Kind::Histogram, help, samples)
}

const fn family(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Sources) -> Vec<Sample>,
) -> Family {
    Family {
        name,
        kind,
        help,
        samples,
    }
}

fn now(gauge: &Gauge) -> Vec<Sample> {
    vec![Sample::number(gauge.value())]
}

fn total(counter: &Counter) -> Vec<Sample> {
    vec![Sample::number(counter.value())]
}

fn by_qos(counts: &ByQos) -> Vec<Sample> {
    let counts = ["0", "1", "2"].into_iter().zip(counts.values());
    counts
        .map(|(qos, count)| Sample::number(count).labelled("qos", qos))
        .collect()
}

fn by<const N: usize>(label: &str, counts: [(&str, &Counter); N]) -> Vec<Sample> {
    counts
        .map(|(value, count)| Sample::number(count.value()).labelled(label, value))
        .into()
}

fn latency(label: &str, value: &str, latency: &Latency) -> Sample {
    distributed(label, value, Value::Latency(latency.read()))
}

fn sizes(label: &str, value: &str, sizes: &Sizes) -> Sample {
    distributed(label, value, Value::Sizes(sizes.read()))
}

fn distributed(label: &str, name: &str, value: Value) -> Sample {
    let unlabelled = Sample {
        labels: String::new(),
        value,
    };
    unlabelled.labelled(label, name)
}

fn of_stores(sources: &Sources, sample: impl Fn(&'static str, &Commits) -> Sample) -> Vec<Sample> {
    let sessions = sources.sessions.as_deref();
    let chat = sample("chat", &sources.store.metrics().commits);
    [chat]
        .into_iter()
        .chain(sessions.map(|commits| sample("sessions", commits)))
        .collect()
}

fn is(answer: bool) -> Vec<Sample> {
    vec![Sample::number(answer.into())]
}

const FAMILIES: &[Family] = &[
    gauge("mqchat_info", "Always 1; the version is a label.", |_| {
        vec![Sample::number(1).labelled("version", env!("CARGO_PKG_VERSION"))]
    }),
    gauge(
        "mqchat_ready",
        "1 if messages are taken, as /ready tells.",
        |it| is(super::readiness(it).is_ok()),
    ),
    gauge(
        "mqchat_connections",
        "Network connections that are open.",
        |it| now(&it.broker.connections_open),
    ),
    counter(
        "mqchat_connections_total",
        "Network connections accepted.",
        |it| total(&it.broker.connections_accepted),
    ),
    counter(
        "mqchat_connections_refused_total",
        "Connections that came to nothing before CONNECT, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("limit", &it.broker.connections_over_limit),
                    ("handshake", &it.broker.handshakes_failed),
                    ("accept", &it.broker.accept_errors),
                ],
            )
        },
    ),
    counter("mqchat_connects_total", "CONNECT packets accepted.", |it| {
        total(&it.broker.connects_accepted)
    }),
    counter(
        "mqchat_connects_refused_total",
        "CONNECT packets refused, or not there in time.",
        |it| total(&it.broker.connects_refused),
    ),
    counter(
        "mqchat_connects_over_rate_total",
        "CONNECT packets refused, among those, because their address connects too often.",
        |it| total(&it.broker.connects_over_rate),
    ),
    counter("mqchat_logins_refused_total", "Logins refused.", |it| {
        vec![Sample::number(it.accounts.logins_refused())]
    }),
    counter(
        "mqchat_disconnects_total",
        "Connections ended by the server, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("protocol", &it.broker.protocol_errors),
                    ("keep_alive", &it.broker.keep_alive_timeouts),
                    ("write_timeout", &it.broker.write_timeouts),
                    ("takeover", &it.broker.takeovers),
                ],
            )
        },
    ),
    gauge("mqchat_clients", "Clients that are connected.", |it| {
        now(&it.broker.clients_connected)
    }),
    gauge(
        "mqchat_sessions_away",
        "Sessions kept for clients that are away.",
        |it| now(&it.broker.sessions_kept),
    ),
    counter(
        "mqchat_sessions_ended_total",
        "Kept sessions that are over, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("expired", &it.broker.sessions_expired),
                    ("evicted", &it.broker.sessions_evicted),
                ],
            )
        },
    ),
    gauge(
        "mqchat_subscriptions",
        "Subscriptions outside chat/, by whether a group shares them.",
        |it| {
            let shared = it.broker.subscriptions_shared.value();
            let alone = it.broker.subscriptions.value().saturating_sub(shared);
            vec![
                Sample::number(alone).labelled("shared", "no"),
                Sample::number(shared).labelled("shared", "yes"),
            ]
        },
    ),
    counter(
        "mqchat_subscriptions_refused_total",
        "Subscriptions outside chat/ refused or ended, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("not_authorized", &it.broker.subscriptions_refused),
                    ("limit", &it.broker.subscriptions_over_limit),
                    ("revoked", &it.broker.subscriptions_revoked),
                ],
            )
        },
    ),
    gauge("mqchat_retained_messages", "Retained messages.", |it| {
        now(&it.broker.retained)
    }),
    counter(
        "mqchat_bytes_received_total",
        "Bytes read from clients.",
        |it| total(&it.broker.bytes_received),
    ),
    counter(
        "mqchat_bytes_sent_total",
        "Bytes written to clients.",
        |it| total(&it.broker.bytes_sent),
    ),
    counter(
        "mqchat_packets_received_total",
        "Packets received, of all kinds.",
        |it| total(&it.broker.packets_received),
    ),
    counter(
        "mqchat_packets_sent_total",
        "Packets sent, of all kinds.",
        |it| total(&it.broker.packets_sent),
    ),
    counter(
        "mqchat_messages_received_total",
        "PUBLISH packets received, by QoS.",
        |it| by_qos(&it.broker.publish_packets_received),
    ),
    counter(
        "mqchat_messages_sent_total",
        "PUBLISH packets sent, by QoS.",
        |it| by_qos(&it.broker.publish_packets_sent),
    ),
    counter(
        "mqchat_payload_bytes_received_total",
        "Bytes of the payloads received, by QoS.",
        |it| by_qos(&it.broker.publish_bytes_received),
    ),
    counter(
        "mqchat_payload_bytes_sent_total",
        "Bytes of the payloads sent, by QoS.",
        |it| by_qos(&it.broker.publish_bytes_sent),
    ),
    counter(
        "mqchat_publishes_total",
        "PUBLISH packets received, by what they are for.",
        |it| {
            by(
                "kind",
                [
                    ("chat", &it.broker.publishes_handed_over),
                    ("ordinary", &it.broker.publishes_received),
                ],
            )
        },
    ),
    counter(
        "mqchat_publishes_refused_total",
        "Publishes outside chat/ refused, or dropped where there is no refusal, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("not_authorized", &it.broker.publishes_refused),
                    ("rate", &it.broker.publishes_over_rate),
                    ("receive_maximum", &it.broker.receive_maximum_exceeded),
                    ("retained_full", &it.broker.retained_refused),
                ],
            )
        },
    ),
    counter(
        "mqchat_rate_pauses_total",
        "Connections were read no further for a while because they send too much.",
        |it| total(&it.broker.rate_pauses),
    ),
    counter(
        "mqchat_messages_dropped_total",
        "Messages outside chat/ that a session did not get, by reason.",
        |it| {
            by(
                "reason",
                [
                    ("queue_full", &it.broker.messages_dropped_queue_full),
                    ("too_large", &it.broker.messages_dropped_too_large),
                    ("expired", &it.broker.messages_dropped_expired),
                    ("not_authorized", &it.broker.messages_dropped_not_allowed),
                ],
            )
        },
    ),
    gauge(
        "mqchat_queue_messages",
        "Messages outside chat/ that wait for sessions, at the last look (every 5 s).",
        |it| now(&it.broker.queue_messages),
    ),
    gauge("mqchat_queue_bytes", "Their bytes.", |it| {
        now(&it.broker.queue_bytes)
    }),
    gauge(
        "mqchat_queue_messages_largest",
        "Messages in the longest queue.",
        |it| now(&it.broker.queue_messages_largest),
    ),
    gauge(
        "mqchat_queues_dropping",
        "Queues that dropped messages between the last two looks.",
        |it| now(&it.broker.queues_dropping),
    ),
    counter(
        "mqchat_queue_overflows_total",
        "A queue began to drop messages.",
        |it| total(&it.broker.queue_overflows),
    ),
    gauge(
        "mqchat_clients_blocked",
        "Clients that have taken nothing of what is sent to them for slow_client_s.",
        |it| now(&it.broker.clients_blocked),
    ),
    counter(
        "mqchat_client_stalls_total",
        "A client began to take nothing for so long.",
        |it| total(&it.broker.client_stalls),
    ),
    histogram(
        "mqchat_ack_seconds",
        "From receiving a PUBLISH at QoS 1 or 2 to queueing its PUBACK or PUBREC.",
        |it| {
            vec![
                latency("kind", "chat", &it.broker.ack_latency_plugin),
                latency("kind", "ordinary", &it.broker.ack_latency),
            ]
        },
    ),
    histogram(
        "mqchat_store_commit_seconds",
        "From the first row of a commit to durable.",
        |it| {
            of_stores(it, |store, commits| {
                latency("store", store, &commits.latency)
            })
        },
    ),
    histogram(
        "mqchat_store_commit_requests",
        "Requests that shared a commit.",
        |it| of_stores(it, |store, commits| sizes("store", store, &commits.batch)),
    ),
    counter(
        "mqchat_chat_entries_stored_total",
        "Lines of conversations stored.",
        |it| total(&it.store.metrics().entries),
    ),
    counter(
        "mqchat_chat_deliveries_total",
        "Messages of the chat given to clients.",
        |it| total(&it.broker.publishes_pulled),
    ),
    counter(
        "mqchat_chat_refused_total",
        "Messages of the chat refused, by the name of the error.",
        |it| {
            let refusals = it.plugin.metrics().refusals().into_iter();
            refusals
                .map(|(error, count)| Sample::number(count).labelled("error", error))
                .collect()
        },
    ),
    gauge(
        "mqchat_chat_presence_watches",
        "Subscriptions to the presence of a user.",
        |it| now(&it.plugin.metrics().presence_watches),
    ),
    counter(
        "mqchat_chat_presence_events_total",
        "States of users that watchers were told.",
        |it| total(&it.plugin.metrics().presence_events),
    ),
    counter(
        "mqchat_chat_presence_writes_total",
        "Rows written because a user went offline, or chose how to be seen.",
        |it| total(&it.plugin.metrics().presence_writes),
    ),
    counter(
        "mqchat_chat_typing_events_total",
        "Hints of typing that clients were told.",
        |it| total(&it.plugin.metrics().typing_events),
    ),
    counter(
        "mqchat_certificates_rejected_total",
        "Certificate files that could not be used.",
        |it| total(&it.broker.certificates_rejected),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Before and behind the table in `docs/operations.md`.
    const MARKS: [&str; 2] = ["<!-- metrics -->\n", "<!-- end of metrics -->"];

    fn table() -> String {
        let head = "| Name | Kind | What |\n|---|---|---|\n".to_owned();
        let lines = FAMILIES.iter().map(|family| {
            let (name, kind, help) = (family.name, family.kind.name(), family.help);
            format!("| `{name}` | {kind} | {help} |\n")
        });
        head + &lines.collect::<String>()
    }

    #[test]
    fn the_table_in_the_documentation_is_that_of_the_code() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
        let text = fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once(MARKS[0]).unwrap();
        let (written, after) = rest.split_once(MARKS[1]).unwrap();
        if std::env::var_os("BLESS").is_some() {
            let blessed = [before, MARKS[0], &table(), MARKS[1], after].concat();
            fs::write(&file, blessed).unwrap();
            return;
        }
        assert_eq!(written, table(), "BLESS=1 writes it");
    }

    #[test]
    fn alerts_are_about_what_is_told() {
        let alerts = include_str!("../../../config/alerts.yml");
        let words = alerts.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let named: BTreeSet<_> = words.filter(|it| it.starts_with("mqchat_")).collect();
        assert!(named.len() > 3, "{named:?}");
        for name in named {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(FAMILIES.iter().any(|it| it.name == family), "{name}");
        }
    }

    #[test]
    fn names_are_those_of_prometheus() {
        let names: BTreeSet<_> = FAMILIES.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), FAMILIES.len(), "each once");
        for family in FAMILIES {
            let counts = family.name.ends_with("_total");
            assert_eq!(counts, family.kind == Kind::Counter, "{}", family.name);
            let mut letters = family.name.chars();
            assert!(
                letters.all(|it| it.is_ascii_lowercase() || it == '_'),
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.') && !family.help.contains('\\'));
        }
    }
}
