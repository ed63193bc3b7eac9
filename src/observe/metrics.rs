//! The process's registry and its text. I/O: reads /proc when the text is made.
//!
//! Process metrics have the names that every Prometheus client library gives them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, Opts, Registry, TextEncoder};

/// All metrics of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry with the process's own metrics.
    /// # Errors
    /// Never, unless two of the names below were the same.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(Process::new()?))?;
        let build = Opts::new("weir_build_info", "Always 1; the labels say what runs")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        Ok(Metrics { registry })
    }

    /// Where rooms register their meters.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text that Prometheus scrapes (exposition format 0.0.4).
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

struct Process {
    started: Instant,
    uptime: Gauge,
    start_time: Gauge,
    resident: Gauge,
    open_fds: Gauge,
    threads: Gauge,
}

impl Process {
    fn new() -> Result<Self, prometheus::Error> {
        let process = Process {
            started: Instant::now(),
            uptime: Gauge::new("weir_uptime_seconds", "Since the process started")?,
            start_time: Gauge::new("process_start_time_seconds", "Unix time of the start")?,
            resident: Gauge::new("process_resident_memory_bytes", "Resident memory")?,
            open_fds: Gauge::new("process_open_fds", "Open file descriptors")?,
            threads: Gauge::new("process_threads", "Threads")?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        process.start_time.set(now.as_secs_f64());
        Ok(process)
    }

    fn gauges(&self) -> [&Gauge; 5] {
        [&self.uptime, &self.start_time, &self.resident, &self.open_fds, &self.threads]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The kernel writes `VmRSS:     1234 kB`.
        self.resident.set(status_field(&status, "VmRSS:") * 1024.0);
        self.threads.set(status_field(&status, "Threads:"));
        self.open_fds.set(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64);
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

fn status_field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_of_the_process() {
        let text = Metrics::new().unwrap().text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(text.contains(concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
    }
}
