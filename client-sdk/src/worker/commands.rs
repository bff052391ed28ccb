//! What the app asks the worker for.

use std::sync::Arc;

use rumqttc::QoS;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Command, Done, Worker, discard};
use crate::clock;
use crate::connection::{Acked, Down, Link, Outgoing};
use crate::error::Error;
use crate::events::Connection;

impl Worker {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Queued(queued) => {
                if let Some(replaced) = self.outbox.add(queued) {
                    let store = Arc::clone(&self.core.store);
                    self.jobs.push(discard(store, replaced));
                }
            }
            Command::Discard(number, reply) => self.discard(number, reply),
            Command::Connect(done) => {
                self.connect_now();
                let _ = done.send(());
            }
            Command::SignIn(login, done) => {
                let before = std::mem::replace(&mut self.login, login);
                if self.live.is_some() {
                    self.on_down(Down::Lost("another login".to_owned()));
                }
                if before.handle != self.login.handle {
                    // What one has asked for is not asked in the name of another.
                    self.calls.end(&Error::SignIn("another login".to_owned()));
                }
                // It may be somebody else.
                self.has_profile = false;
                self.connect_now();
                let _ = done.send(());
            }
            Command::Taken(taken) => self.tell(*taken),
            Command::Call(id, request, reply) => {
                let max = self.core.config.limits.calls_max;
                let paused = self.core.state.borrow().end();
                if let Some(error) = paused {
                    let _ = reply.send(Err(error));
                } else if self.calls.add(id, request, reply, max) {
                    self.ask(id);
                }
            }
            Command::Publish(outgoing, reply) => self.publish(outgoing, reply),
            Command::Hint(topic, payload) => {
                if let Some(live) = self.live.as_ref().filter(|live| live.subscribed) {
                    live.link.hint(topic, payload);
                }
            }
            Command::Watch(filter, reply) => {
                self.watches.watch(filter, reply);
                self.watch();
            }
            Command::Unwatch(filter) => {
                self.watches.unwatch(&filter);
                self.watch();
            }
        }
    }

    fn connect_now(&mut self) {
        self.backoff.reset();
        if self.live.is_none() {
            self.core.set_state(Connection::Connecting);
            self.reconnect_at = Some(clock::now());
        }
    }

    fn discard(&mut self, number: u64, reply: oneshot::Sender<Result<bool, Error>>) {
        if self.outbox.is_under_way(number) {
            let _ = reply.send(Ok(false));
            return;
        }
        self.outbox.remove(number);
        let store = Arc::clone(&self.core.store);
        self.jobs.push(Box::pin(async move {
            let done = crate::store::run(&store, move |store| store.discard(number)).await;
            let failed = done.as_ref().map(|_| ()).map_err(Clone::clone);
            let _ = reply.send(done);
            Done::Stored(failed)
        }));
    }

    pub(super) fn ask(&mut self, id: Uuid) {
        let Some(live) = self.live.as_ref().filter(|live| live.subscribed) else {
            return; // It is asked as soon as there is a connection.
        };
        let Some(request) = self.calls.request(id) else {
            return;
        };
        let client = live.link.client();
        self.jobs.push(Box::pin(async move {
            Done::Asked(id, crate::connection::publish(client, request).await)
        }));
    }

    fn publish(&mut self, outgoing: Outgoing, reply: oneshot::Sender<Result<(), Error>>) {
        let Some(live) = self.live.as_ref().filter(|live| live.subscribed) else {
            let timeout = self.core.config.limits.call_timeout;
            let _ = reply.send(Err(Error::Timeout(timeout)));
            return;
        };
        let client = live.link.client();
        let timeout = self.core.config.limits.call_timeout;
        self.jobs.push(Box::pin(async move {
            let outcome = match crate::connection::publish(client, outgoing).await {
                Acked::Done(_) => Ok(()),
                Acked::Refused(refusal) => Err(Error::Refused(refusal)),
                Acked::Lost => Err(Error::Timeout(timeout)),
            };
            let _ = reply.send(outcome);
            Done::Stored(Ok(()))
        }));
    }

    /// Asks for what the app wants to watch and the session does not have, and the other way round.
    pub(super) fn watch(&mut self) {
        let Some(live) = self.live.as_ref().filter(|live| live.subscribed) else {
            return; // As soon as there is a connection.
        };
        for filter in self.watches.left_over() {
            live.link.unsubscribe(filter);
        }
        let missing = self.watches.missing().into_iter();
        let filters: Vec<_> = missing.map(|filter| (filter, QoS::AtMostOnce)).collect();
        if filters.is_empty() {
            return;
        }
        let client = live.link.client();
        let generation = self.generation;
        self.jobs.push(Box::pin(async move {
            let answered = Link::subscribe(client, filters).await;
            Done::Watched {
                answered,
                generation,
            }
        }));
    }
}
