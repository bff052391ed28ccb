//! Points in time as people write and read them.

use std::fmt;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Reads `2026-11-21`, `2026-11-21T05:40:00Z`, or how long ago: `90m`, `36h`, `7d`. In ms since 1970.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_at(text, chat_plugin::clock::now_ms())
}

fn parse_at(text: &str, now_ms: u64) -> Result<u64, String> {
    let wrong = || "not 2026-11-21, 2026-11-21T05:40:00Z, 90m, 36h or 7d".to_owned();
    for (unit, ms) in [('m', 60_000), ('h', 3_600_000), ('d', DAY_MS)] {
        if let Some(count) = text.strip_suffix(unit) {
            let count: u64 = count.parse().map_err(|_| wrong())?;
            return Ok(now_ms.saturating_sub(count.saturating_mul(ms)));
        }
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z').ok_or_else(wrong)?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-').ok_or_else(wrong)?;
    let [hour, minute, second] = numbers(time, ':').ok_or_else(wrong)?;
    let fits = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (hour < 24 && minute < 60 && second < 60);
    if !fits {
        return Err(wrong());
    }
    let ms = days_to(year, month, day) * DAY_MS + (hour * 3_600 + minute * 60 + second) * 1_000;
    // Of a day that the month has not, another one comes back.
    if Utc(ms).to_string().starts_with(date) {
        Ok(ms)
    } else {
        Err(wrong())
    }
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| is_number)
    });
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Days from 1970 to a date. Years from March on, in eras of 400 years: the leap day comes last (Hinnant, «chrono-compatible
/// date algorithms»).
fn days_to(year: u64, month: u64, day: u64) -> u64 {
    let (year, from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Milliseconds since 1970 as `2026-11-21T05:40:00Z`.
pub(crate) struct Utc(pub(crate) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Years from March on, in eras of 400 years: the leap day comes last (Hinnant, «chrono-compatible date algorithms»).
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shown_as_a_date() {
        let shown = |seconds: u64| Utc(seconds * 1_000 + 999).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn what_is_shown_can_be_read() {
        let now = 4_107_542_400_000;
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-28T23:59:59Z", 951_782_399),
            ("2000-02-29", 951_782_400),
            ("2001-09-09T01:46:40Z", 1_000_000_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("90m", 4_107_542_400 - 5_400),
            ("2h", 4_107_542_400 - 7_200),
            ("1d", 4_107_542_400 - 86_400),
        ] {
            assert_eq!(parse_at(text, now), Ok(seconds * 1_000), "{text}");
        }
        for bad in [
            "",
            "today",
            "2026-13-01",
            "2026-00-01",
            "2026-02-30",
            "2026-11-21T05:40",
            "1969-12-31",
            "2026-11-21T24:00:00Z",
            "-1d",
            "+2026-11-21",
            "2026-11-21-1",
            "99999999999999999999d",
        ] {
            assert!(parse_at(bad, now).is_err(), "{bad}");
        }
    }
}
