//! One event as a line of text: time, level, target, message, fields. I/O: none but the clock.
//!
//! It is what tracing-subscriber writes without colours and spans, which we have none of, at a quarter of the time: each
//! message costs a line, and each line was as dear as all of our own code that takes the message.

use std::cell::Cell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format.
pub struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        stamp(&mut out, SystemTime::now())?;
        write!(out, " {:>5} ", event.metadata().level().as_str())?;
        out.write_str(event.metadata().target())?;
        out.write_char(':')?;
        let mut fields = Fields { out, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.out.write_char('\n')
    }
}

struct Fields<'a> {
    out: Writer<'a>,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| self.out.write_fmt(value));
        }
    }

    fn name(&mut self, field: &Field) -> fmt::Result {
        self.out.write_char(' ')?;
        if field.name() == "message" {
            return Ok(());
        }
        self.out.write_str(field.name())?;
        self.out.write_char('=')
    }

    fn quoted(&mut self, value: &str) -> fmt::Result {
        // What needs no escape needs no look at each character's class.
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.out.write_char('"')?;
            self.out.write_str(value)?;
            return self.out.write_char('"');
        }
        write!(self.out, "{value:?}")
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return self.put(field, format_args!("{value}"));
        }
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| self.quoted(value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// `2026-11-22T10:00:00` of a second.
type Second = [u8; 19];

thread_local! {
    /// The text of the last second that a line was written in.
    static LAST: Cell<(u64, Second)> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

/// RFC 3339, in UTC, to the microsecond.
fn stamp(out: &mut Writer<'_>, now: SystemTime) -> fmt::Result {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (known, mut text) = LAST.get();
    if known != since.as_secs() {
        text = second(since.as_secs()).unwrap_or(text);
        LAST.set((since.as_secs(), text));
    }
    let micros = since.subsec_micros();
    out.write_str(std::str::from_utf8(&text).expect("a date is ASCII"))?;
    write!(out, ".{micros:06}Z")
}

fn second(secs: u64) -> Option<Second> {
    let stamp = jiff::Timestamp::from_second(secs.try_into().ok()?).ok()?;
    stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string().as_bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(layers: impl Fn(Sink) -> tracing::Dispatch) -> String {
        let sink = Sink::default();
        tracing::dispatcher::with_default(&layers(sink.clone()), || {
            let (none, nothing): (Option<&str>, &str) = (None, "");
            let error = io::Error::other("a \"bad\" disk");
            tracing::info!(target: "weir::message", id = "0abc", nothing, none, size = 4096u64, ms = 0.25, ip = %"::1", "message");
            tracing::warn!(path = "a\\b \"c\" ü\u{7f}", ?none, yes = true, minus = -1, %error, "two {}", "words");
            tracing::error!(error = &error as &dyn std::error::Error, "only a field");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_reads_as_the_usual_format_writes_it() {
        let registry = tracing_subscriber::registry;
        let ours = written(|sink| {
            tracing::Dispatch::new(registry().with(fmt::layer().event_format(Text).with_writer(move || sink.clone())))
        });
        let usual = written(|sink| {
            tracing::Dispatch::new(registry().with(fmt::layer().with_ansi(false).with_writer(move || sink.clone())))
        });
        let without_time = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split_once(' ').expect("a time stands first").1.to_owned()).collect()
        };
        assert_eq!(without_time(&ours), without_time(&usual));
        assert_eq!(ours.find(' '), usual.find(' '), "{ours}");
    }

    #[test]
    fn a_time_is_utc_to_the_microsecond() {
        let mut text = String::new();
        stamp(&mut Writer::new(&mut text), UNIX_EPOCH + std::time::Duration::from_micros(1_795_341_600_000_042))
            .unwrap();
        assert_eq!(text, "2026-11-22T10:00:00.000042Z");
    }
}
