//! SUBSCRIBE and UNSUBSCRIBE, and the end of subscriptions that are no longer allowed.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, info};

use super::Connection;
use super::disconnect::End;
use crate::acl::{self, Request};
use crate::clock;
use crate::codec::packet::{Qos, SubscribeFilter};
use crate::codec::reason::ReasonCode;
use crate::codec::topic::TopicFilter;
use crate::journal::{Change, Entry, Waiter};
use crate::mailbox::Answer;
use crate::router::{Asked, Finding};
use crate::session::queue::Queued;
use crate::session::{Action, Subscribing};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn note_subscriptions(&mut self) {
        if let Some(queue) = self.subscriber.queue() {
            self.publisher.set_queue(queue);
            self.client.vitals.set_queue(queue);
        }
        let count = self.subscriber.subscriptions();
        self.client.vitals.set_subscriptions(count);
    }

    pub(super) fn subscribe(
        &mut self,
        wanted: Subscribing,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        let Subscribing {
            number, identifier, ..
        } = wanted;
        let mut entry = self.open_if_durable();
        let filters_max = self.server.config.subscriptions_max;
        let mut asked = Vec::new();
        let mut reasons = Vec::new();
        for (place, filter) in wanted.filters.into_iter().enumerate() {
            reasons.push(if place < filters_max {
                self.subscribe_one(filter, identifier, &mut asked, &mut entry)
            } else {
                // More than it may have: the same ones again, at best.
                let metrics = &self.server.metrics;
                metrics.subscriptions_over_limit.increment();
                ReasonCode::QuotaExceeded
            });
        }
        self.note_subscriptions();
        let finding = self.server.router.find_retained(asked);
        let answering = Box::new(Answering {
            number,
            reasons,
            finding,
        });
        self.queue_retained(answering, entry, now, out)
    }

    /// Goes on with the SUBSCRIBE whose retained messages are not all found.
    pub(super) fn go_on_subscribing(
        &mut self,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        if self.paused_until.is_none()
            && let Some(answering) = self.answering.take()
        {
            let entry = self.open_if_durable();
            return self.queue_retained(answering, entry, now, out);
        }
        Ok(())
    }

    /// Queues retained messages, and answers after the last one. If that takes long, others have the worker in between, and
    /// the connection reads nothing more before.
    fn queue_retained(
        &mut self,
        mut answering: Box<Answering>,
        mut entry: Option<Entry>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        let begin = clock::now();
        let router = &self.server.router;
        let finding = &mut answering.finding;
        while !self
            .subscriber
            .queue_retained(router, finding, now, &mut entry)
        {
            let end = clock::now();
            let took = end.saturating_duration_since(begin);
            if took >= MUCH_WORK {
                self.paused_until = self.paused_until.max(end.checked_add(took));
                self.answering = Some(answering);
                return Ok(());
            }
        }
        let Answering {
            number, reasons, ..
        } = *answering;
        self.answer_reasons(number, reasons, entry, out)
    }

    fn subscribe_one(
        &mut self,
        mut wanted: SubscribeFilter,
        identifier: Option<u32>,
        asked: &mut Vec<Asked>,
        entry: &mut Option<Entry>,
    ) -> ReasonCode {
        let metrics = &self.server.metrics;
        match self.permit_subscription(&wanted.filter) {
            Ok(qos_max) => wanted.qos = wanted.qos.min(qos_max),
            Err(reason) => {
                metrics.subscriptions_refused.increment();
                debug!(client = ?self.client, filter = wanted.filter.as_str(), "subscription not authorized");
                return reason;
            }
        }
        let result =
            self.subscriber
                .subscribe(&self.server.router, wanted, identifier, asked, entry);
        if result == Err(ReasonCode::QuotaExceeded) {
            metrics.subscriptions_over_limit.increment();
        }
        result.unwrap_or_else(|refusal| refusal)
    }

    fn permit_subscription(&self, filter: &TopicFilter) -> Result<Qos, ReasonCode> {
        let filter = filter.split_share().1;
        let request = Request::Subscribe { filter };
        acl::permit(&*self.server.hooks, &self.client, request)
    }

    /// Ends the subscriptions that are no longer allowed, and lowers those that are allowed less: when the rules were
    /// replaced, and when a session resumes. What was sent to the client is finished, so that its exchange ends.
    pub(super) fn judge_subscriptions(&mut self) {
        let generation = self.server.rules.generation();
        if self.judged_by == Some(generation) {
            return;
        }
        self.judged_by = Some(generation);
        let (mut over, mut lower) = (Vec::new(), Vec::new());
        for (filter, qos) in self.subscriber.granted() {
            match self.permit_subscription(filter) {
                Ok(qos_max) if qos_max < qos => lower.push((filter.clone(), qos_max)),
                Ok(_) => {}
                Err(_) => over.push(filter.clone()),
            }
        }
        if !lower.is_empty() {
            info!(client = ?self.client, count = lower.len(), "subscriptions get a lower QoS: no longer allowed");
            let mut entry = self.open_if_durable();
            for (filter, qos) in lower {
                let router = &self.server.router;
                self.subscriber.lower(router, &filter, qos, &mut entry);
            }
        }
        if over.is_empty() {
            return;
        }
        info!(client = ?self.client, count = over.len(), "subscriptions end: no longer allowed");
        self.server.metrics.subscriptions_revoked.add(over.len());
        let mut entry = self.open_if_durable();
        self.unsubscribe(&over, &mut entry);
        if let Some(queue) = self.subscriber.queue() {
            let left = self.subscriber.coverage();
            // Judged by its topic only if no subscription is left that brings it.
            let forbidden = |queued: &Queued| {
                let filter = &queued.publish.topic;
                let request = Request::Subscribe { filter };
                acl::permit(&*self.server.hooks, &self.client, request).is_err()
                    && !left.brings(queued)
            };
            let mut dropped = self.session.take_unbegun(forbidden);
            dropped.extend(queue.take_if(forbidden));
            let metrics = &self.server.metrics;
            metrics.messages_dropped_not_allowed.add(dropped.len());
            queue.settle(&dropped, entry.as_mut());
        }
    }

    pub(super) fn subscribe_plugin(&self, wanted: Subscribing) {
        let ticket = self.ticket(wanted.number);
        let Subscribing {
            filters,
            identifier,
            ..
        } = wanted;
        self.server
            .hooks
            .on_subscribe(&self.client, filters, identifier, ticket);
    }

    pub(super) fn unsubscribe(
        &mut self,
        filters: &[TopicFilter],
        entry: &mut Option<Entry>,
    ) -> Vec<ReasonCode> {
        let mut reasons = Vec::new();
        for filter in filters {
            let router = &self.server.router;
            let (reason, left) = self.subscriber.unsubscribe(router, filter, entry);
            let places: Vec<_> = left.iter().filter_map(|queued| queued.stored).collect();
            // Others may have rows at rest for what this session has none for.
            let mut given = entry.take().or_else(|| router.open());
            self.server.give_on(left, &mut given);
            if let (Some(given), Some(session)) = (&mut given, self.subscriber.number()) {
                let settled = places.into_iter().map(|at| Change::Settled { session, at });
                settled.for_each(|change| given.push(change));
            }
            *entry = given;
            reasons.push(reason);
        }
        self.note_subscriptions();
        reasons
    }

    /// The answer waits until what was asked for is at rest.
    pub(super) fn answer_reasons(
        &mut self,
        number: u64,
        reasons: Vec<ReasonCode>,
        entry: Option<Entry>,
        out: &mut Vec<Action>,
    ) -> Result<(), End> {
        let answer = Answer::Reasons(reasons);
        match entry {
            Some(entry) if !entry.is_empty() => {
                entry.commit(Waiter::letter(&self.client.mailbox, number, answer));
            }
            _ => self.session.handle_answer(number, answer, out)?,
        }
        Ok(())
    }
}

/// A SUBSCRIBE that is answered when its retained messages are found.
#[derive(Debug)]
pub(super) struct Answering {
    number: u64,
    reasons: Vec<ReasonCode>,
    finding: Finding,
}

/// After so much work for one connection others have the worker for as long.
const MUCH_WORK: Duration = Duration::from_millis(1);
