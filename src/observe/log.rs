//! The event log: text or JSON, one line an event. I/O: standard error.
//!
//! Control characters (C0, DEL, C1) of whatever a peer said are escaped where the line is written, so no field can forge a line
//! or steer a terminal. `level` is for our own events; libraries below us are heard from `warn` on.
//!
//! Whoever reads our standard error may be slow or hang: once [`LogHandle::detach`] was called, a thread of its own writes
//! what waits ([`super::lines`]), and a line that finds no room is dropped and counted. Mail never waits for its log.

use std::io::{self, Write};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus::IntCounter;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::lines::Lines;
use super::text::Text;
use crate::config::settings::Log;

/// The running log.
#[derive(Clone)]
pub struct LogHandle {
    level: reload::Handle<Targets, Registry>,
    writer: Writer,
}

impl LogHandle {
    /// From now on `level`: `error`, `warn`, `info`, `debug` or `trace`.
    pub fn set_level(&self, level: &str) {
        // Fails only if the log is gone, and then there is nobody to tell.
        let _gone = self.level.reload(filter(level));
    }

    /// Hands the writing to a thread of its own. Call it once the process is confined: a thread keeps the rights it began with.
    pub fn detach(&self) {
        match Lines::start(io::stderr()) {
            Ok(lines) => self.writer.0.store(Some(Arc::new(lines))),
            Err(error) => tracing::warn!(%error, "the log has no thread of its own, and mail waits for it"),
        }
    }

    /// Lines that found no room.
    pub fn lines_dropped(&self) -> u64 {
        self.writer.0.load().as_deref().map_or(0, Lines::dropped)
    }

    /// Makes the number of dropped lines a metric.
    /// # Errors
    /// If the name is taken.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        let counter =
            IntCounter::new("weir_log_lines_dropped_total", "Log lines that found no room before a slow reader")?;
        registry.register(Box::new(Dropped { log: self.clone(), counter }))
    }

    /// Writes what waits, for a second at most, and from here on writes at once again. Call before the process ends.
    pub fn attach(&self) {
        if let Some(lines) = self.writer.0.swap(None) {
            lines.close();
        }
    }
}

/// Asks the queue when metrics are read.
struct Dropped {
    log: LogHandle,
    counter: IntCounter,
}

impl Collector for Dropped {
    fn desc(&self) -> Vec<&Desc> {
        self.counter.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.counter.inc_by(self.log.lines_dropped().saturating_sub(self.counter.get()));
        self.counter.collect()
    }
}

/// Where events go: standard error itself, or the thread before it.
#[derive(Clone, Default)]
struct Writer(Arc<ArcSwapOption<Lines>>);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.load().as_deref() {
            Some(lines) => lines.push(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log of this process.
/// # Errors
/// If it was started before.
pub fn init(log: &Log) -> Result<LogHandle, String> {
    let (filter, level) = reload::Layer::new(filter(&log.level));
    let registry = tracing_subscriber::registry().with(filter);
    let writer = Writer::default();
    let made = writer.clone();
    let make = Escaping(move || made.clone());
    let started = if log.json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(make)).try_init()
    } else {
        registry.with(fmt::layer().event_format(Text).with_writer(make)).try_init()
    };
    started.map(|()| LogHandle { level, writer }).map_err(|error| error.to_string())
}

fn filter(level: &str) -> Targets {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new().with_target("weir", level).with_default(level.min(LevelFilter::WARN))
}

/// Escapes control characters on the way to the writer that `F` makes.
struct Escaping<F>(F);

impl<'a, W: Write, F: Fn() -> W> MakeWriter<'a> for Escaping<F> {
    type Writer = EscapingWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter((self.0)())
    }
}

struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    /// Takes one whole event with the line feed that ends it: that is how the formatter writes.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        if line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_all(event).map(|()| event.len());
        }
        let text = String::from_utf8_lossy(line);
        if !text.contains(char::is_control) {
            return self.0.write_all(event).map(|()| event.len());
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            // JSON's own escape, so that a JSON line stays one.
            if c.is_control() { escaped.push_str(&format!("\\u{:04x}", c as u32)) } else { escaped.push(c) }
        }
        escaped.push('\n');
        self.0.write_all(escaped.as_bytes()).map(|()| event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_peer_can_neither_forge_a_line_nor_steer_a_terminal() {
        let hostile = "x\r\nINFO forged \u{1b}[2J \u{7f}\u{85}";
        for json in [false, true] {
            let sink = Sink::default();
            let writer = sink.clone();
            let make = Escaping(move || writer.clone());
            let layer = if json {
                let registry = Registry::default().with(fmt::layer().json().with_writer(make));
                tracing::Dispatch::new(registry)
            } else {
                tracing::Dispatch::new(Registry::default().with(fmt::layer().event_format(Text).with_writer(make)))
            };
            tracing::dispatcher::with_default(&layer, || tracing::info!(helo = %hostile, "a client said {hostile}"));
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(!json || serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn libraries_are_heard_from_warn_on() {
        let filter = filter("debug");
        assert!(filter.would_enable("weir::flow", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("hickory_proto", &tracing::Level::INFO));
        assert!(filter.would_enable("hickory_proto", &tracing::Level::WARN));
    }
}
