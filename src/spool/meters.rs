//! What the spool counts. Pure.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// All meters of the spool.
#[derive(Clone)]
pub struct Meters {
    /// Records of one commit.
    pub batch_records: Histogram,
    /// Seconds of one write and sync.
    pub sync_seconds: Histogram,
    /// Bytes written to the journal.
    pub written_bytes: IntCounter,
    /// Writes and syncs that failed; each poisons a segment. Any is an alarm.
    pub write_failures: IntCounter,
    /// Damaged pieces found while reading. Any is an alarm.
    pub damaged: IntCounter,
    /// Items by state.
    pub items: IntGaugeVec,
    /// Seconds since the oldest message was accepted that is `queued` (waiting, ready or leased), `held` or `quarantined`.
    pub oldest_seconds: IntGaugeVec,
    /// Segment files by state: live, free, poisoned.
    pub segments: IntGaugeVec,
    /// Bytes of all segment files.
    pub file_bytes: IntGauge,
    /// Bytes of live messages.
    pub live_bytes: IntGauge,
    /// Seconds that the last start took.
    pub recovery_seconds: Gauge,
    /// Messages changed since the index's last checkpoint.
    pub index_lag: IntGauge,
    /// Submissions that wait for the committer.
    pub submissions: IntGauge,
}

impl Meters {
    /// Makes the meters and registers them.
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let meters = Meters::new()?;
        registry.register(Box::new(meters.batch_records.clone()))?;
        registry.register(Box::new(meters.sync_seconds.clone()))?;
        registry.register(Box::new(meters.written_bytes.clone()))?;
        registry.register(Box::new(meters.write_failures.clone()))?;
        registry.register(Box::new(meters.damaged.clone()))?;
        registry.register(Box::new(meters.items.clone()))?;
        registry.register(Box::new(meters.oldest_seconds.clone()))?;
        registry.register(Box::new(meters.segments.clone()))?;
        registry.register(Box::new(meters.file_bytes.clone()))?;
        registry.register(Box::new(meters.live_bytes.clone()))?;
        registry.register(Box::new(meters.recovery_seconds.clone()))?;
        registry.register(Box::new(meters.index_lag.clone()))?;
        registry.register(Box::new(meters.submissions.clone()))?;
        Ok(meters)
    }

    /// Meters that nobody reads, for tools and tests.
    pub fn unregistered() -> Self {
        Meters::new().expect("the names and labels are constants and well formed")
    }

    fn new() -> Result<Self, prometheus::Error> {
        let batch = HistogramOpts::new("weir_spool_batch_records", "Records of one commit")
            .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let sync = HistogramOpts::new("weir_spool_sync_seconds", "One write and sync of the journal")
            .buckets(vec![5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0]);
        Ok(Meters {
            batch_records: Histogram::with_opts(batch)?,
            sync_seconds: Histogram::with_opts(sync)?,
            written_bytes: IntCounter::new("weir_spool_written_bytes_total", "Bytes written to the journal")?,
            write_failures: IntCounter::new("weir_spool_write_failures_total", "Failed writes and syncs")?,
            damaged: IntCounter::new("weir_spool_damaged_total", "Damaged pieces found")?,
            items: IntGaugeVec::new(Opts::new("weir_spool_items", "Queued items by state"), &["state"])?,
            oldest_seconds: IntGaugeVec::new(
                Opts::new("weir_spool_oldest_seconds", "Age of the oldest message by state"),
                &["state"],
            )?,
            segments: IntGaugeVec::new(Opts::new("weir_spool_segments", "Segment files by state"), &["state"])?,
            file_bytes: IntGauge::new("weir_spool_file_bytes", "Bytes of all segment files")?,
            live_bytes: IntGauge::new("weir_spool_live_bytes", "Bytes of queued messages")?,
            recovery_seconds: Gauge::new("weir_spool_recovery_seconds", "Duration of the last start")?,
            index_lag: IntGauge::new("weir_spool_index_lag_messages", "Messages changed since the checkpoint")?,
            submissions: IntGauge::new("weir_spool_submissions", "Submissions waiting for the committer")?,
        })
    }
}
