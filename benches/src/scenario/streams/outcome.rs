//! What all tasks of a run have seen, as a report.

use broker::codec::packet::Qos;

use super::args::LoadArgs;
use super::publisher::PublisherSeen;
use super::subscriber::SubscriberSeen;
use super::{Shape, Topics};
use crate::report::{self, Latency, Report, Value, float};
use crate::scenario::schedule::Used;

/// Everything together.
pub(super) struct Outcome<'a> {
    pub(super) args: &'a LoadArgs,
    pub(super) shape: Shape,
    pub(super) published: PublisherSeen,
    pub(super) delivered: SubscriberSeen,
    pub(super) used: Used,
}

impl Outcome<'_> {
    pub(super) fn report(&self, name: &'static str) -> Report {
        let (published, delivered) = (&self.published, &self.delivered);
        let seconds = f64::from(self.args.seconds.get());
        let per_second = |count: u64| Value::Rate(float(count) / seconds);
        let (publishers, subscribers) = (self.shape.streams(), self.shape.subscribers());
        let each = self.shape.subscribers_each as u64;
        let mut report = Report::new(name);
        report.value("publishers", Value::Count(publishers as u64));
        report.value("subscribers", Value::Count(subscribers as u64));
        report.value("payload_bytes", Value::Count(self.args.payload as u64));
        report.value("sent", Value::Count(published.sent));
        report.value("acked", Value::Count(published.acked));
        report.value("delivered", Value::Count(delivered.delivered));
        if let Some(rate) = self.args.rate {
            report.value("offered_per_s", Value::Count(rate.get().into()));
            let deliveries = u64::from(rate.get()) * each;
            report.value("offered_deliveries_per_s", Value::Count(deliveries));
        }
        report.value("sent_per_s", per_second(published.sent_measured));
        report.value("acked_per_s", per_second(published.acked_measured));
        report.value("delivered_per_s", per_second(delivered.delivered_measured));
        self.latencies(&mut report);
        report.value("lost", Value::Count(delivered.lost));
        report.value("late", Value::Count(delivered.late));
        report.value("misdelivered", Value::Count(delivered.misdelivered));
        report.value("duplicates", Value::Count(delivered.duplicates));
        report.value("reordered", Value::Count(delivered.reordered));
        report.value("refused", Value::Count(published.refused));
        report.value("unacked", Value::Count(published.unacked));
        report.value("unsent", Value::Count(published.unsent));
        let per_delivered = ("server_cpu_us_per_delivered", delivered.delivered_measured);
        self.used.tell(per_delivered, &mut report);
        self.judge(&mut report);
        report
    }

    /// What was due and not sent counts as long as it waited: else who is far behind would look fast.
    fn latencies(&self, report: &mut Report) {
        let (mut ack, mut delivery) = (self.published.ack.clone(), self.delivered.delivery.clone());
        if self.args.qos > Qos::AtMostOnce {
            ack.add(&self.published.kept_back);
        }
        if self.published.kept_back.count() > 0 {
            for _ in 0..self.shape.subscribers_each {
                delivery.add(&self.published.kept_back);
            }
        }
        report.latency("ack", &ack);
        report.latency("delivery", &delivery);
        report.latency("send_lag", &self.published.lag);
        report.latency("generator_lag", &self.published.own_lag);
        if let Some(rate) = self.args.expected_rate {
            // Each place of a window waits for its ack: so many seconds were intended between two of its messages.
            let places = self.shape.streams() as u64 * u64::from(self.args.window.get());
            let interval = places * 1_000_000_000 / u64::from(rate.get());
            let corrected = |latency: &Latency| latency.corrected(interval);
            report.latency("ack_corrected", &corrected(&ack));
            report.latency("delivery_corrected", &corrected(&delivery));
        }
    }

    fn judge(&self, report: &mut Report) {
        let (published, delivered) = (&self.published, &self.delivered);
        if let Some(reason) = published.first_refusal {
            report.note(format!("first refusal: {reason:?}"));
        }
        if published.unsent > 0 {
            let unsent = published.unsent;
            report.note(format!(
                "behind the rate: {unsent} messages were due and not sent"
            ));
        }
        if published.stalls > 0 {
            let stalls = published.stalls;
            report.note(format!(
                "{stalls} times a window of QoS 0 messages did not arrive"
            ));
        }
        if delivered.foreign > 0 {
            let foreign = delivered.foreign;
            report.note(format!("{foreign} messages of an earlier run were waiting"));
        }
        if delivered.delivered == 0 && self.shape.topics == Topics::Chat {
            report.note("nothing came: is it mqchat?".to_owned());
        }
        let certain = self.args.qos > Qos::AtMostOnce;
        report.fault_if(
            certain && delivered.lost > 0,
            "acknowledged messages were lost",
        );
        report.fault_if(certain && delivered.late > 0, report::LATE);
        report.fault_if(
            delivered.unjudged > 0,
            "nobody told what was acknowledged: loss was not judged",
        );
        report.fault_if(
            delivered.misdelivered > 0,
            "messages came to who must not have them",
        );
        report.fault_if(delivered.duplicates > 0, "messages came twice");
        report.fault_if(delivered.reordered > 0, "messages came out of order");
        report.fault_if(published.refused > 0, "publishes were refused");
        report.fault_if(published.unacked > 0, "publishes were not acknowledged");
        report.fault_if(delivered.delivered == 0, "nothing was delivered");
        report.checks(if certain {
            report::ALL_CAME
        } else {
            report::IN_ORDER
        });
    }
}
