//! How fast messages are judged, on one core: `cargo bench --bench filter -- FOLDER [ROUNDS]`.
//!
//! FOLDER holds messages, one a file. Measured with our own rules, with Debian's SpamAssassin rules beside them where the
//! package is installed, and with a thousand generated rules more, all in one run, so that the ratios mean something.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir::config::Config;
use weir::filter::{Engine, Facts};

/// Where Debian's package puts its rules.
const FOREIGN_RULES: &str = "/usr/share/spamassassin";
/// Rules that are added to see what rules cost.
const GENERATED_RULES: usize = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(folder) = arguments.next() else {
        println!("skipped: name a folder of messages, `cargo bench --bench filter -- FOLDER [ROUNDS]`");
        return;
    };
    let rounds: usize = arguments.next().and_then(|number| number.parse().ok()).unwrap_or(1);
    let messages = read(Path::new(&folder));
    assert!(!messages.is_empty(), "no messages in {folder}");
    println!("{} messages, {rounds} rounds, one core", messages.len());
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let generated = tempfile::tempdir().expect("a folder for the generated rules");
    fs::write(generated.path().join("generated.cf"), generate()).expect("the rules are written");
    let mut sets = vec![("own rules", vec![own.clone()])];
    let foreign = PathBuf::from(FOREIGN_RULES);
    if foreign.is_dir() {
        sets.push(("own and Debian's", vec![own.clone(), foreign.clone()]));
        sets.push(("and 1,000 generated", vec![own, foreign, generated.path().to_owned()]));
    } else {
        sets.push(("own and 1,000 generated", vec![own, generated.path().to_owned()]));
    }
    let mut before = None;
    for (name, rules) in sets {
        let took = measure(name, rules, &messages, rounds);
        let ratio = before.map(|before: Duration| took.as_secs_f64() / before.as_secs_f64());
        println!("{:>24} {:.3} times the time of the row above", "", ratio.unwrap_or(1.0));
        before = Some(took);
    }
}

/// Messages a second of two threads, against `alone` of one.
fn two_cores(engine: &Engine, messages: &[(PathBuf, Vec<u8>)], alone: f64) {
    let facts = Facts::default();
    let judge = |skip: usize| {
        for (_, bytes) in messages.iter().skip(skip).step_by(2) {
            engine.judge(bytes, &facts);
        }
    };
    // The second thread's automata have no states yet.
    std::thread::scope(|scope| (0..2).for_each(|skip| drop(scope.spawn(move || judge(skip)))));
    let start = Instant::now();
    std::thread::scope(|scope| (0..2).for_each(|skip| drop(scope.spawn(move || judge(skip)))));
    let each = messages.len() as f64 / start.elapsed().as_secs_f64();
    println!("{:>24} {each:.0} messages a second on two cores, {:.2} times one", "", each / alone);
}

/// The most memory that this process has held, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

fn read(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("the message can be read"))).collect()
}

/// Rules as people write them: two words near each other, in body, subject and links.
fn generate() -> String {
    let word = |number: usize| {
        let letters = [7, 11, 13, 17, 19].map(|prime| char::from(b'a' + (number * prime % 26) as u8));
        format!("{}{}", letters.iter().collect::<String>(), number % 10)
    };
    let rule = |number: usize| match number % 4 {
        0 => format!("header GEN_{number} Subject =~ /\\b{}\\s+{}\\b/i\n", word(number), word(number + 1)),
        1 => format!("uri GEN_{number} m{{^https?://[^/]*{}\\.}}i\n", word(number)),
        _ => format!(
            "body GEN_{number} /\\b{}.{{0,40}}(?:{}|{})\\b/i\n",
            word(number),
            word(number + 3),
            word(number + 5)
        ),
    };
    (0..GENERATED_RULES).map(rule).collect()
}

fn measure(name: &str, rules: Vec<PathBuf>, messages: &[(PathBuf, Vec<u8>)], rounds: usize) -> Duration {
    let mut filter = Config::default_for(Path::new("/nonexistent")).filter;
    filter.rules = rules;
    let engine = Engine::open(&filter, None).expect("no model is read");
    let facts = Facts::default();
    let mut worst = (Duration::ZERO, Path::new(""));
    // The first messages build the automata's states; they are not what a day looks like.
    for (_, bytes) in messages.iter().take(messages.len() / 10) {
        engine.judge(bytes, &facts);
    }
    let start = Instant::now();
    for (path, bytes) in (0..rounds).flat_map(|_| messages) {
        let start = Instant::now();
        engine.judge(bytes, &facts);
        worst = worst.max((start.elapsed(), path));
    }
    let took = start.elapsed();
    let each = (messages.len() * rounds) as f64 / took.as_secs_f64();
    println!(
        "{name:<24} {:>5} rules {each:>8.0} messages a second; worst {:.1} ms ({})",
        engine.rules_loaded(),
        worst.0.as_secs_f64() * 1e3,
        worst.1.display()
    );
    two_cores(&engine, messages, each);
    println!("{:>24} {} MiB held at most so far", "", peak_mib());
    took
}
