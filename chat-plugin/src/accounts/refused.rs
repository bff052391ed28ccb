//! Refused logins: counted, and in the log, who, from where, why; a bounded number of lines, and the number of the rest.

use std::sync::{Mutex, MutexGuard, PoisonError};

use broker::hooks::AuthenticateRequest;
use broker::metrics::Counter;
use proto::quote::shown;
use tokio::time::Instant;

use super::AuthError;
use crate::rate::{Bucket, Rate};

/// Lines per second, and at once: enough to see who it is, too few to fill a disk.
const LINES: Rate = Rate::per_s(10, 10);

/// Tells of refused logins.
pub(super) struct RefusedLogins {
    lines: Mutex<Lines>,
    /// All of them.
    pub(super) count: Counter,
}

struct Lines {
    bucket: Bucket,
    untold: u64,
}

impl Default for RefusedLogins {
    fn default() -> Self {
        Self {
            lines: Mutex::new(Lines {
                bucket: Bucket::new(LINES),
                untold: 0,
            }),
            count: Counter::default(),
        }
    }
}

impl RefusedLogins {
    /// A login was refused. What the client wrote is shown short and harmless; the password not at all.
    pub(super) fn tell(
        &self,
        name: Option<&str>,
        request: &AuthenticateRequest,
        error: &AuthError,
        now: Instant,
    ) {
        self.count.increment();
        if !self.has_room(now) {
            return;
        }
        let user = name.map(shown).unwrap_or_default();
        tracing::info!(
            user,
            client_id = shown(&request.client_id),
            address = %request.peer,
            reason = %error,
            "login refused"
        );
    }

    /// Says how many were refused without a line of their own since this was said last.
    pub(super) fn tell_untold(&self) {
        let count = std::mem::take(&mut self.lock().untold);
        if count > 0 {
            tracing::info!("login refused: {count} more in the last minute");
        }
    }

    fn has_room(&self, now: Instant) -> bool {
        let mut lines = self.lock();
        let has_room = lines.bucket.take(now).is_ok();
        if !has_room {
            lines.untold += 1;
        }
        has_room
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_a_second_have_room_and_the_rest_is_counted() {
        let refused = RefusedLogins::default();
        let start = clock::monotonic();
        let told = |from: Instant| (0..1_000).filter(|_| refused.has_room(from)).count();
        assert_eq!(told(start), 10);
        assert_eq!(told(start + Duration::from_secs(1)), 10);
        assert_eq!(refused.lock().untold, 1_980);
        refused.tell_untold();
        assert_eq!(refused.lock().untold, 0);
    }
}
