//! Takes mail, checks each message's checksum, counts the unique ones.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use crate::latency::Latency;
use crate::message;
use crate::options::{Options, cpu_seconds};
use crate::server::{Server, Take};

struct Sink {
    expect: u64,
    idle: Duration,
    deadline: Instant,
    first: Option<Instant>,
    last: Instant,
    messages: u64,
    bytes: u64,
    corrupt: u64,
    foreign: u64,
    seen: HashSet<u64>,
    latency: Latency,
}

impl Take for Sink {
    fn take(&mut self, _: usize, content: &[u8]) -> bool {
        self.messages += 1;
        self.bytes += content.len() as u64;
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        match message::check(&content[..content.len() - 3]) {
            None => self.foreign += 1,
            Some(arrived) => {
                self.corrupt += u64::from(!arrived.whole);
                self.seen.insert(arrived.number);
                self.latency.add(arrived.under_way);
            }
        }
        true
    }

    fn settle(&mut self) -> io::Result<Vec<usize>> {
        Ok(Vec::new())
    }

    fn is_over(&self, now: Instant) -> bool {
        let enough = self.expect > 0 && self.seen.len() as u64 + self.foreign >= self.expect;
        let quiet = self.first.is_some() && now.duration_since(self.last) > self.idle;
        enough || quiet || now > self.deadline
    }
}

pub fn run(options: &Options) -> io::Result<serde_json::Value> {
    let mut server = Server::bind(options.address("on"))?;
    let now = Instant::now();
    let mut sink = Sink {
        expect: options.get("expect", "0"),
        idle: options.seconds("idle", "5"),
        deadline: now + options.seconds("seconds", "3600"),
        first: None,
        last: now,
        messages: 0,
        bytes: 0,
        corrupt: 0,
        foreign: 0,
        seen: HashSet::new(),
        latency: Latency::default(),
    };
    server.serve(&mut sink)?;
    let seconds = sink.last.duration_since(sink.first.unwrap_or(sink.last)).as_secs_f64();
    Ok(serde_json::json!({
        "messages": sink.messages,
        "unique": sink.seen.len(),
        "duplicates": sink.messages - sink.foreign - sink.seen.len() as u64,
        "corrupt": sink.corrupt,
        "foreign": sink.foreign,
        "bytes": sink.bytes,
        "seconds": seconds,
        "per_second": sink.messages as f64 / seconds.max(1e-9),
        "farewell_seconds": sink.last.elapsed().as_secs_f64(),
        "milliseconds_under_way": sink.latency.json(),
        "sink_cpu_seconds": cpu_seconds(),
    }))
}
