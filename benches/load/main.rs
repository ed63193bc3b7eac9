//! Load for a mail server, and what a perfect one would reach.
//!
//! `cargo bench --bench load -- COMMAND --option value …`; each prints one JSON line at its end.
//!
//! - `generate --to ADDR`: a closed loop of clients. `--connections 20 --size 4096 --seconds 10` (or `--messages N`),
//!   `--per-connection 0` (messages of a connection, 0: no end), `--pipelining yes`, `--sender A --recipient B`.
//! - `sink --on ADDR`: takes mail and checks every checksum; ends after `--expect N` messages, `--idle 5` seconds without
//!   one after the first, or `--seconds`.
//! - `limit --on ADDR --file PATH`: the bare durable server to be measured against: writes the bytes into one
//!   preallocated file and answers after one fdatasync for all who wait. `--sync inline|thread`, `--seconds 15`;
//!   `--relay ADDR` passes the messages on.
//! - `front --on ADDR`: Weir's front end alone, taking mail and throwing it away. `--reactors 1`, `--seconds 15`.
//! - `idle --to ADDR --connections 1000 --seconds 10`: holds connections after EHLO; `--tls yes` after STARTTLS.
//!
//! Servers print `listening ADDR` first. All are single-threaded (but for the limit's sync thread), so that two cores
//! are enough for a server and its load.
#![allow(clippy::unwrap_used)] // a tool of the workshop: what fails ends it

mod front;
mod generate;
mod idle;
mod latency;
mod limit;
mod message;
mod options;
mod relay;
mod server;
mod sink;

use options::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // cargo bench adds `--bench`.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let command = words.next().unwrap_or_default();
    let options = Options::parse(words);
    let result = match command.as_str() {
        "front" => front::run(&options),
        "generate" => generate::run(&options),
        "idle" => idle::run(&options),
        "limit" => limit::run(&options),
        "sink" => sink::run(&options),
        _ => {
            println!("load generate|sink|limit|front|idle --option value …; see benches/load/main.rs");
            return;
        }
    };
    println!("{}", result.unwrap());
}
