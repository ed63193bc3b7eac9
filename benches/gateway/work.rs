//! One kind of load, and what a server made of it.

use std::time::Instant;

use crate::Plan;
use crate::children::Part;
use crate::process::cpu_seconds;
use crate::subject::Subject;

/// A kind of load.
pub struct Work {
    pub name: &'static str,
    pub connections: usize,
    pub size: usize,
    /// Messages of a connection; 0: no end.
    pub per_connection: u64,
    /// To the sink, not only into the queue.
    pub relay: bool,
    /// In /dev/shm.
    pub memory: bool,
    /// Parts of the limit's rate to reach, and times the best durable server's.
    pub limit_target: f64,
    pub rival_target: f64,
    /// Microseconds of CPU a message.
    pub cpu_target: Option<f64>,
    pub p99_target: Option<f64>,
}

const ACCEPT: Work = Work {
    name: "accept, disk, 4 KiB x 20",
    connections: 20,
    size: 4096,
    per_connection: 0,
    relay: false,
    memory: false,
    limit_target: 0.5,
    rival_target: 10.0,
    cpu_target: Some(45.0),
    p99_target: Some(3.0),
};
const OTHER: Work = Work { cpu_target: None, p99_target: None, ..ACCEPT };

/// The table's works with delivery held or at the end; targets as the project has set them.
pub const WORKS: [Work; 8] = [
    ACCEPT,
    Work { name: "accept, disk, 4 KiB x 100", connections: 100, limit_target: 0.45, rival_target: 12.0, ..OTHER },
    Work { name: "accept, disk, 4 KiB x 1", connections: 1, limit_target: 0.65, rival_target: 4.0, ..OTHER },
    Work { name: "accept, disk, 64 KiB x 20", size: 65536, rival_target: 7.0, ..OTHER },
    Work {
        name: "accept, disk, one message a connection x 20",
        per_connection: 1,
        limit_target: 0.6,
        rival_target: 6.0,
        ..OTHER
    },
    Work { name: "accept, memory, 4 KiB x 20", memory: true, rival_target: 5.0, ..OTHER },
    Work { name: "relay, disk, 4 KiB x 20", relay: true, limit_target: 0.45, rival_target: 7.0, ..OTHER },
    Work {
        name: "relay, memory, 4 KiB x 20",
        relay: true,
        memory: true,
        limit_target: 0.45,
        rival_target: 1.0,
        cpu_target: Some(90.0),
        ..OTHER
    },
];

/// What came of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub per_second: f64,
    /// Of the server, a message.
    pub cpu_micros: f64,
    pub p99_ms: f64,
}

/// Time for caches, windows and connections before the clock runs.
const WARM_SECONDS: f64 = 0.5;

impl Work {
    pub fn run(&self, subject: Subject, plan: &Plan) -> Measured {
        let place = if self.memory { "/dev/shm" } else { &plan.disk };
        if self.relay { self.relayed(subject, place, plan) } else { self.accepted(subject, place, plan) }
    }

    fn options(&self, to: std::net::SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("to", to.to_string()),
            ("connections", self.connections.to_string()),
            ("size", self.size.to_string()),
            ("per-connection", self.per_connection.to_string()),
        ]
    }

    /// Closed loop for a time, with the server's CPU of the same time.
    pub fn load(&self, to: std::net::SocketAddr, pid: u32, seconds: f64) -> Measured {
        let mut options = self.options(to);
        options.push(("seconds", seconds.to_string()));
        let cpu = cpu_seconds(pid);
        let result = Part::start("generate", &options).result();
        let cpu = cpu_seconds(pid) - cpu;
        complain(&result);
        Measured {
            per_second: result["per_second"].as_f64().unwrap(),
            cpu_micros: cpu * 1e6 / result["messages"].as_f64().unwrap().max(1.0),
            p99_ms: result["milliseconds"]["p99"].as_f64().unwrap(),
        }
    }

    fn accepted(&self, subject: Subject, place: &str, plan: &Plan) -> Measured {
        let server = subject.start(place, None);
        self.load(server.address, server.pid, WARM_SECONDS);
        self.load(server.address, server.pid, plan.seconds)
    }

    /// From the first message offered to the last one at the sink, every checksum looked at there. How long senders keep their
    /// connections open behind it is not counted.
    fn relayed(&self, subject: Subject, place: &str, plan: &Plan) -> Measured {
        let count = plan.seconds * subject.relayed_a_second();
        let count = count as u64;
        let mut sink = Part::start("sink", &[("expect", count.to_string()), ("idle", "20".into())]);
        let server = subject.start(place, Some(sink.address()));
        let mut options = self.options(server.address);
        options.push(("messages", count.to_string()));
        let (began, cpu) = (Instant::now(), cpu_seconds(server.pid));
        let sent = Part::start("generate", &options).result();
        complain(&sent);
        let arrived = sink.result();
        let farewell = arrived["farewell_seconds"].as_f64().unwrap();
        let (seconds, cpu) = (began.elapsed().as_secs_f64() - farewell, cpu_seconds(server.pid) - cpu);
        for wrong in ["corrupt", "foreign", "duplicates"] {
            assert_eq!(arrived[wrong], 0, "{}: {arrived}", subject.name());
        }
        let unique = arrived["unique"].as_f64().unwrap();
        if unique < count as f64 {
            println!("  ({}: only {unique} of {count} arrived in time)", subject.name());
        }
        Measured {
            per_second: unique / seconds,
            cpu_micros: cpu * 1e6 / unique.max(1.0),
            p99_ms: arrived["milliseconds_under_way"]["p99"].as_f64().unwrap(),
        }
    }
}

fn complain(result: &serde_json::Value) {
    if result["refused"] != 0 || result["failed"] != 0 {
        println!("  (refused {}, failed {})", result["refused"], result["failed"]);
    }
}
