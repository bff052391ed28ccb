//! Connections: what is there when one begins, and what stays when it ends.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use broker::codec::packet::PacketId;
use broker::codec::reason::ReasonCode;
use broker::hooks::{ClientInfo, DeliveryRef, SessionEnd, SessionOpen, SessionRestored};
use proto::ids::{DeviceId, UserId};

use super::peer::{Item, Peer, Record, Sessions};
use super::subscribe::Start;
use super::upkeep::is_expired;
use super::{ChatPlugin, LATE, size, subscribe};
use crate::delivery::progress::Departed;
use crate::delivery::reader::{Reader, ReaderLimits, Reference};
use crate::domain::device::{Device, Inflight, Subscription};
use crate::domain::support::is_visitor;
use crate::service::Actor;
use crate::store::{Durability, StoreError};

impl ChatPlugin {
    pub(super) fn peer(&self, client: &ClientInfo) -> Option<Arc<Peer>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&client.connection)
            .cloned()
    }

    pub(super) async fn open(
        &self,
        client: &Arc<ClientInfo>,
        open: SessionOpen,
    ) -> Result<SessionRestored, StoreError> {
        let Ok(user) = client.identity.user.parse::<UserId>() else {
            return Err(StoreError::Corrupt("an identity that is no user".into()));
        };
        let device_id = DeviceId::new(user, &client.client_id);
        let leaving = self.leaving().get(&device_id).cloned();
        if let Some(peer) = leaving {
            peer.departed.cancelled().await;
        }
        self.progress.settled().await; // what the connection before left is in the store now
        let config = &self.service.config;
        let limits = ReaderLimits {
            turn_entries: size(config.turn_entries),
            replies_max: size(config.rpc_pending_max),
            replay_window: wants_window(client).then_some(u64::from(config.replay_max)),
        };
        let reader = Arc::new(Reader::new(Arc::clone(client), user, device_id, limits));
        let persistent = open.session_expiry > 0;
        let token = self.tokens.remove(&device_id).map(|(_, token)| token);
        let now_ms = crate::clock::now_ms();
        let mut restored = SessionRestored::default();
        let record = match self.service.store.device(user, device_id).await? {
            None => Record {
                device: Device {
                    token,
                    ..new_device(client, (user, device_id), open.session_expiry, now_ms)
                },
                stored: false,
            },
            Some(found) => {
                let inflight = self.service.store.take_inflight(device_id).await?;
                let is_over = is_expired(found.session_expiry, self.seen_ms(&found), now_ms);
                let kept = !open.clean_start && (open.present || (!open.authoritative && !is_over));
                let seen_ms = found.receipts_ms;
                let mut device = Device {
                    token,
                    last_seen_ms: now_ms,
                    session_expiry: open.session_expiry,
                    connected: true,
                    ..found
                };
                if !kept {
                    let ended = std::mem::take(&mut device.subscriptions);
                    self.forget_positions(user, device_id, &ended).await?;
                }
                // A session that ends with this connection is over at rest from now on.
                let mut at_rest = device.clone();
                if !persistent {
                    at_rest.subscriptions.clear();
                    at_rest.connected = false;
                }
                self.put_connected(&at_rest).await?;
                if persistent && device.has_inbox {
                    reader.make_known();
                }
                if kept && !device.subscriptions.is_empty() {
                    let start = Start::Resumed {
                        seen_ms,
                        account: device.account,
                        kept: persistent,
                    };
                    restored = self.restore(&reader, &device, start, inflight).await?;
                }
                if !persistent {
                    self.forget_positions(user, device_id, &device.subscriptions)
                        .await?;
                }
                Record {
                    device,
                    stored: persistent,
                }
            }
        };
        let limits = self.rates.of(user, device_id, client.peer.ip());
        let resumed = open.present || restored.present;
        if !resumed {
            // The client has forgotten its exchanges, so their packet identifiers begin new ones.
            self.service.store.end_exchanges(device_id).await?;
        }
        let actor = Actor {
            user,
            device: device_id,
            from: Some(client.peer),
        };
        let sessions = Sessions {
            persistent,
            exchanges: persistent || resumed,
        };
        let held = record.device.subscriptions.clone();
        let handle = self.service.names.handle(user).await?;
        let is_visitor = handle.is_some_and(|handle| is_visitor(&handle));
        let peer = Peer::new(
            (actor, is_visitor),
            Arc::clone(&reader),
            sessions,
            limits,
            record,
        );
        let peer = Arc::new(peer);
        self.peers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client.connection, Arc::clone(&peer));
        self.online.insert(Arc::clone(&reader));
        self.presence.connected(user);
        self.look_again(&reader).await;
        self.watch_again(&peer, &held);
        reader.catch_up_logs();
        self.catch_up_receipts(&reader);
        if reader.has_inbox() && reader.begin_attach(false) {
            self.delivery.attach(&reader);
        }
        if self.logins.are_over(user, client) {
            client.close(ReasonCode::NotAuthorized); // changed between login and here
        }
        if self.logins.is_revoked(device_id, client) {
            self.end_late(&reader);
        }
        Ok(restored)
    }

    /// What was changed by other devices before this reader was online was told to nobody: it is read, or told, from now on.
    async fn look_again(&self, reader: &Reader) {
        reader.account().changed();
        if reader.has_inbox()
            && let Err(error) = self.service.shows(reader).await
        {
            tracing::error!(%error, user = %reader.user, "what others are told could not be looked up");
            reader.client.close(ReasonCode::ServerUnavailable);
        }
    }

    /// Brings back the subscriptions of a session at rest, and what it had in flight.
    async fn restore(
        &self,
        reader: &Arc<Reader>,
        device: &Device,
        start: Start,
        inflight: Vec<Inflight>,
    ) -> Result<SessionRestored, StoreError> {
        self.resubscribe(reader, device, start).await?;
        let known = inflight.into_iter().filter_map(|one| {
            let generation = subscribe::generation(device, one.form, one.conversation)?;
            let reference = Reference::Entry {
                slot: one.form,
                conversation: one.conversation,
                seq: one.seq,
                generation,
            };
            Some((PacketId::new(one.packet_id)?, reference))
        });
        let known: Vec<(PacketId, Reference)> = known.collect();
        let flows = self.delivery.flows_of(reader, &known).await?;
        let restored = known
            .iter()
            .map(|(packet_id, reference)| (*packet_id, reference.encode()))
            .collect();
        reader.restore(known, flows);
        Ok(SessionRestored {
            present: true,
            inflight: restored,
        })
    }

    pub(super) fn close(&self, client: &ClientInfo, end: SessionEnd) {
        let removed = self
            .peers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&client.connection);
        let Some(peer) = removed else { return };
        self.online.remove(&peer.reader);
        peer.reader.end();
        // What it has not acknowledged is for others. The position is on its way to the store.
        self.delivery
            .leave_shared(&peer.reader, peer.reader.shared(None));
        self.presence.disconnected(&peer.reader);
        peer.tasks.close();
        if peer.tasks.is_empty()
            && let Ok(record) = peer.record.try_lock()
        {
            self.depart(&peer, record.clone(), &end);
            return;
        }
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        // What was published before is still stored; the next connection of this device waits for it.
        self.leaving().insert(peer.actor.device, Arc::clone(&peer));
        self.tracker.spawn(async move {
            if tokio::time::timeout(LATE, peer.tasks.wait()).await.is_err() {
                peer.late.cancel();
                peer.tasks.wait().await;
            }
            let record = peer.record.lock().await.clone();
            plugin.depart(&peer, record, &end);
            let mut leaving = plugin.leaving();
            if leaving
                .get(&peer.actor.device)
                .is_some_and(|other| Arc::ptr_eq(other, &peer))
            {
                leaving.remove(&peer.actor.device);
            }
            drop(leaving);
            peer.departed.cancel();
        });
    }

    /// Queues work of a connection behind what it asked for before.
    pub(super) fn queue(&self, client: &ClientInfo, items: impl IntoIterator<Item = Item>) {
        let (Some(peer), Some(plugin)) = (self.peer(client), self.me.upgrade()) else {
            return;
        };
        if peer.queue(items) {
            let tasks = peer.tasks.clone();
            let work = async move { plugin.ingest(&peer).await };
            self.tracker.spawn(tasks.track_future(work));
        }
    }

    /// Positions of `…/log` subscriptions that are over.
    pub(super) async fn forget_positions(
        &self,
        user: UserId,
        device: DeviceId,
        ended: &[Subscription],
    ) -> Result<(), StoreError> {
        for position in subscribe::positions(device, ended) {
            self.service.store.remove_device(user, position).await?;
        }
        Ok(())
    }

    pub(super) fn leaving(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Peer>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a device is connected.
    async fn put_connected(&self, device: &Device) -> Result<(), StoreError> {
        self.service
            .store
            .put_device(device.clone(), Some(Vec::new()), Durability::Relaxed)
            .await
    }

    pub(super) fn depart(&self, peer: &Peer, record: Record, end: &SessionEnd) {
        if !record.stored {
            return;
        }
        let inflight = if end.discarded {
            Vec::new()
        } else {
            inflight_at_rest(&peer.reader, &end.inflight)
        };
        // Receipts that may not have arrived are told again: those since the oldest of them was handed out, or waited.
        let unsure =
            end.inflight
                .iter()
                .filter_map(|(_, reference)| match Reference::decode(reference)? {
                    Reference::State { ts_ms } => Some(ts_ms),
                    Reference::Entry { .. }
                    | Reference::Account { .. }
                    | Reference::Event { .. } => None,
                });
        let now_ms = crate::clock::now_ms();
        let unsure = unsure.chain(peer.reader.receipts_wait_since());
        let mut device = Device {
            receipts_ms: unsure.fold(now_ms, u64::min),
            account: peer.reader.account().acknowledged(),
            last_seen_ms: now_ms,
            session_expiry: end.session_expiry,
            connected: false,
            ..record.device
        };
        let ended = if end.discarded {
            std::mem::take(&mut device.subscriptions)
        } else {
            Vec::new()
        };
        let positions = subscribe::positions(device.id, &ended).collect();
        self.progress.departed(Departed {
            device,
            inflight,
            positions,
        });
    }
}

fn new_device(
    client: &ClientInfo,
    (user, id): (UserId, DeviceId),
    session_expiry: u32,
    now_ms: u64,
) -> Device {
    Device {
        id,
        user,
        client_id: client.client_id.to_string(),
        subscriptions: Vec::new(),
        session_expiry,
        has_inbox: false,
        has_queue: false,
        connected: true,
        receipts_ms: now_ms,
        account: 0,
        first_seen_ms: now_ms,
        token: None,
        last_seen_ms: now_ms,
    }
}

fn inflight_at_rest(reader: &Reader, inflight: &[(PacketId, DeliveryRef)]) -> Vec<Inflight> {
    let kept = reader.keepable(inflight).into_iter();
    let at_rest = kept.filter_map(|(packet_id, reference)| match reference {
        Reference::Entry {
            slot,
            conversation,
            seq,
            ..
        } => Some(Inflight {
            packet_id: packet_id.get(),
            conversation,
            seq,
            form: slot,
        }),
        Reference::State { .. } | Reference::Account { .. } | Reference::Event { .. } => None,
    });
    at_rest.collect()
}

/// Does the client want no more than the newest entries of those that it has missed? Asked for at CONNECT.
fn wants_window(client: &ClientInfo) -> bool {
    let mut properties = client.user_properties.iter();
    properties.any(|(name, value)| &**name == "replay" && &**value == "window")
}
