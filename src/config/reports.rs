//! `[reports]` to settings. Pure.
//!
//! `from` turns reporting on; since an unsigned report is believed by nobody (RFC 9990 §3.1.2), it needs a `[[dkim]]` key.

use std::time::Duration;

use super::section::Section;
use super::settings::{Dkim, FailureReports, Reports};
use super::units::Wrong;
use crate::wire::address::Mailbox;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// When reports of yesterday are due: midnight has passed for everybody's clock.
const DAILY_AT: Duration = Duration::from_secs(30 * 60);
/// Rows in memory; one takes some 500 bytes with its share of the maps.
const ROWS: u64 = 200_000;

/// Reads the section.
pub(super) fn reports(mut section: Section<'_>, hostname: &str, keys: &[Dkim]) -> Reports {
    let reports = Reports {
        from: section.parsed("from", mailbox),
        reverse_path: section.parsed("reverse_path", mailbox),
        organization: section.string("organization").unwrap_or_else(|| hostname.to_owned()),
        aggregate: section.boolean("aggregate", true),
        failure: section.word("failure", &FailureReports::WORDS, &["full"]).unwrap_or(FailureReports::Off),
        failure_per_hour: section.number32("failure_per_hour", 10, 1..=100_000),
        redact: section.boolean("redact", true),
        tls: section.boolean("tls", true),
        daily_at: section.parsed("daily_at", time_of_day).unwrap_or(DAILY_AT),
        jitter: section.duration("jitter", HOUR, Duration::ZERO..=DAY / 2),
        rows: section.number("rows", ROWS, 100..=100_000_000) as usize,
        inbox: section.list("inbox", mailbox).unwrap_or_default(),
    };
    if let Some(from) = &reports.from
        && !keys.iter().any(|key| is_within(from.domain(), &key.domain))
    {
        let help = format!("make one with `weir dkim rotate {}`", from.domain());
        section.fault("from", format!("reports must be signed, and no [[dkim]] key is for {}", from.domain()), help);
    }
    section.finish();
    reports
}

fn mailbox(text: &str) -> Result<Mailbox, Wrong> {
    Mailbox::parse(text, false).map_err(|why| format!("`{text}` is no address ({why}); write \"reports@example.org\""))
}

fn is_within(name: &str, domain: &str) -> bool {
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// `HH:MM`, UTC.
fn time_of_day(text: &str) -> Result<Duration, Wrong> {
    let number = |part: &str, below: u64| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u64>().ok().filter(|value| digits && *value < below)
    };
    let parsed = text.split_once(':').and_then(|(hours, minutes)| Some((number(hours, 24)?, number(minutes, 60)?)));
    let (hours, minutes) = parsed.ok_or_else(|| format!("`{text}` is no time of day; write \"00:30\" (UTC)"))?;
    Ok(Duration::from_secs(hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_two_digits_twice() {
        assert_eq!(time_of_day("01:30"), Ok(Duration::from_secs(5400)));
        for wrong in ["1:30", "24:00", "00:60", "0130", "+1:00", ""] {
            assert!(time_of_day(wrong).is_err(), "{wrong}");
        }
    }
}
