//! `--name value` pairs.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

pub struct Options(HashMap<String, String>);

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut pairs = HashMap::new();
        while let Some(name) = words.next() {
            let name = name.strip_prefix("--").unwrap_or_else(|| panic!("{name}: options begin with --")).to_owned();
            let value = words.next().unwrap_or_else(|| panic!("--{name} needs a value"));
            pairs.insert(name, value);
        }
        Options(pairs)
    }

    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    pub fn get<T: FromStr<Err: Debug>>(&self, name: &str, default: &str) -> T {
        let text = self.text(name, default);
        text.parse().unwrap_or_else(|error| panic!("--{name} {text}: {error:?}"))
    }

    pub fn given(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn yes(&self, name: &str, default: &str) -> bool {
        self.text(name, default) == "yes"
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.get(name, "127.0.0.1:0")
    }

    pub fn seconds(&self, name: &str, default: &str) -> Duration {
        Duration::from_secs_f64(self.get(name, default))
    }
}

/// CPU seconds of this process, user and system.
pub fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
