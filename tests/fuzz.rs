//! Every fuzz target over its seeds and mutations of them, for a bounded time: `WEIR_FUZZ_SECONDS=60 cargo test --test fuzz`
//! for a minute each. `WEIR_FUZZ_SEED` repeats a run; tests/fuzz/Cargo.toml says how to fuzz guided by coverage.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use targets::{ALL, Target};

/// For each target, unless `WEIR_FUZZ_SECONDS` says another time.
const TIME: Duration = Duration::from_millis(300);
/// One input may take this long in a debug build on a loaded machine; what grows faster than its input takes longer.
const INPUT_TIME_MAX: Duration = Duration::from_secs(60);
/// Inputs that are mutated further; new ones take the place of old ones.
const POOL_MAX: usize = 200;
/// Length of an input, but for the seeds: enough for many fields, quick enough for many inputs.
const INPUT_BYTES_MAX: usize = 20_000;
/// Words that grammars turn on.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b";",
    b"=",
    b":",
    b"\"",
    b"(",
    b")",
    b"<",
    b">",
    b"@",
    b",",
    b"\\",
    b".",
    b"%{",
    b"\xff",
    b"\xc3\xa9",
    b"--",
    b"=?",
    b"18446744073709551616",
];

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Files that a target may begin with besides its own seeds.
fn seed_files(name: &str) -> Vec<PathBuf> {
    let folders: &[&str] = match name {
        "header" | "identity_message" | "mime" => &["dkim/mail-auth", "dkim/dkimpy", "arc"],
        "arc_chain" => &["arc"],
        "dkim_signature" | "dkim_key" => &["dkim/dkimpy"],
        "report" => &["reports/dmarc-xml", "reports/tlsrpt"],
        _ => &[],
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn mutate(rng: &mut fastrand::Rng, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut input = pool[rng.usize(..pool.len())].clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len().min(at + 64));
        match rng.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied())),
            3 => {
                let copy = input[at..end].to_vec();
                let times = rng.usize(1..50);
                input.splice(at..at, copy.repeat(times));
            }
            4 => {
                let other = &pool[rng.usize(..pool.len())];
                let from = rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 if at < input.len() => input[at] = rng.u8(..),
            6 => input.truncate(at),
            _ => drop(input.splice(at..end, std::iter::repeat_n(rng.u8(..), rng.usize(..20)))),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// One input; a fault with the input that shows it, as a Rust literal.
fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let what = match outcome {
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "panic".to_owned()),
        Ok(()) if began.elapsed() > INPUT_TIME_MAX => format!("took {:?}", began.elapsed()),
        Ok(()) => return Ok(()),
    };
    Err(format!("{}: {what}\ninput: b\"{}\"", target.name, input.escape_ascii()))
}

fn fuzz(target: &Target, seed: u64, time: Duration) -> Result<u32, String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut pool: Vec<Vec<u8>> = target.seeds.iter().map(|seed| seed.to_vec()).collect();
    pool.extend(seed_files(target.name).iter().map(|file| std::fs::read(file).unwrap()));
    pool.push(Vec::new());
    let (began, mut inputs) = (Instant::now(), 0);
    for input in &pool {
        run(target, input)?;
    }
    while began.elapsed() < time {
        let input = mutate(&mut rng, &pool);
        run(target, &input)?;
        inputs += 1;
        // What survived is where the next ones start, so that faults which need several steps are reached.
        if rng.u8(..8) == 0 {
            if pool.len() < POOL_MAX {
                pool.push(input);
            } else {
                let place = rng.usize(target.seeds.len()..POOL_MAX);
                pool[place] = input;
            }
        }
    }
    Ok(inputs)
}

#[test]
fn no_bytes_break_a_parser() {
    let seed = variable("WEIR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = variable("WEIR_FUZZ_SECONDS").map_or(TIME, Duration::from_secs);
    let only: Option<String> = variable("WEIR_FUZZ_TARGET");
    let mut faults = Vec::new();
    for target in ALL.iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)) {
        match fuzz(target, seed, time) {
            Ok(inputs) => println!("{:<24}{inputs:>9} inputs", target.name),
            Err(fault) => faults.push(fault),
        }
    }
    assert!(faults.is_empty(), "WEIR_FUZZ_SEED={seed}\n{}", faults.join("\n\n"));
}

/// What fuzzing found once, and must not find again.
const FOUND: [(&str, &[u8]); 0] = [];

#[test]
fn what_was_found_stays_mended() {
    for (name, input) in FOUND {
        let target = ALL.iter().find(|target| target.name == name).unwrap();
        run(target, input).unwrap_or_else(|fault| panic!("{fault}"));
    }
}
