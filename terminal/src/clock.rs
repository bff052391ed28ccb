//! The one place where this client reads the clock, and how time is told to people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// The wall clock, in ms since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the clock is read"
)]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Waits.
pub(crate) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Where the user lives.
#[derive(Clone, Debug)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    /// What the system says; UTC if it says nothing.
    pub(crate) fn of_system() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    #[cfg(test)]
    pub(crate) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// `23:14`.
    pub(crate) fn time(&self, ms: u64) -> String {
        self.format(ms, "%H:%M")
    }

    /// `2026-11-21 23:14`.
    pub(crate) fn minute(&self, ms: u64) -> String {
        self.format(ms, "%Y-%m-%d %H:%M")
    }

    /// `Saturday, 21 November 2026`.
    pub(crate) fn day_in_words(&self, ms: u64) -> String {
        self.format(ms, "%A, %-d %B %Y")
    }

    /// On which day it is.
    pub(crate) fn day(&self, ms: u64) -> Option<Date> {
        Some(timestamp(ms)?.to_zoned(self.0.clone()).date())
    }

    fn format(&self, ms: u64, form: &str) -> String {
        let told = timestamp(ms).map(|ts| ts.to_zoned(self.0.clone()).strftime(form).to_string());
        told.unwrap_or_else(|| "?".to_owned())
    }
}

/// Of a time that can be told: to the year 9999.
fn timestamp(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_words() {
        let zone = Zone::utc();
        assert_eq!(zone.time(1_764_000_000_000), "16:00");
        assert_eq!(
            zone.day_in_words(1_764_000_000_000),
            "Monday, 24 November 2025"
        );
        assert_eq!(zone.time(u64::MAX), "?");
        assert_eq!(zone.day(0), zone.day(86_399_999));
        assert_ne!(zone.day(0), zone.day(86_400_000));
    }
}
