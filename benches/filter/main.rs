//! How fast mail is judged: `cargo bench --bench filter [-- FOLDER] [--every N] [--peers no]`.
//!
//! FOLDER holds messages, one a file; a file `index` in it (`spam FILE`, `ham FILE`) tells what they are. Without it, mail of the demo
//! is taken. Every N-th message is judged, and few are judged again and again until they are enough for a figure. One run measures our rules, Debian's SpamAssassin rules beside them, a thousand more, the
//! classifier, memory, and, where they are installed, Rspamd and spamd with their local rules on the same messages.
//!
//! Figures by core are CPU time, user and system, of the thread or of all processes of the rival: what else runs on the
//! machine changes them little. Nothing is asserted: what misses its target is marked.
#![allow(clippy::unwrap_used)] // a tool of the workshop: what fails ends it

mod clock;
mod corpus;
mod learner;
mod memory;
#[path = "../gateway/nowhere.rs"]
mod nowhere;
mod ours;
mod peers;
#[path = "../gateway/process.rs"]
mod process;

use std::path::PathBuf;

/// How the bench is to run.
pub struct Plan {
    folder: PathBuf,
    every: usize,
    peers: bool,
}

impl Plan {
    fn parse(words: impl Iterator<Item = String>) -> Self {
        let mut plan = Plan { folder: corpus::sample(), every: 1, peers: true };
        let mut words = words.filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            match word.as_str() {
                "--every" => plan.every = words.next().unwrap().parse::<usize>().unwrap().max(1),
                "--peers" => plan.peers = words.next().unwrap() != "no",
                folder => plan.folder = folder.into(),
            }
        }
        plan
    }
}

/// Prints a figure beside what the project has set for it.
pub fn row(name: &str, figure: &str, target: &str, met: bool) {
    let mark = if met { "" } else { "   MISSED" };
    println!("  {name:<52}{figure:>18}   {target}{mark}");
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == memory::COMMAND) {
        return memory::hold(&words[1..]);
    }
    let plan = Plan::parse(words.into_iter());
    let messages = corpus::read(&plan.folder, plan.every);
    let bytes: usize = messages.iter().map(|message| message.bytes.len()).sum();
    println!(
        "{} messages of {} bytes in the mean, from {}",
        messages.len(),
        bytes / messages.len(),
        plan.folder.display()
    );
    let scratch = tempfile::tempdir().unwrap();
    let model = learner::measure(&messages, scratch.path());
    let sets = ours::Sets::new(scratch.path());
    let engine = ours::measure(&sets, &model, &messages);
    memory::measure(&sets, &model, &plan);
    if plan.peers {
        peers::measure(&engine, &messages);
    }
}
