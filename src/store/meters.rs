//! What the store counts. Pure.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the store.
pub struct Meters {
    /// POP3 sessions begun.
    pub sessions: IntCounter,
    /// POP3 sessions open now.
    pub open: IntGauge,
    /// POP3 connections refused by a limit.
    pub refused: IntCounter,
    /// Logins by `result`: `ok`, `failed`, `in_use`, `unavailable`.
    pub logins: IntCounterVec,
    /// Bytes of messages read for RETR and TOP.
    pub retrieved_bytes: IntCounter,
    /// Messages removed at QUIT.
    pub removed_messages: IntCounter,
    /// Deliveries into mailboxes by `result`: `ok`, `failed`.
    pub deliveries: IntCounterVec,
    /// Bytes delivered.
    pub delivered_bytes: IntCounter,
}

impl Default for Meters {
    fn default() -> Self {
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("a valid metric");
        let family =
            |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["result"]).expect("a valid metric");
        Meters {
            sessions: counter("weir_store_pop3_sessions_total", "POP3 sessions begun"),
            open: IntGauge::new("weir_store_pop3_sessions", "POP3 sessions open now").expect("a valid metric"),
            refused: counter("weir_store_pop3_refused_total", "POP3 connections refused by a limit"),
            logins: family("weir_store_pop3_logins_total", "POP3 logins by result"),
            retrieved_bytes: counter("weir_store_pop3_retrieved_bytes_total", "Bytes read for RETR and TOP"),
            removed_messages: counter("weir_store_pop3_removed_messages_total", "Messages removed at QUIT"),
            deliveries: family("weir_store_deliveries_total", "Deliveries into mailboxes by result"),
            delivered_bytes: counter("weir_store_delivered_bytes_total", "Bytes delivered into mailboxes"),
        }
    }
}

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let meters = Meters::default();
        registry.register(Box::new(meters.open.clone()))?;
        for family in [&meters.logins, &meters.deliveries] {
            registry.register(Box::new(family.clone()))?;
        }
        let counters = [
            &meters.sessions,
            &meters.refused,
            &meters.retrieved_bytes,
            &meters.removed_messages,
            &meters.delivered_bytes,
        ];
        for counter in counters {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(meters)
    }

    pub(super) fn count_delivery(&self, ok: bool, bytes: usize) {
        self.deliveries.with_label_values(&[if ok { "ok" } else { "failed" }]).inc();
        if ok {
            self.delivered_bytes.inc_by(bytes as u64);
        }
    }
}
