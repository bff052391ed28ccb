//! What the chat does by itself: follows accounts, retains, expires, and lets go of devices that are long away.

use std::time::Duration;

use broker::codec::reason::ReasonCode;
use proto::ids::{ConversationId, UserId};
use tokio_util::sync::CancellationToken;

use super::ChatPlugin;
use crate::accounts::{UserChange, UserEvent};
use crate::domain::audit::AuditKeep;
use crate::domain::device::{Device, SharedSubscription};
use crate::store::StoreError;

impl ChatPlugin {
    /// A changed password, a removed user or a revoked token ends the connections that rest on it.
    pub(super) async fn follow_accounts(&self, stop: CancellationToken) {
        let mut events = self.accounts.events();
        let mut minutes = tokio::time::interval(Duration::from_mins(1));
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = minutes.tick() => {
                    self.accounts.tell_untold();
                    continue;
                }
                () = stop.cancelled() => {
                    self.accounts.tell_untold();
                    return;
                }
            };
            let Some(UserEvent { user, change, at }) = event else {
                return;
            };
            if let UserChange::DeviceRevoked(id) = change {
                self.delivery.account_changed(user);
                // Its connection is closed already, but for one that was on its way in meanwhile.
                self.logins.revoked(id, at);
                for reader in self.online.of(user) {
                    if reader.device == id && self.logins.is_revoked(id, &reader.client) {
                        self.end_late(&reader);
                    }
                }
                continue;
            }
            if change == UserChange::Erased {
                self.reread_name(user).await;
                if let Err(error) = self.follow_erasure(user).await {
                    tracing::error!(%error, "what an erased user said of himself may be told on");
                }
                self.delivery.account_changed(user);
                continue;
            }
            if change == UserChange::Removed {
                self.reread_name(user).await;
                if let Err(error) = self.judge_watchers(user, None).await {
                    tracing::error!(%error, "watchers of a removed user could not be judged");
                }
                if let Some(plugin) = self.me.upgrade() {
                    self.tracker.spawn(async move {
                        plugin.see_off(user).await;
                        if let Err(error) = plugin.drop_sessions(Some(user)).await {
                            tracing::error!(%user, %error, "sessions of a removed user are still there");
                        }
                    });
                }
            }
            // Noted first: who is on the way in finds it, and who is in already is found here.
            self.logins.changed(user, at);
            for reader in self.online.of(user) {
                if self.logins.are_over(user, &reader.client) {
                    reader.client.close(ReasonCode::NotAuthorized);
                }
            }
        }
    }

    /// What a user told of himself is gone from the store: it is told to nobody any more.
    async fn follow_erasure(&self, user: UserId) -> Result<(), StoreError> {
        self.presence.forget_text(user).await?;
        self.judge_watchers(user, None).await.map(|_| ())
    }

    async fn reread_name(&self, user: UserId) {
        match self.service.store.user(user).await {
            Ok(Some(changed)) => self.service.names.changed(&changed),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a user who was changed could not be read"),
        }
    }

    pub(super) async fn maintain(&self, stop: CancellationToken) {
        const HOUR: Duration = Duration::from_hours(1);
        loop {
            if let Err(error) = self.see_off_removed().await {
                tracing::error!(%error, "removed users could not be looked for");
            }
            if let Err(error) = self.service.release_orphans().await {
                tracing::error!(%error, "cases of former agents could not be looked for");
            }
            tokio::select! {
                () = tokio::time::sleep(HOUR) => {}
                () = stop.cancelled() => return,
            }
            let now_ms = match self.service.trusted_now().await {
                Ok(Some(now_ms)) => now_ms,
                Ok(None) => {
                    tracing::error!(
                        "the clock is too far ahead of when the server ran last: nothing is removed for its age. If it is right, say so: mqchat trust-clock"
                    );
                    0
                }
                Err(error) => {
                    tracing::error!(%error, "the hourly upkeep could not begin");
                    continue;
                }
            };
            let oldest_ms = self.oldest_ms(now_ms);
            if let Err(error) = self.drop_old_devices(oldest_ms).await {
                tracing::error!(%error, "old devices could not be dropped");
            }
            let audit = self.audit_keep(now_ms);
            let upkeep = self.service.store.maintain(now_ms, oldest_ms, audit);
            if let Err(error) = upkeep.await {
                tracing::error!(%error, "the hourly upkeep of the store failed");
            }
        }
    }

    fn audit_keep(&self, now_ms: u64) -> AuditKeep {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        let config = &self.service.config;
        let kept_ms = match config.audit_days {
            0 => now_ms,
            days => u64::from(days) * DAY_MS,
        };
        AuditKeep {
            from_ms: now_ms.saturating_sub(kept_ms),
            lines_max: config.audit_lines_max.into(),
        }
    }

    /// Lets go of old messages every hour; at start only of those that are too many.
    pub(super) async fn retain(&self, stop: CancellationToken) {
        let mut is_first = true;
        let mut hours = tokio::time::interval(Duration::from_hours(1));
        hours.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hours.tick() => {}
                () = stop.cancelled() => return,
            }
            // A clock that is wrong at start may be set right meanwhile.
            let now_ms = if is_first {
                Ok(None)
            } else {
                self.service.trusted_now().await
            };
            is_first = false;
            let retained = match now_ms {
                Ok(now_ms) => self.service.retain(now_ms, &stop).await,
                Err(error) => Err(error),
            };
            match retained {
                Ok(0) => {}
                Ok(messages) => tracing::info!(messages, "old messages were removed"),
                Err(error) => tracing::error!(%error, "old messages could not be removed"),
            }
        }
    }

    /// Finishes purges that were announced: those of the time before, and those that callers have left.
    pub(super) async fn finish_purges(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.service.finish_purges(&stop).await {
                tracing::error!(%error, "a purge that was announced could not be finished");
            }
            tokio::select! {
                () = self.service.unfinished.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Users who were removed while the server did not run, or whose departure was cut off.
    async fn see_off_removed(&self) -> Result<(), StoreError> {
        const PAGE: usize = 256;
        let mut after = None;
        loop {
            let users = self.service.store.users(after, PAGE).await?;
            let Some(last) = users.last() else {
                return self.drop_sessions(None).await;
            };
            after = Some(last.id);
            for user in users.iter().filter(|user| user.removed_ms.is_some()) {
                self.see_off(user.id).await;
            }
        }
    }

    /// Makes messages gone whose time is over. Whoever reads before that sees them as gone already.
    pub(super) async fn sweep(&self, stop: CancellationToken) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
                () = stop.cancelled() => return,
            }
            // Whoever reads goes by the clock as it is; but nothing goes for ever by one that may be wrong.
            let now_ms = match self.service.trusted_now().await {
                Ok(Some(now_ms)) => now_ms,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "messages whose time is over could not be removed");
                    return; // the store takes nothing more
                }
            };
            // A large number goes in many commits, with those of others between.
            while !stop.is_cancelled() {
                match self.service.store.expire(now_ms).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "messages whose time is over could not be removed");
                        if error.is_damage() {
                            break; // the next ones at the next tick
                        }
                        return; // the store takes nothing more
                    }
                }
            }
        }
    }

    /// Retention has changed in a conversation: what is over the limit need not wait for the hour.
    pub(super) fn retain_soon(&self, conversation: ConversationId) {
        let Some(plugin) = self.me.upgrade() else {
            return;
        };
        self.tracker.spawn(async move {
            let retained = plugin.service.retain_in(conversation, &plugin.stop);
            if let Err(error) = retained.await {
                tracing::error!(%conversation, %error, "old messages could not be removed");
            }
        });
    }

    /// Takes a removed user out of all groups; what fails is tried again within the hour.
    async fn see_off(&self, user: UserId) {
        let departed = tokio::select! {
            departed = self.service.depart(user) => departed,
            () = self.stop.cancelled() => return,
        };
        match departed {
            Ok(0) => {}
            Ok(groups) => tracing::info!(%user, groups, "a removed user has left the groups"),
            Err(error) => tracing::error!(%user, %error, "a removed user is still in groups"),
        }
    }

    /// Devices that have not been seen for so long that their cursors are not kept any more.
    async fn drop_old_devices(&self, oldest_ms: u64) -> Result<(), StoreError> {
        const PAGE: usize = 256;
        let store = &self.service.store;
        let mut after = None;
        loop {
            let users = store.users(after, PAGE).await?;
            let Some(last) = users.last() else {
                return Ok(());
            };
            after = Some(last.id);
            for user in users {
                self.keep_shared_positions(user.id, oldest_ms).await?;
                for device in store.devices(user.id).await? {
                    let connected = self
                        .online
                        .of(user.id)
                        .iter()
                        .any(|reader| reader.device == device.id);
                    if self.seen_ms(&device) < oldest_ms && !connected {
                        self.forget_positions(user.id, device.id, &device.subscriptions)
                            .await?;
                        store.remove_device(user.id, device.id).await?;
                    }
                }
            }
        }
    }

    /// Shared subscriptions that somebody holds are kept, the others for as long as the cursors of a device.
    async fn keep_shared_positions(&self, user: UserId, oldest_ms: u64) -> Result<(), StoreError> {
        let store = &self.service.store;
        for shared in store.shared(user).await? {
            if self
                .delivery
                .shared
                .find(shared.conversation, shared.id)
                .is_some()
            {
                let seen_ms = crate::clock::now_ms();
                let _is_known = store
                    .put_shared(SharedSubscription { seen_ms, ..shared }, usize::MAX)
                    .await?;
            } else if shared.seen_ms < oldest_ms {
                store.remove_shared(user, shared.id).await?;
            }
        }
        Ok(())
    }

    /// Who has not been seen since then is not waited for any longer.
    fn oldest_ms(&self, now_ms: u64) -> u64 {
        let kept_ms = u64::from(self.service.config.cursor_days) * 24 * 3_600 * 1_000;
        now_ms.saturating_sub(kept_ms)
    }

    /// When a device that is not connected was seen last. One that was when the server was killed is noted as connected,
    /// with the time of its coming: it went when the server did.
    pub(super) fn seen_ms(&self, device: &Device) -> u64 {
        if device.connected {
            return device.last_seen_ms.max(self.started_ms);
        }
        device.last_seen_ms
    }
}

/// Is the session over that was last seen then?
pub(super) fn is_expired(session_expiry: u32, seen_ms: u64, now_ms: u64) -> bool {
    let lasts_ms = u64::from(session_expiry) * 1_000;
    session_expiry != u32::MAX && now_ms > seen_ms.saturating_add(lasts_ms)
}
