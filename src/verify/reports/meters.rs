//! What reporting counts. Pure values of prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The kinds of reports, as labels.
pub const KINDS: [&str; 3] = ["aggregate", "failure", "tls"];

/// Metrics of reports.
#[derive(Clone, Debug)]
pub struct Meters {
    rows: IntGaugeVec,
    noted: IntCounterVec,
    dropped: IntCounterVec,
    sent: IntCounterVec,
    failed: IntCounterVec,
    received: IntCounterVec,
    /// Rows that could not be kept on disk.
    pub unkept: IntCounter,
}

impl Meters {
    /// Registers them.
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let rows =
            IntGaugeVec::new(Opts::new("weir_verify_reports_rows", "Rows that wait for their report"), &["kind"])?;
        registry.register(Box::new(rows.clone()))?;
        let unkept = IntCounter::new("weir_verify_reports_unkept_total", "Writes of reports' rows that failed")?;
        registry.register(Box::new(unkept.clone()))?;
        let meters = Meters {
            rows,
            noted: counters("weir_verify_reports_noted_total", "Messages or sessions counted for reports", &["kind"])?,
            dropped: counters(
                "weir_verify_reports_dropped_total",
                "Messages, sessions or failure reports left out for a bound",
                &["kind"],
            )?,
            sent: counters("weir_verify_reports_sent_total", "Reports given to a destination's queue", &["kind"])?,
            failed: counters("weir_verify_reports_failed_total", "Reports that could not be sent", &["kind"])?,
            received: counters("weir_verify_reports_received_total", "Reports that others sent us", &["kind"])?,
            unkept,
        };
        for kind in KINDS {
            [&meters.noted, &meters.dropped, &meters.sent, &meters.failed]
                .iter()
                .for_each(|vec| drop(vec.with_label_values(&[kind])));
        }
        Ok(meters)
    }

    /// Rows that wait.
    pub fn rows(&self, kind: &str, rows: usize) {
        self.rows.with_label_values(&[kind]).set(rows as i64);
    }

    /// One was counted, or left out.
    pub fn noted(&self, kind: &str, counted: bool) {
        let vec = if counted { &self.noted } else { &self.dropped };
        vec.with_label_values(&[kind]).inc();
    }

    /// One report was sent, or not.
    pub fn sent(&self, kind: &str, ok: bool) {
        let vec = if ok { &self.sent } else { &self.failed };
        vec.with_label_values(&[kind]).inc();
    }

    /// One came in; `kind` is the reader's word, or `unreadable`.
    pub fn received(&self, kind: &str) {
        self.received.with_label_values(&[kind]).inc();
    }
}
