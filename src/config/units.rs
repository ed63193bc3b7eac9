//! Durations, sizes, rates and other words of the configuration. Pure: text to value, or what would be right.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::settings::RateWindow;

/// Why a text is no value of its kind: a whole sentence for the person who wrote it.
pub(super) type Wrong = String;

const DURATION_UNITS_MILLIS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// Decimal units as disk makers use them, binary units as memory has them.
const SIZE_UNITS_BYTES: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Reads `5m`, `1h30m`, `1 h 30 m`, `500ms`.
/// # Errors
/// A sentence that says what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write one such as \"30s\", \"5m\", \"1h30m\" or \"5d\"");
    let mut rest = text.trim();
    let mut millis = 0u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, unit, tail) = number_and_unit(rest).ok_or_else(wrong)?;
        let (_, factor) = DURATION_UNITS_MILLIS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        millis = number.checked_mul(*factor).and_then(|more| millis.checked_add(more)).ok_or_else(wrong)?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(millis))
}

/// Reads `50 MiB`, `1GB`, `4096`.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let wrong = || format!("`{text}` is no size; write one such as \"64 KiB\", \"50 MiB\" or \"10 GiB\"");
    let (number, unit, rest) = number_and_unit(text.trim()).ok_or_else(wrong)?;
    let unit = if unit.is_empty() { "b" } else { unit }.to_ascii_lowercase();
    let (_, factor) = SIZE_UNITS_BYTES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    number.checked_mul(*factor).ok_or_else(wrong)
}

/// Splits `30 MiB rest` into 30, `MiB` and ` rest`.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    let tail = text[digits..].trim_start();
    let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
    Some((number, &tail[..unit], &tail[unit..]))
}

/// Writes a duration as [`duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS_MILLIS.iter().rev().filter(|(unit, _)| *unit != "w") {
        if millis >= *factor {
            text.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a size as [`size`] reads it, in the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = units.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    fits.map_or_else(|| format!("{bytes} B"), |(unit, factor)| format!("{} {unit}", bytes / factor))
}

/// Reads a network; a plain address is a network of one.
pub fn network(text: &str) -> Result<IpNet, Wrong> {
    let net: Option<IpNet> = text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    let net = net.ok_or_else(|| {
        format!("`{text}` is no network; write one such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.1\"")
    })?;
    if net.trunc() != net {
        return Err(format!("`{text}` has bits set behind its prefix; did you mean \"{}\"?", net.trunc()));
    }
    Ok(net)
}

/// Reads `127.0.0.1:25` or `[::1]:25`.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` is no address; write address and port such as \"127.0.0.1:25\", \"0.0.0.0:25\" or \"[::]:25\""
        )
    })
}

/// Reads `200/1h, 1000/1d`.
pub(super) fn windows(text: &str) -> Result<Vec<RateWindow>, Wrong> {
    text.split(',').map(|window| one_window(window.trim())).collect()
}

fn one_window(text: &str) -> Result<RateWindow, Wrong> {
    let wrong =
        || format!("`{text}` is no limit; write how many in how long, such as \"200/1h\" or \"200/1h, 1000/1d\"");
    let (limit, period) = text.split_once('/').ok_or_else(wrong)?;
    // "50 MiB/1h" counts bytes; a plain number is a size of so many bytes too.
    let limit = size(limit.trim()).map_err(|_| wrong())?;
    let period = duration(period).map_err(|_| wrong())?;
    if limit == 0 || period < Duration::from_secs(1) {
        return Err(format!("`{text}` limits nothing: at least 1 in at least 1s"));
    }
    Ok(RateWindow { limit, period })
}

/// Edits (insertions, deletions, replacements, neighbours swapped) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Longest word that is compared; the cost grows with its square.
const NEAREST_CHARS_MAX: usize = 64;

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > NEAREST_CHARS_MAX {
        return None;
    }
    let near = |candidate: &&str| {
        let related = candidate.len() > 3 && word.len() > 3 && (word.contains(candidate) || candidate.contains(word));
        let edits = distance(&word.to_lowercase(), candidate);
        (related || edits <= word.len().max(candidate.len()).div_ceil(3)).then_some(edits)
    };
    candidates.into_iter().filter_map(|c| near(&c).map(|edits| (edits, c))).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_written() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1 h 30 m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "5 parsecs", "m", "99999999999999999999s", "18446744073709551615w", "-5m"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["0s", "1h30m", "5d", "250ms", "1d1h1m1s1ms"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal() {
        assert_eq!(size("50 MiB"), Ok(50 << 20));
        assert_eq!(size("1kb"), Ok(1000));
        assert_eq!(size("4096"), Ok(4096));
        for text in ["", "MiB", "1 MiB 2", "1.5 GiB", "18446744073709551615 KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_have_windows() {
        let hour = RateWindow { limit: 200, period: Duration::from_secs(3600) };
        let day = RateWindow { limit: 1000, period: Duration::from_secs(86_400) };
        assert_eq!(windows("200/1h, 1000/1d"), Ok(vec![hour, day]));
        for text in ["", "200", "200/1h,", "0/1h", "5/10ms", "x/1h"] {
            assert!(windows(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_nearest_word_is_found() {
        assert_eq!(nearest("adress", ["name", "address", "role"]), Some("address"));
        assert_eq!(nearest("timeout", ["command_timeout", "size"]), Some("command_timeout"));
        assert_eq!(nearest("zzz", ["name", "address"]), None);
    }
}
