//! Sends scheduled messages when they are due, and tells their users of those that were refused.

use std::sync::Arc;
use std::time::Duration;

use proto::topics::err_topic_mid;
use tokio_util::sync::CancellationToken;

use super::{ChatPlugin, answer};
use crate::domain::scheduled::Scheduled;
use crate::service::Refusal;

/// How often is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

impl ChatPlugin {
    /// Runs until it is stopped; what is due meanwhile is sent after the next start.
    pub(super) async fn send_scheduled(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let mut more = true;
            while more && !stop.is_cancelled() {
                more = match self.service.send_due(&stop).await {
                    Ok((refused, more)) => {
                        for (scheduled, refusal) in &refused {
                            self.tell_refused(scheduled, refusal);
                        }
                        more
                    }
                    Err(error) => {
                        tracing::warn!(%error, "scheduled messages could not be sent");
                        false
                    }
                };
            }
        }
    }

    /// Tells the connections of its user that subscribed to errors.
    fn tell_refused(&self, scheduled: &Scheduled, refusal: &Refusal) {
        let (user, mid) = (scheduled.user, &scheduled.mid);
        tracing::debug!(%user, %mid, %refusal, "a scheduled message was refused");
        self.metrics.refused(refusal.name());
        let topic = format!("chat/to/{}", scheduled.target);
        for reader in self.online.of(user) {
            let Some(matched) = reader.error_subscription(mid.as_str()) else {
                continue;
            };
            // Who does not read finds it in the list.
            if reader.takes_replies() {
                let notice = answer::notice(&err_topic_mid(mid), refusal, &topic, Some(mid));
                reader.reply(Arc::new(notice), matched.qos, matched.identifiers);
            }
        }
    }
}
