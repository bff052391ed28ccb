//! The open loop's clock: a thread of its own, since the runtime's timers are only exact to a millisecond.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::schedule::Schedule;

/// Gives ticks at a rate until the schedule stops, or this is dropped.
#[derive(Debug)]
pub(super) struct Pacer {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// When number `number` of all is due.
pub(super) fn due_at(schedule: &Schedule, rate: u32, number: u64) -> u64 {
    schedule.start + number * 1_000_000_000 / u64::from(rate)
}

impl Pacer {
    /// `tick` is called when each is due, with its time.
    pub(super) fn start(
        rate: NonZeroU32,
        schedule: Schedule,
        mut tick: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let pace = move || {
            sharpen_timer();
            for number in 0.. {
                let due_at = due_at(&schedule, rate.get(), number);
                if due_at >= schedule.stop || stop.load(Ordering::Relaxed) {
                    return;
                }
                let wait = due_at.saturating_sub(schedule.clock.nanos());
                if wait > 0 {
                    std::thread::sleep(Duration::from_nanos(wait));
                }
                tick(due_at);
            }
        };
        Self {
            stopped,
            thread: Some(std::thread::spawn(pace)),
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread would show as a rate that is not kept.
            drop(thread.join());
        }
    }
}

/// Linux lets a sleep last 50 µs longer than asked, unless the thread wants less. Where that cannot be changed,
/// `generator_lag` of the report shows it.
fn sharpen_timer() {
    if let Ok(thread) = std::fs::read_link("/proc/thread-self")
        && let Some(id) = thread.file_name().and_then(|id| id.to_str())
    {
        drop(std::fs::write(format!("/proc/{id}/timerslack_ns"), "1"));
    }
}
