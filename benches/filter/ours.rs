//! Our engine: rules of our own, Debian's beside them, a thousand more; classifier on, network off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir::config::Config;
use weir::filter::{Engine, Facts};

use crate::corpus::{self, Message};
use crate::{clock, row};

/// Where Debian's package puts its rules.
const FOREIGN_RULES: &str = "/usr/share/spamassassin";
/// Rules that are added to see what rules cost.
const GENERATED_RULES: usize = 1_000;
/// What the project has set: messages a second and core, two threads to one, part of the time for 1,000 rules more, times for
/// the slowest message of the corpus and of the hostile ones.
const RATE: f64 = 2_000.0;
const TWO_CORES: f64 = 1.8;
const MORE_RULES: f64 = 0.10;
/// Passes of each engine, of which the quickest counts.
const TURNS: usize = 3;
/// Messages that two engines judge in turns.
const PAIRED: usize = 64;
const SLOWEST: Duration = Duration::from_millis(50);
const SLOWEST_HOSTILE: Duration = Duration::from_secs(2);

/// Rule files by set.
pub struct Sets {
    pub own: Vec<PathBuf>,
    /// Ours and Debian's, where they are installed.
    pub both: Vec<PathBuf>,
    generated: PathBuf,
}

impl Sets {
    pub fn new(scratch: &Path) -> Self {
        let generated = scratch.join("generated.cf");
        fs::write(&generated, generate()).unwrap();
        let own = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")];
        let foreign = PathBuf::from(FOREIGN_RULES);
        if !foreign.is_dir() {
            println!("skipped: the package spamassassin is not installed, so its rules are not loaded");
        }
        let both = own.iter().cloned().chain(foreign.is_dir().then_some(foreign)).collect();
        Sets { own, both, generated }
    }
}

/// An engine with these rules and this model.
pub fn engine(rules: &[PathBuf], model: &Path) -> Engine {
    let mut filter = Config::default_for(Path::new("/nonexistent")).filter;
    filter.rules = rules.to_vec();
    filter.rules_shipped = false;
    Engine::open(&filter, Some(model)).unwrap()
}

/// The quickest of some passes over the messages by one thread, as they are judged when more come than it can do at once: those that wait together.
fn pass(engine: &Engine, messages: &[Message]) -> Duration {
    // The first messages build the automata's states; they are not what a day looks like.
    judge_all(engine, messages.iter().take(messages.len() / 10).map(|message| &message.bytes));
    clock::quickest_of(TURNS, || judge_all(engine, messages.iter().map(|message| &message.bytes)))
}

/// Judges messages that wait together.
pub fn judge_all<'m>(engine: &Engine, contents: impl Iterator<Item = &'m Vec<u8>>) {
    let facts = Facts::default();
    let cases: Vec<(&[u8], &Facts)> = contents.map(|content| (&**content, &facts)).collect();
    std::hint::black_box(engine.judge_together(&cases));
}

/// The same for messages that come one by one, with the slowest of them.
fn one_by_one(engine: &Engine, messages: &[Message]) -> (Duration, (Duration, PathBuf)) {
    let facts = Facts::default();
    let mut slowest = (Duration::ZERO, PathBuf::new());
    let took = clock::of(|| {
        for message in messages {
            let one = clock::of(|| drop(engine.judge(&message.bytes, &facts)));
            if one > slowest.0 {
                slowest = (one, message.path.clone());
            }
        }
    });
    (took, slowest)
}

/// Messages a second of one core, for a part of the messages.
pub fn rate(engine: &Engine, messages: &[&Message]) -> f64 {
    let work = || judge_all(engine, messages.iter().map(|message| &message.bytes));
    work();
    clock::rate(messages.len(), clock::of(work))
}

/// Measures all sets; gives the engine with ours and Debian's.
pub fn measure(sets: &Sets, model: &Path, messages: &[Message]) -> Engine {
    println!("our engine, classifier on, network off, the quickest of {TURNS} passes");
    let own = engine(&sets.own, model);
    let alone = pass(&own, messages);
    let name = format!("our own {} rules", own.rules_loaded());
    row(&name, &format!("{:.0}/s and core", clock::rate(messages.len(), alone)), "", true);
    let both = engine(&sets.both, model);
    let found = pass(&both, messages);
    let each = clock::rate(messages.len(), found);
    let name = format!("Debian's whole set beside ours, {} rules", both.rules_loaded());
    row(&name, &format!("{each:.0}/s and core"), &format!("at least {RATE:.0}"), each >= RATE);
    let (took, slowest_one) = one_by_one(&both, messages);
    row("the same, one by one", &format!("{:.0}/s and core", clock::rate(messages.len(), took)), "", true);
    slowest("slowest message", &slowest_one, SLOWEST);
    slowest("slowest hostile message", &hostile(&both), SLOWEST_HOSTILE);
    two_cores(&both, messages);
    more_rules(sets, model, messages, &both);
    both
}

fn slowest(name: &str, (took, path): &(Duration, PathBuf), most: Duration) {
    let name = format!("{name} ({})", path.file_name().unwrap_or_default().display());
    let figure = format!("{:.1} ms", took.as_secs_f64() * 1e3);
    row(&name, &figure, &format!("at most {}", most.as_millis()), *took <= most);
}

fn hostile(engine: &Engine) -> (Duration, PathBuf) {
    let facts = Facts::default();
    let each = corpus::vectors().into_iter().map(|(path, bytes)| {
        let took = clock::of(|| drop(engine.judge(&bytes, &facts)));
        (took, path)
    });
    each.max().unwrap()
}

/// Threads that judge all messages, each; CPU time of all and time by the wall.
fn together(engine: &Engine, messages: &[Message], threads: usize) -> (Duration, Duration) {
    let start = Instant::now();
    let took = std::thread::scope(|scope| {
        let one = || clock::of(|| judge_all(engine, messages.iter().map(|message| &message.bytes)));
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).sum()
    });
    (took, start.elapsed())
}

/// What two threads judge in the time of one. By CPU time it tells what they cost each other; by the wall also what else runs.
fn two_cores(engine: &Engine, messages: &[Message]) {
    // Both threads' automata have no states yet, nor have those of one.
    let (one, one_wall) = together(engine, messages, 1);
    let (two, two_wall) = together(engine, messages, 2);
    let by_cpu = 2.0 * one.as_secs_f64() / (two.as_secs_f64() / 2.0);
    let by_wall = 2.0 * one_wall.as_secs_f64() / two_wall.as_secs_f64();
    let target = format!("at least {TWO_CORES} ({by_wall:.2} by the wall)");
    row("two threads to one", &format!("{by_cpu:.2}"), &target, by_cpu >= TWO_CORES);
}

/// What a thousand rules more cost, by the quicker of some turns each over a few messages at a time: what else runs slows both.
fn more_rules(sets: &Sets, model: &Path, messages: &[Message], fewer: &Engine) {
    let rules: Vec<PathBuf> = sets.both.iter().chain([&sets.generated]).cloned().collect();
    let many = engine(&rules, model);
    let judge = |engine: &Engine, some: &[Message]| judge_all(engine, some.iter().map(|message| &message.bytes));
    judge(&many, messages);
    let mut took = [Duration::ZERO; 2];
    for some in messages.chunks(PAIRED) {
        let mut quickest = [Duration::MAX; 2];
        for _ in 0..TURNS {
            for (quickest, engine) in quickest.iter_mut().zip([fewer, &many]) {
                *quickest = clock::of(|| judge(engine, some)).min(*quickest);
            }
        }
        took.iter_mut().zip(quickest).for_each(|(took, quickest)| *took += quickest);
    }
    let more = took[1].as_secs_f64() / took[0].as_secs_f64() - 1.0;
    let target = format!("at most {:.0} %", MORE_RULES * 100.0);
    row("1,000 generated rules more, time", &format!("{:+.1} %", more * 100.0), &target, more <= MORE_RULES);
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
