//! `weir eval INDEX`: judges a labelled stream of messages, learning as told, and measures. I/O: reads mail, prints.
//!
//! The index has one line a message, `LABEL FILE …`, in the order of arrival; files are beside it. Each message is judged
//! before it is learned. Standard output has one `LABEL SCORE VERDICT` line a message; measures go to standard error, so that the
//! lines can be piped into another scorer.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use rayon::prelude::*;

use super::Exit;
use crate::filter::classifier::metrics::{self, Judged, Measures};
use crate::filter::classifier::{Classifier, Features, Label, features, file};
use crate::filter::message::View;

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
    /// Print the measures only.
    #[arg(long, short)]
    quiet: bool,
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
pub fn run(args: &Args) -> Exit {
    match evaluate(args) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("{error}");
            Exit::No
        }
    }
}

fn evaluate(args: &Args) -> Result<(), String> {
    let text = fs::read_to_string(&args.index).map_err(|error| format!("{}: {error}", args.index.display()))?;
    let folder = args.index.parent().unwrap_or(Path::new("."));
    let lines: Vec<(bool, PathBuf)> =
        text.lines().enumerate().map(|(at, line)| parse_line(folder, line, at + 1)).collect::<Result<_, _>>()?;
    let model = args.model.as_deref().map(file::load).transpose().map_err(|error| error.to_string())?;
    let mut stream = Stream {
        model: model.flatten().unwrap_or_default(),
        feedback: args.feedback,
        waiting: VecDeque::new(),
        judged: Vec::with_capacity(lines.len()),
    };
    let start = Instant::now();
    for batch in lines.chunks(BATCH_MESSAGES) {
        for (spam, features) in read(batch)? {
            let judged = stream.next(spam, features);
            if !args.quiet {
                println!("{} {:.6} {}", word(spam), judged.score, word(judged.verdict_spam));
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    eprint!("{}", report(&stream.judged));
    eprintln!("{:.0} messages a second, reading included", lines.len() as f64 / seconds);
    Ok(())
}

fn parse_line(folder: &Path, line: &str, number: usize) -> Result<(bool, PathBuf), String> {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("spam"), Some(file)) => Ok((true, folder.join(file))),
        (Some("ham"), Some(file)) => Ok((false, folder.join(file))),
        _ => Err(format!("line {number} of the index: expected `spam FILE` or `ham FILE`, found `{line}`")),
    }
}

fn read(batch: &[(bool, PathBuf)]) -> Result<Vec<(bool, Features)>, String> {
    let one = |(spam, path): &(bool, PathBuf)| {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((*spam, features::extract(&View::read(&bytes))))
    };
    batch.par_iter().map(one).collect()
}

struct Stream {
    model: Classifier,
    feedback: Feedback,
    waiting: VecDeque<(bool, Features)>,
    judged: Vec<Judged>,
}

impl Stream {
    fn next(&mut self, spam: bool, features: Features) -> Judged {
        let opinion = self.model.judge(&features);
        let judged = Judged { spam, score: f64::from(opinion.log_odds), verdict_spam: opinion.probability > 0.5 };
        self.judged.push(judged);
        if let Feedback::Delayed(delay) = self.feedback {
            self.waiting.push_back((spam, features));
            while self.waiting.len() > delay {
                let (spam, features) = self.waiting.pop_front().expect("more wait than may");
                self.model.learn(&features, if spam { Label::Spam } else { Label::Ham });
            }
        }
        judged
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
