//! What the front end counts. Pure.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::service::Refusal;

/// Upper bounds of the loop histogram in seconds: a healthy turn is below a millisecond.
const LOOP_BUCKETS: [f64; 8] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Metrics of all reactors.
#[derive(Clone)]
pub struct Meters {
    /// Open connections by listener.
    pub open: IntGaugeVec,
    /// Accepted connections by listener.
    pub accepted: IntCounterVec,
    /// Connections turned away, by listener and reason.
    pub refused: IntCounterVec,
    /// Connections that were ended for a newcomer because they were the idlest.
    pub shed: IntCounter,
    /// Ended TLS handshakes by outcome: `TLSv1.2`, `TLSv1.3`, `failed`, `timeout`.
    pub handshakes: IntCounterVec,
    /// Connections ended by a time limit outside of any conversation, by its setting: a handshake or PROXY header that did
    /// not come, a peer that does not read.
    pub timeouts: IntCounterVec,
    /// Bytes read from sockets.
    pub bytes_in: IntCounter,
    /// Bytes written to sockets.
    pub bytes_out: IntCounter,
    /// Conversations ended by a panic.
    pub panics: IntCounter,
    /// Answers that came from other threads.
    pub late_answers: IntCounter,
    /// Questions that nobody answered.
    pub lost_questions: IntCounter,
    /// Times that accepting was paused for want of file descriptors.
    pub accept_pauses: IntCounter,
    /// PROXY headers that were missing or wrong.
    pub proxy_errors: IntCounter,
    /// Certificate reloads that failed; the old certificate stays.
    pub certificate_errors: IntCounter,
    /// How long one turn of a reactor's loop takes: the delay that every other connection sees.
    pub turn_seconds: Histogram,
}

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let meters = Meters::new()?;
        registry.register(Box::new(meters.open.clone()))?;
        for family in [&meters.accepted, &meters.refused, &meters.handshakes, &meters.timeouts] {
            registry.register(Box::new(family.clone()))?;
        }
        for counter in meters.counters() {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(meters.turn_seconds.clone()))?;
        Ok(meters)
    }

    /// Makes them without a registry, for tests.
    /// # Errors
    /// Never in practice: the names are fixed.
    pub fn new() -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        Ok(Meters {
            open: IntGaugeVec::new(Opts::new("weir_front_connections", "Open connections"), &["listener"])?,
            accepted: family("weir_front_accepted_total", "Accepted connections", &["listener"])?,
            refused: family("weir_front_refused_total", "Connections turned away", &["listener", "reason"])?,
            shed: counter("weir_front_shed_total", "Idle connections ended for a newcomer")?,
            handshakes: family("weir_front_tls_handshakes_total", "Ended TLS handshakes", &["outcome"])?,
            timeouts: family("weir_front_timeouts_total", "Connections ended by a time limit", &["limit"])?,
            bytes_in: counter("weir_front_received_bytes_total", "Bytes read from clients")?,
            bytes_out: counter("weir_front_sent_bytes_total", "Bytes written to clients")?,
            panics: counter("weir_front_panics_total", "Conversations ended by a panic")?,
            late_answers: counter("weir_front_late_answers_total", "Answers from other threads")?,
            lost_questions: counter("weir_front_lost_questions_total", "Questions that nobody answered")?,
            accept_pauses: counter("weir_front_accept_pauses_total", "Pauses for want of file descriptors")?,
            proxy_errors: counter("weir_front_proxy_errors_total", "Missing or wrong PROXY headers")?,
            certificate_errors: counter("weir_front_certificate_errors_total", "Failed certificate reloads")?,
            turn_seconds: Histogram::with_opts(
                HistogramOpts::new("weir_front_turn_seconds", "One turn of a reactor").buckets(LOOP_BUCKETS.to_vec()),
            )?,
        })
    }

    fn counters(&self) -> [&IntCounter; 9] {
        [
            &self.shed,
            &self.bytes_in,
            &self.bytes_out,
            &self.panics,
            &self.late_answers,
            &self.lost_questions,
            &self.accept_pauses,
            &self.proxy_errors,
            &self.certificate_errors,
        ]
    }

    /// Counts a connection that was turned away.
    pub(super) fn refuse(&self, listener: &str, why: Refusal) {
        self.refused.with_label_values(&[listener, why.as_str()]).inc();
    }
}
