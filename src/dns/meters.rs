//! What the resolver counts. Pure.

use prometheus::{IntCounterVec, Opts, Registry};

/// Counters of the resolver.
#[derive(Clone, Debug)]
pub struct Meters {
    /// Queries by outcome: `cached`, `failed`, `found`, `not_found`.
    pub queries: IntCounterVec,
}

impl Meters {
    /// Makes and registers them.
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("weir_dns_queries_total", "DNS queries by outcome");
        let queries = IntCounterVec::new(opts, &["outcome"])?;
        registry.register(Box::new(queries.clone()))?;
        Ok(Meters { queries })
    }
}
