//! What delivery counts. Pure.

use std::time::SystemTime;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use super::settle::Settled;
use super::transport::Job;
use crate::spool::queue::Outcome;

/// Counters of delivery.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Recipients by transport (`smtp`, `lmtp`, `maildir`, `store`, `discard`) and outcome (`delivered`, `deferred`, `bounced`, `expired`).
    pub deliveries: IntCounterVec,
    /// From acceptance to delivery, in seconds, by transport.
    pub latency: HistogramVec,
    /// Addresses tried and sessions used, by outcome: `opened`, `reused`, `failed`.
    pub connections: IntCounterVec,
    /// Connections that are open.
    pub open: IntGauge,
    /// Outgoing TLS sessions by protocol version and cipher suite, as negotiated; both lists are those of rustls.
    pub tls_sessions: IntCounterVec,
    /// Connections by what became of TLS: `dane`, `sts`, `verified`, `unverified`, `plain`, `failed`.
    pub tls: IntCounterVec,
    /// MTA-STS policies by where they came from: `fetched`, `cached`, `kept` (the record is gone), `failed` (not to be had).
    pub mta_sts: IntCounterVec,
    /// Reports made, by kind: `delayed`, `failed`, `relayed`, `success`.
    pub reports: IntCounterVec,
    /// Destinations that are left alone as dead; their mail waits without being tried one by one.
    pub dead: IntGauge,
    /// Destinations whose window and troubles are remembered; bounded.
    pub known: IntGauge,
}

/// A message that is relayed while hot takes about a millisecond; one that waits takes up to five days.
const LATENCY_BUCKETS: [f64; 12] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0];

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let opts = HistogramOpts::new("weir_deliver_latency_seconds", "From acceptance to delivery");
        let latency = HistogramVec::new(opts.buckets(LATENCY_BUCKETS.to_vec()), &["transport"])?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Meters {
            deliveries: counters("weir_deliver_recipients_total", "Recipients by outcome", &["transport", "outcome"])?,
            latency,
            connections: counters("weir_deliver_connections_total", "Connections by outcome", &["outcome"])?,
            open: gauge("weir_deliver_connections_open", "Open connections to next hops")?,
            tls_sessions: counters(
                "weir_deliver_tls_sessions_total",
                "Outgoing TLS sessions by version and cipher suite",
                &["version", "cipher"],
            )?,
            tls: counters("weir_deliver_tls_total", "Outgoing connections by TLS", &["outcome"])?,
            mta_sts: counters("weir_deliver_mta_sts_total", "MTA-STS policies by origin", &["outcome"])?,
            reports: counters("weir_deliver_reports_total", "Delivery status reports made", &["kind"])?,
            dead: gauge("weir_deliver_destinations_dead", "Destinations left alone as unreachable")?,
            known: gauge("weir_deliver_destinations_known", "Destinations whose state is remembered")?,
        })
    }

    /// Counts and logs what became of each recipient: one line each, with what the remote said.
    pub fn concluded(&self, job: &Job, settled: &Settled, transport: &str, now: SystemTime) {
        let seconds = now.duration_since(job.lease.accepted).unwrap_or_default().as_secs_f64();
        for (position, (index, outcome)) in settled.outcomes.iter().enumerate() {
            let (word, remote) = match outcome {
                Outcome::Bounced { remote } => ("bounced", remote.as_str()),
                Outcome::Deferred { remote, .. } => ("deferred", remote.as_str()),
                Outcome::Delivered { remote } => ("delivered", remote.as_str()),
                Outcome::Discarded => ("discarded", ""),
                Outcome::Expired { remote } => ("expired", remote.as_str()),
                Outcome::Held { reason } => ("held", reason.as_str()),
            };
            self.deliveries.with_label_values(&[transport, word]).inc();
            let recipient = &job.lease.envelope.recipients[*index as usize].mailbox;
            let (id, destination) = (job.lease.id, &job.lease.destination);
            let tls = job.answers[position].as_ref().map_or("", |answer| answer.tls);
            tracing::info!(%id, %recipient, %destination, transport, outcome = word, tls, remote, seconds, "delivery");
            if word == "delivered" {
                self.latency.with_label_values(&[transport]).observe(seconds);
            }
        }
        for action in &settled.reported {
            self.reports.with_label_values(&[action.as_str()]).inc();
        }
    }
}
