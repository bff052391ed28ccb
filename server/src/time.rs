//! Points in time as people write and read them.

use std::fmt;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// Reads `2026-11-21`, `2026-11-21T05:40:00Z`, or how long ago: `90m`, `36h`, `7d`. In ms since 1970.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_at(text, chat_plugin::clock::now_ms())
}

fn parse_at(text: &str, now_ms: u64) -> Result<u64, String> {
    let wrong = || "not 2026-11-21, 2026-11-21T05:40:00Z, 90m, 36h or 7d".to_owned();
    for (unit, ms) in [('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)] {
        if let Some(count) = text.strip_suffix(unit) {
            let count: u64 = count.parse().map_err(|_| wrong())?;
            return Ok(now_ms.saturating_sub(count.saturating_mul(ms)));
        }
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
        .map_err(|_| wrong())?;
    let ms = moment.unix_timestamp_nanos() / 1_000_000;
    u64::try_from(ms).map_err(|_| wrong())
}

/// Milliseconds since 1970 as `2026-11-21T05:40:00Z`.
pub(crate) struct Utc(pub(crate) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX);
        let moment = OffsetDateTime::from_unix_timestamp(seconds);
        match moment.ok().and_then(|moment| moment.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            // After the year 9999.
            None => write!(f, "{} ms after 1970", self.0),
        }
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
        assert_eq!(
            Utc(u64::MAX).to_string(),
            format!("{} ms after 1970", u64::MAX)
        );
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
            ("2001-09-09T03:46:40+02:00", 1_000_000_000),
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
