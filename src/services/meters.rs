//! What the services count. Pure.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of this room; the label `service` is `milter`, `spamd` or `rspamd`.
#[derive(Clone)]
pub struct Meters {
    /// Messages judged, by what was answered.
    pub judged: IntCounterVec,
    /// Connections now.
    pub connections: IntGaugeVec,
    /// Connections turned away, by reason.
    pub refused: IntCounterVec,
}

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// If a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let judged = Opts::new("weir_services_judged_total", "Messages judged for other mail servers, by answer");
        let connections = Opts::new("weir_services_connections", "Connections of other mail servers");
        let refused =
            Opts::new("weir_services_refused_total", "Connections of other mail servers that were turned away");
        let meters = Meters {
            judged: IntCounterVec::new(judged, &["service", "answer"])?,
            connections: IntGaugeVec::new(connections, &["service"])?,
            refused: IntCounterVec::new(refused, &["service", "reason"])?,
        };
        registry.register(Box::new(meters.judged.clone()))?;
        registry.register(Box::new(meters.connections.clone()))?;
        registry.register(Box::new(meters.refused.clone()))?;
        Ok(meters)
    }
}
