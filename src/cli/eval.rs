//! `weir eval INDEX`: judges a labelled stream of messages, learning as told, and measures. I/O: reads mail, prints.
//!
//! What judges is the classifier, the rules of the configuration, or both, as the verdict adds them up. Messages of a second
//! index can be judged after the stream without learning; they are measured against the stream's ham.
//!
//! The index has one line a message, `LABEL FILE …`, in the order of arrival; files are beside it. Each message is judged
//! before it is learned. Standard output has one `LABEL SCORE VERDICT` line a message; measures go to standard error, so that the
//! lines can be piped into another scorer.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::ValueEnum;
use rayon::prelude::*;

use super::{ConfigFile, Exit};
use crate::config::settings::Filter;
use crate::filter::classifier::metrics::{self, Judged, Measures};
use crate::filter::classifier::{Classifier, Features, Label, features, file, seed};
use crate::filter::message::View;
use crate::filter::{Engine, Facts};

/// Arguments of `weir eval`.
#[derive(clap::Args)]
pub struct Args {
    /// Lines of `spam|ham FILE`, in the order of arrival.
    index: PathBuf,
    /// When the truth is told: `immediate`, `none`, or `delay=N` messages later.
    #[arg(long, default_value = "immediate", value_name = "WHEN")]
    feedback: Feedback,
    /// The model to begin with; it is not written back [default: an empty one]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// What judges.
    #[arg(long, value_enum, default_value = "classifier")]
    judge: Judge,
    /// Another index, judged after the stream with what was learned by then, and not learned.
    #[arg(long, value_name = "INDEX")]
    then: Option<PathBuf>,
    /// Learn from the first N messages only, and measure those behind them.
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Write the weightiest part of what was learned at the end: a model to begin with, such as the one that is built in.
    #[arg(long, value_name = "FILE")]
    write_seed: Option<PathBuf>,
    /// Print the measures only.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// What judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Judge {
    /// Both, added up.
    Both,
    /// The classifier.
    Classifier,
    /// The rules, with what attachments add.
    Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feedback {
    Delayed(usize),
    Never,
}

impl FromStr for Feedback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "immediate" => Ok(Feedback::Delayed(0)),
            "none" => Ok(Feedback::Never),
            _ => {
                let delay = text.strip_prefix("delay=").and_then(|number| number.parse().ok());
                delay.map(Feedback::Delayed).ok_or_else(|| "use `immediate`, `none` or `delay=N`".to_owned())
            }
        }
    }
}

/// Seed of the resampling; fixed, so that the same run prints the same interval.
const BOOTSTRAP_SEED: u64 = 1;
/// Messages whose features are held at once.
const BATCH_MESSAGES: usize = 512;

/// Judges the stream and prints.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    evaluate(args, &config.filter).map_err(|error| Exit::No.because(error))
}

fn evaluate(args: &Args, filter: &Filter) -> Result<(), String> {
    let lines = read_index(&args.index)?;
    let model = args.model.as_deref().map(file::load).transpose().map_err(|error| error.to_string())?;
    let rules = match args.judge {
        Judge::Classifier => None,
        Judge::Both | Judge::Rules => Some(Engine::open(filter, None).map_err(|error| error.to_string())?),
    };
    let mut stream = Stream {
        model: model.flatten().unwrap_or_default(),
        judge: args.judge,
        tag: filter.scores.bound("tag").map_or(f64::INFINITY, |bound| bound.score),
        feedback: args.feedback,
        waiting: VecDeque::new(),
    };
    let start = Instant::now();
    let mut judged = Vec::with_capacity(lines.len());
    let (trained, rest) = lines.split_at(args.train.unwrap_or(0).min(lines.len()));
    stream.pass(trained, rules.as_ref(), |_| {})?;
    if args.train.is_some() {
        stream.feedback = Feedback::Never;
    }
    let print = |one: Judged| {
        if !args.quiet {
            println!("{} {:.6} {}", word(one.spam), one.score, word(one.verdict_spam));
        }
    };
    stream.pass(rest, rules.as_ref(), |one| {
        print(one);
        judged.push(one);
    })?;
    let seconds = start.elapsed().as_secs_f64();
    eprint!("{}{}", report(&judged), calibration(&judged));
    eprintln!("{:.0} messages a second, reading included", lines.len() as f64 / seconds);
    if let Some(index) = &args.then {
        let mut later: Vec<Judged> = judged.iter().filter(|one| !one.spam).copied().collect();
        stream.feedback = Feedback::Never;
        stream.pass(&read_index(index)?, rules.as_ref(), |one| {
            print(one);
            later.push(one);
        })?;
        eprint!("{}, against the ham above\n{}", index.display(), report(&later));
    }
    if let Some(path) = &args.write_seed {
        fs::write(path, seed::encode(&stream.model)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn read_index(index: &Path) -> Result<Vec<(bool, PathBuf)>, String> {
    let text = fs::read_to_string(index).map_err(|error| format!("{}: {error}", index.display()))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    text.lines().enumerate().map(|(at, line)| parse_line(folder, line, at + 1)).collect()
}

fn parse_line(folder: &Path, line: &str, number: usize) -> Result<(bool, PathBuf), String> {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("spam"), Some(file)) => Ok((true, folder.join(file))),
        (Some("ham"), Some(file)) => Ok((false, folder.join(file))),
        _ => Err(format!("line {number} of the index: expected `spam FILE` or `ham FILE`, found `{line}`")),
    }
}

/// One message, read: what it is, its features, what the rules say.
type Mail = (bool, Features, f64);

fn read(batch: &[(bool, PathBuf)], rules: Option<&Engine>) -> Result<Vec<Mail>, String> {
    let one = |(spam, path): &(bool, PathBuf)| {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let points = rules.map_or(0.0, |rules| rules.judge(&bytes, &Facts::default()).score.value());
        Ok((*spam, features::extract(&View::read(&bytes)), points))
    };
    batch.par_iter().map(one).collect()
}

struct Stream {
    model: Classifier,
    judge: Judge,
    tag: f64,
    feedback: Feedback,
    waiting: VecDeque<(bool, Features)>,
}

impl Stream {
    fn pass(
        &mut self,
        lines: &[(bool, PathBuf)],
        rules: Option<&Engine>,
        mut each: impl FnMut(Judged),
    ) -> Result<(), String> {
        for batch in lines.chunks(BATCH_MESSAGES) {
            for (spam, features, points) in read(batch, rules)? {
                each(self.judged(spam, &features, points));
                self.learn(spam, features);
            }
        }
        Ok(())
    }

    fn judged(&self, spam: bool, features: &Features, points: f64) -> Judged {
        let opinion = self.model.judge(features);
        let (score, verdict_spam) = match self.judge {
            Judge::Classifier => (f64::from(opinion.log_odds), opinion.probability > 0.5),
            Judge::Rules => (points, points >= self.tag),
            Judge::Both => {
                let score = points + f64::from(opinion.score);
                (score, score >= self.tag)
            }
        };
        let probability = (self.judge == Judge::Classifier).then(|| f64::from(opinion.probability));
        Judged { spam, score, verdict_spam, probability }
    }

    fn learn(&mut self, spam: bool, features: Features) {
        let Feedback::Delayed(delay) = self.feedback else { return };
        self.waiting.push_back((spam, features));
        while self.waiting.len() > delay {
            let (spam, features) = self.waiting.pop_front().expect("more wait than may");
            self.model.learn(&features, if spam { Label::Spam } else { Label::Ham });
        }
    }
}

fn word(spam: bool) -> &'static str {
    if spam { "spam" } else { "ham" }
}

fn report(judged: &[Judged]) -> String {
    let measures = metrics::measure(judged);
    let line = |name: &str, of: fn(&Measures) -> f64| {
        let (low, high) = metrics::interval(judged, BOOTSTRAP_SEED, of);
        format!("{name:<28}{:>9.4}   ({low:.4} to {high:.4})\n", of(&measures))
    };
    [
        line("(1-ROCA)%", |measures| measures.one_minus_roca),
        line("LAM%", |measures| measures.lam),
        line("ham called spam %", |measures| measures.ham_loss),
        line("spam called ham %", |measures| measures.spam_miss),
        line("caught at 0.1 % ham loss %", |measures| measures.caught_at_01),
        line("caught at no ham loss %", |measures| measures.caught_at_none),
    ]
    .concat()
}

/// What the classifier's probabilities are worth; nothing if it said none.
fn calibration(judged: &[Judged]) -> String {
    let (bins, error) = metrics::reliability(judged);
    if bins.iter().all(|bin| bin.messages == 0) {
        return String::new();
    }
    let mut out = format!("calibration error {error:.4}; said to be spam, messages, mean said, share of spam\n");
    for (tenth, bin) in bins.iter().enumerate() {
        let (from, to) = (tenth as f64 / metrics::BINS as f64, (tenth + 1) as f64 / metrics::BINS as f64);
        out.push_str(&format!("  {from:.1} to {to:.1}{:>12}{:>10.3}{:>10.3}\n", bin.messages, bin.said, bin.was));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_words() {
        assert_eq!("immediate".parse(), Ok(Feedback::Delayed(0)));
        assert_eq!("delay=7".parse(), Ok(Feedback::Delayed(7)));
        assert!("later".parse::<Feedback>().is_err());
    }
}
