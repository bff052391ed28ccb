//! What a client publishes: to the router or to the plugin, and acknowledged when it is settled.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::Connection;
use crate::acl;
use crate::codec::packet::{PacketId, Publish, Qos, Version};
use crate::codec::properties::AckProperties;
use crate::codec::reason::ReasonCode;
use crate::hooks::PublishAnswer;
use crate::journal::{Change, Waiter};
use crate::mailbox::Answer;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// `None`: the answer comes when the message is at rest.
    pub(super) fn route(
        &mut self,
        publish: Arc<Publish>,
        number: u64,
        now: Instant,
    ) -> Option<PublishAnswer> {
        let server = &self.server;
        server.metrics.publishes_received.increment();
        let permitted =
            acl::permit_publish(&*server.hooks, &self.client, &publish, &mut self.permit);
        if let Err(reason) = permitted {
            server.metrics.publishes_refused.increment();
            debug!(client = ?self.client, topic = %publish.topic, "publish not authorized");
            return Some(match reason {
                ReasonCode::NotAuthorized => refused(reason, "not authorized for this topic"),
                // The rule says not to tell.
                reason => PublishAnswer::refusal(reason),
            });
        }
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        let mut routed = server.route(publish, &mut self.publisher, now);
        if routed.no_disk {
            return Some(refused(ReasonCode::QuotaExceeded, "no disk to keep it"));
        }
        if routed.retained_refused && self.session.version() == Version::V5 {
            return Some(refused(ReasonCode::QuotaExceeded, "no room to retain it"));
        }
        if qos == Qos::ExactlyOnce
            && let (Some(packet_id), Some(session)) = (packet_id, self.durable_session())
        {
            routed.entry = routed.entry.or_else(|| server.router.open());
            if let Some(entry) = &mut routed.entry {
                entry.push(Change::Received { session, packet_id });
            }
        }
        match routed.entry {
            Some(entry) if qos > Qos::AtMostOnce => {
                let answer = Answer::Published(PublishAnswer::SUCCESS);
                entry.commit(Waiter::letter(&self.client.mailbox, number, answer));
                None
            }
            // What nobody waits for is written soon.
            _ => Some(PublishAnswer::SUCCESS),
        }
    }

    pub(super) fn hand_over(&mut self, batch: Vec<(Publish, u64)>) {
        self.server.metrics.publishes_handed_over.add(batch.len());
        let batch = batch
            .into_iter()
            .map(|(publish, number)| (publish, self.ticket(number)))
            .collect();
        let credit = self.server.hooks.on_publish(&self.client, batch);
        self.session.handle_credit(credit);
    }

    pub(super) fn release(&self, packet_id: PacketId, number: u64) {
        let ticket = self.ticket(number);
        self.server
            .hooks
            .on_release(&self.client, packet_id, ticket);
    }

    /// Notes the beginning or the end of a QoS 2 exchange, and answers when that is at rest.
    pub(super) fn note_exchange(
        &self,
        number: u64,
        answer: Answer,
        change: impl FnOnce(u64) -> Change,
    ) {
        let waiter = Waiter::letter(&self.client.mailbox, number, answer);
        match self.subscriber.number().zip(self.server.router.open()) {
            Some((session, mut entry)) => {
                entry.push(change(session));
                entry.commit(waiter);
            }
            None => waiter.tell(),
        }
    }
}

pub(super) fn refused(reason: ReasonCode, text: &'static str) -> PublishAnswer {
    PublishAnswer {
        notice: None,
        reason,
        properties: Some(Box::new(AckProperties {
            reason_string: Some(text.into()),
            ..AckProperties::default()
        })),
    }
}
