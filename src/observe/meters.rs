//! What the gateway as a whole counts: sessions, replies, messages, stages, queues between threads. Pure: the registry is given.
//!
//! Counters that a message touches are resolved once, so that the hot path neither hashes labels nor takes a lock.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::outcome::Fate;

/// From 50 microseconds (a reply that leaves no thread) to 10 s (a scanner that hangs).
const STAGE_SECONDS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// A stretch of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Look-ups and the decision at RCPT.
    Policy,
    /// SPF, DKIM, DMARC, ARC.
    Verify,
    /// Rules and classifier.
    Filter,
    /// Until it was durable.
    Spool,
    /// From the last byte of content to the reply.
    Whole,
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::Policy, "policy"),
    (Stage::Verify, "verify"),
    (Stage::Filter, "filter"),
    (Stage::Spool, "spool"),
    (Stage::Whole, "whole"),
];

/// The gateway's meters.
#[derive(Clone, Debug)]
pub struct Meters {
    sessions: IntCounterVec,
    sessions_open: IntGaugeVec,
    replies: IntCounterVec,
    messages: Vec<IntCounter>,
    bytes: Vec<IntCounter>,
    stages: Vec<Histogram>,
    /// Content in memory, of the budget that all messages share.
    pub content_memory: IntGauge,
    queue_depth: IntGaugeVec,
    queue_full: IntCounterVec,
}

/// The meters of one listener's sessions.
#[derive(Clone, Debug)]
pub struct SessionMeters {
    /// Sessions so far.
    pub opened: IntCounter,
    /// Sessions now.
    pub open: IntGauge,
}

/// The meters of one queue between threads.
#[derive(Clone, Debug)]
pub struct QueueMeters {
    /// What waits in it.
    pub depth: IntGauge,
    /// How often it was full.
    pub full: IntCounter,
}

impl Meters {
    /// Registers them.
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let content_memory = IntGauge::new("weir_flow_content_memory_bytes", "Content held in memory")?;
        registry.register(Box::new(content_memory.clone()))?;
        let stages = HistogramVec::new(
            HistogramOpts::new("weir_flow_stage_seconds", "Time of a message in a stage").buckets(STAGE_SECONDS.into()),
            &["stage"],
        )?;
        registry.register(Box::new(stages.clone()))?;
        let messages = counters("weir_flow_messages_total", "Messages by what became of them", &["decision"])?;
        let bytes = counters("weir_flow_message_bytes_total", "Content by what became of it", &["decision"])?;
        let of_fates = |vec: &IntCounterVec| Fate::ALL.map(|fate| vec.with_label_values(&[fate.as_str()])).to_vec();
        Ok(Meters {
            sessions: counters("weir_flow_sessions_total", "Sessions by listener", &["listener"])?,
            sessions_open: gauges("weir_flow_sessions_open", "Sessions now by listener", &["listener"])?,
            replies: counters("weir_flow_replies_total", "Refusals by code and reason", &["code", "reason"])?,
            messages: of_fates(&messages),
            bytes: of_fates(&bytes),
            stages: STAGES.iter().map(|(_, name)| stages.with_label_values(&[*name])).collect(),
            content_memory,
            queue_depth: gauges("weir_flow_queue_depth", "What waits between threads by queue", &["queue"])?,
            queue_full: counters("weir_flow_queue_full_total", "How often a queue was full", &["queue"])?,
        })
    }

    /// The meters of a listener; ask once and keep them.
    pub fn sessions_of(&self, listener: &str) -> SessionMeters {
        SessionMeters {
            opened: self.sessions.with_label_values(&[listener]),
            open: self.sessions_open.with_label_values(&[listener]),
        }
    }

    /// The meters of a queue between threads; ask once and keep them.
    pub fn queue_of(&self, queue: &str) -> QueueMeters {
        QueueMeters {
            depth: self.queue_depth.with_label_values(&[queue]),
            full: self.queue_full.with_label_values(&[queue]),
        }
    }

    /// Counts a refusal. `reason` is one of a fixed set of words, never what a peer said.
    pub fn replied(&self, code: u16, reason: &'static str) {
        self.replies.with_label_values(&[code.to_string().as_str(), reason]).inc();
    }

    /// Counts a message and its content.
    pub fn message(&self, fate: Fate, size: u64) {
        self.messages[fate as usize].inc();
        self.bytes[fate as usize].inc_by(size);
    }

    /// Records how long a stage took.
    pub fn stage(&self, stage: Stage, elapsed: Duration) {
        self.stages[stage as usize].observe(elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_match_their_words() {
        assert!(Fate::ALL.iter().enumerate().all(|(at, fate)| *fate as usize == at));
        assert!(STAGES.iter().enumerate().all(|(at, (stage, _))| *stage as usize == at));
        let registry = Registry::new();
        let meters = Meters::register(&registry).unwrap();
        meters.message(Fate::Rejected, 10);
        meters.replied(550, "relay_denied");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("weir_flow_message_bytes_total{decision=\"rejected\"} 10"), "{text}");
        assert!(Meters::register(&registry).is_err());
    }
}
