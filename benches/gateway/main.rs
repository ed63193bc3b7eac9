//! The whole gateway under load, beside a bare durable server (the limit) and the mail servers that are installed.
//!
//! `cargo bench --bench gateway [-- --quick] [--runs 3] [--seconds 3] [--only PART] [--exim DIR]`; PART is a part of a work's name,
//! as printed. All of it takes twelve minutes; `--only queue` fills a queue with `--messages 1000000`. Exim, which Debian does not
//! install beside Postfix, is measured from a folder that `benches/gateway/exim.sh unpack DIR` filled.
//!
//! Each server is started anew for each run, on loopback, in a folder on disk (`--disk target`) or in /dev/shm; the
//! figures are medians. Times are printed and never asserted: only ratios of one run mean anything.
#![allow(clippy::unwrap_used)] // a tool of the workshop: what fails ends it

#[path = "../load/front.rs"]
mod front;
#[path = "../load/generate.rs"]
mod generate;
#[path = "../load/idle.rs"]
mod idle;
#[path = "../load/latency.rs"]
mod latency;
#[path = "../load/limit.rs"]
mod limit;
#[path = "../load/message.rs"]
mod message;
#[path = "../load/options.rs"]
mod options;
#[path = "../load/relay.rs"]
mod relay;
#[path = "../load/server.rs"]
mod server;
#[path = "../load/sink.rs"]
mod sink;

mod children;
mod filtered;
mod held;
mod nowhere;
mod process;
mod subject;
mod table;
mod work;

use options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How the bench itself is to run.
pub struct Plan {
    pub runs: usize,
    pub seconds: f64,
    pub quick: bool,
    pub only: Option<String>,
    pub disk: String,
    pub messages: u64,
}

impl Plan {
    fn parse(words: Vec<String>) -> Self {
        let (quick, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word == "--quick");
        let quick = !quick.is_empty();
        let options = Options::parse(words.into_iter());
        let exim = options.text("exim", concat!(env!("CARGO_TARGET_TMPDIR"), "/exim"));
        subject::EXIM_FOLDER.get_or_init(|| exim.into());
        Plan {
            runs: options.get("runs", if quick { "1" } else { "3" }),
            seconds: options.get("seconds", if quick { "1" } else { "3" }),
            quick,
            only: Some(options.text("only", "").to_owned()).filter(|only| !only.is_empty()),
            disk: options.text("disk", env!("CARGO_TARGET_TMPDIR")).to_owned(),
            messages: options.get("messages", if quick { "100000" } else { "1000000" }),
        }
    }

    /// True if the work of this name is to be done.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Some((command, rest)) = words.split_first().filter(|(first, _)| !first.starts_with("--")) {
        return children::main(command, rest);
    }
    weir::front::raise_descriptor_limit();
    let plan = Plan::parse(words);
    table::accept_and_relay(&plan);
    filtered::milter(&plan);
    held::idle(&plan);
    held::empty(&plan);
    held::lone(&plan);
    held::big(&plan);
    held::queue(&plan);
}
