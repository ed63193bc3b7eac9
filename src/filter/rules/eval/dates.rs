//! HeaderEval: what dates say. Pure. RFC 5322 §3.3.

use mail_parser::DateTime;

use super::{Context, Function, number};
use crate::filter::message::header::{Field, lossy};
use crate::filter::rules::definition::FieldSpec;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] =
    &[("check_for_shifted_date", check_for_shifted_date), ("check_outlook_message_id", check_outlook_message_id)];

const HOUR_SECS: f64 = 3600.0;
/// Outlook's ids count in 2^32 units of 100 ns since 1601.
const TICKS_A_SECOND: f64 = 10_000_000.0 / 4_294_967_296.0;
/// The count at the start of 1970.
const TICKS_1970: f64 = 11_644_473_600.0 * TICKS_A_SECOND;
/// About thirty hours.
const TICKS_OFF_MAX: f64 = 250.0;

/// The seconds since 1970 of a date as mail writes it, with a comment or words around it.
fn time(text: &str) -> Option<i64> {
    if let Some(time) = plain_time(text) {
        return Some(time);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let at = words.iter().position(|word| is_clock(word))?;
    // Day, month, year, clock, zone; the year may be of two digits.
    let [day, month, year] = words.get(at.checked_sub(3)?..at)? else { return None };
    let zone = words.get(at + 1).copied().unwrap_or("+0000");
    let clock = words[at];
    // RFC 5322 §4.3: years of two digits, and those of programs that count from 1900.
    let year: u32 = year.parse().ok()?;
    let year = if year < 50 {
        year + 2000
    } else if year < 1000 {
        year + 1900
    } else {
        year
    };
    let clock = if clock.matches(':').count() == 1 { format!("{clock}:00") } else { clock.to_owned() };
    let date = DateTime::parse_rfc822(&format!("{day} {month} {year} {clock} {zone}"))?;
    date.is_valid().then(|| date.to_timestamp())
}

/// Months as mail names them.
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The same of a date as RFC 5322 §3.3 has it, which nearly all are: `Fri, 27 Nov 2026 19:27:49 +0100`.
fn plain_time(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    let text = text.split_once(", ").filter(|(day, _)| day.len() == 3).map_or(text, |(_, rest)| rest);
    // A day of one digit is often written with a blank before it.
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let small = |text: &str| u8::try_from(number(text)?).ok();
    let day = words.next().filter(|day| day.len() <= 2)?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u8 + 1;
    let year = words.next().filter(|year| year.len() == 4)?;
    let [hour, first, minute, second_mark, second] = words
        .next()
        .filter(|clock| clock.len() == 8 && clock.is_ascii())
        .map(|clock| [&clock[..2], &clock[2..3], &clock[3..5], &clock[5..6], &clock[6..]])?;
    let zone = words.next().filter(|zone| zone.len() == 5 && zone.is_ascii() && first == ":" && second_mark == ":")?;
    let (sign, zone) = zone.split_at(1);
    let (tz_hour, tz_minute) = zone.split_at(2);
    let date = DateTime {
        year: number(year).filter(|year| *year >= 1000)?,
        month,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        second: small(second)?,
        tz_before_gmt: match sign {
            "-" => true,
            "+" => false,
            _ => return None,
        },
        tz_hour: small(tz_hour)?,
        tz_minute: small(tz_minute)?,
    };
    // A comment may follow.
    (words.next().is_none_or(|word| word.starts_with('(')) && date.is_valid()).then(|| date.to_timestamp())
}

fn is_clock(word: &str) -> bool {
    word.contains(':') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')
}

/// When a message was sent and received, in seconds since 1970.
pub struct Dates {
    /// Date, as the sender wrote it; the one of a message that was sent again counts more.
    sent: Option<i64>,
    /// When the relays had it, newest first.
    received: Vec<i64>,
    /// Hours that it was sent ahead of the nearest of them.
    ahead: f64,
}

fn dates<'c>(context: &'c Context<'_, '_, '_>) -> &'c Dates {
    context.texts.once.dates.get_or_init(|| {
        let header = &context.texts.view.header;
        let sent = header.all("Resent-Date").chain(header.all("Date")).find_map(|field| time(field.text()));
        let received = received(context);
        let ahead = sent.and_then(|sent| shift(sent, &received)).unwrap_or(0) as f64 / HOUR_SECS;
        Dates { sent, received, ahead }
    })
}

fn received(context: &Context<'_, '_, '_>) -> Vec<i64> {
    let mut fields: Vec<&Field<'_>> = context.texts.view.header.all("Received").collect();
    let says = |field: Option<&&Field<'_>>, marks: &[&str]| {
        field.is_some_and(|field| {
            let text = field.unfolded();
            marks.iter().any(|mark| text.contains(mark))
        })
    };
    // What fetched the mail from a box, and brought it in, says when the box was read.
    let brought = usize::from(says(fields.first(), &["from localhost ", "127.0.0.1", "invoked by uid"]));
    if says(fields.get(brought), &["(fetchmail-"]) {
        fields.drain(..=brought);
    }
    let date = |field: &Field<'_>| {
        let at = memchr::memrchr(b';', field.raw)?;
        time(&lossy(&field.raw[at + 1..]))
    };
    fields.into_iter().filter_map(date).collect()
}

/// Seconds that it was sent ahead of the nearest relay.
fn shift(sent: i64, received: &[i64]) -> Option<i64> {
    let relays = match received {
        // A last relay of the very second is the sender's own, and knows no better.
        [others @ .., last] if !others.is_empty() && *last == sent => others,
        all => all,
    };
    relays.iter().map(|at| sent - at).min_by_key(|shift| shift.abs())
}

/// Hours that Date is ahead of the nearest Received, from the first bound to below the second; `undef` is none.
fn check_for_shifted_date(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let hours = dates(context).ahead;
    number(arguments, 0).is_none_or(|low| hours >= low) && number(arguments, 1).is_none_or(|high| hours < high)
}

/// Outlook's Message-ID holds the time; one that fits neither Date nor the oldest Received is forged.
fn check_outlook_message_id(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let ids = context.texts.header(&FieldSpec::parse("MESSAGEID")).unwrap_or_default();
    let Some(token) = outlook_token(&ids) else { return false };
    let off = |at: i64| (f64::from(token) - (at as f64 * TICKS_A_SECOND + TICKS_1970).floor()).abs();
    let dates = dates(context);
    off(dates.sent.unwrap_or(0)) >= TICKS_OFF_MAX && off(dates.received.last().copied().unwrap_or(0)) >= TICKS_OFF_MAX
}

/// The time in `<0001TTTTTTTT$xxxxxxxx$xxxxxxxx@…`.
fn outlook_token(id: &[u8]) -> Option<u32> {
    let rest = id.trim_ascii_start().strip_prefix(b"<")?;
    let (head, _) = rest.split_at(rest.iter().position(|&byte| byte == b'@')?);
    let head = std::str::from_utf8(head).ok()?;
    let mut pieces = head.split('$');
    let (first, others) = (pieces.next()?, pieces.collect::<Vec<_>>());
    let lower_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let good =
        first.len() == 12 && others.len() == 2 && others.iter().all(|piece| piece.len() == 8 && lower_hex(piece));
    (good && lower_hex(first)).then(|| u32::from_str_radix(&first[4..], 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_relay_counts() {
        assert_eq!(shift(100, &[90, 70]), Some(10));
        assert_eq!(shift(100, &[160, 100]), Some(-60), "the sender's own clock knows no better");
        assert_eq!(shift(100, &[100]), Some(0));
        assert_eq!(shift(100, &[]), None);
    }

    #[test]
    fn dates_as_mail_writes_them() {
        assert_eq!(time("Tue, 14 Nov 2023 22:13:20 +0000 (UTC)"), Some(1_700_000_000));
        assert_eq!(time("14 Nov 2023 23:13 +0100"), Some(1_699_999_980));
        for plain in
            ["Tue,  14 Nov 2023 23:13:20 +0100 (CET)", "14 Nov 2023 22:13:20 +0000", " Tue, 14 Nov 2023 14:43:20 -0730"]
        {
            assert_eq!(plain_time(plain), Some(1_700_000_000), "{plain}");
        }
        for other in [
            "14 Nov 2023 25:13:20 +0000",
            "14 nov 2023 22:13:20 GMT",
            "14 Nov 23 22:13:20 +0000",
            "é Nov 2023 22:1é +0000",
        ] {
            assert_eq!(plain_time(other), None, "{other}");
        }
        assert_eq!(time("no date at all"), None);
        assert_eq!(time("14 Nov 123 22:13:20 +0000"), Some(1_700_000_000));
        assert_eq!(outlook_token(b"<000a01c3abcd$12345678$9abcdef0@host>"), Some(0x01c3_abcd));
        assert_eq!(outlook_token(b"<x@host>"), None);
    }
}
