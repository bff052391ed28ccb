//! Brings what was sent to broadcast lists to the direct conversations.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ChatPlugin;

/// How often is looked whether something is left, of an earlier run or of an attempt that failed.
const TICK: Duration = Duration::from_secs(1);

impl ChatPlugin {
    /// Runs until it is stopped; what is under way goes on after the next start.
    pub(super) async fn broadcast(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let more = self.service.broadcast().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a broadcast could not go on");
                false
            });
            if more {
                continue;
            }
            tokio::select! {
                () = self.service.broadcast.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
