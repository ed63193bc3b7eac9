//! `weir scan FILE…`: the verdict on messages with every symbol, without side effects. I/O: reads mail, prints.

use std::fmt::Write;
use std::path::PathBuf;

use rayon::prelude::*;
use serde_json::json;

use super::{ConfigFile, Exit, mail_files};
use crate::config::Config;
use crate::filter::classifier::file;
use crate::filter::engine::{TOGETHER_BYTES_MAX, TOGETHER_MAX};
use crate::filter::{Engine, Facts, Verdict};

/// Arguments of `weir scan`.
#[derive(clap::Args)]
pub struct Args {
    /// Files, folders, mbox files; `-` for standard input.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// One JSON object a message.
    #[arg(long)]
    json: bool,
    /// The model [default: classifier.model in data_dir]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Rule files or folders, in place of the configured ones.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

/// Scans all messages on all cores; the exit code is `No` if any is spam.
pub fn run(args: &Args) -> Result<(), Exit> {
    let mut config = args.config.load_or_complain()?;
    if !args.rules.is_empty() {
        config.filter.rules = args.rules.clone();
    }
    let any_spam = scan(args, &config).map_err(|error| Exit::Temporary.because(error))?;
    Exit::No.unless(!any_spam)
}

/// Files that are judged before their results are printed.
const BATCH_FILES: usize = 256;

fn scan(args: &Args, config: &Config) -> Result<bool, String> {
    let model = args.model.clone().unwrap_or_else(|| config.data_dir.join(file::DEFAULT_NAME));
    let engine = Engine::open(&config.filter, Some(&model)).map_err(|error| error.to_string())?;
    let mut any_spam = false;
    for batch in mail_files::list(&args.paths)?.chunks(BATCH_FILES) {
        let judged: Vec<Vec<(String, Verdict)>> =
            batch.par_chunks(TOGETHER_MAX).map(|paths| judge(&engine, paths)).collect::<Result<_, String>>()?;
        for (origin, verdict) in judged.iter().flatten() {
            any_spam |= verdict.is_spam();
            print!("{}", if args.json { show_json(origin, verdict) } else { show(origin, verdict) });
        }
    }
    Ok(any_spam)
}

fn judge(engine: &Engine, paths: &[PathBuf]) -> Result<Vec<(String, Verdict)>, String> {
    let (facts, mut waiting, mut judged) = (Facts::default(), Vec::new(), Vec::new());
    for (place, path) in paths.iter().enumerate() {
        waiting.append(&mut mail_files::read(path)?);
        let bytes: usize = waiting.iter().map(|mail| mail.bytes.len()).sum();
        if bytes > TOGETHER_BYTES_MAX || place + 1 == paths.len() {
            let cases: Vec<(&[u8], &Facts)> = waiting.iter().map(|mail| (&*mail.bytes, &facts)).collect();
            let verdicts = engine.judge_together(&cases);
            judged.extend(waiting.drain(..).map(|mail| mail.origin).zip(verdicts));
        }
    }
    Ok(judged)
}

fn show(origin: &str, verdict: &Verdict) -> String {
    let mut out = format!("{origin}: {} score={}\n", verdict.action.as_str(), verdict.score);
    for symbol in &verdict.symbols {
        let evidence = symbol.evidence.as_deref().unwrap_or_default();
        let shadow = if symbol.shadow { " (shadow)" } else { "" };
        let points = symbol.points.to_string();
        writeln!(out, "  {points:>7} {:<28} {}{shadow}", symbol.name, symbol.description)
            .expect("a String takes any write");
        if !evidence.is_empty() {
            writeln!(out, "          {:<28} {evidence}", "").expect("a String takes any write");
        }
    }
    out
}

fn show_json(origin: &str, verdict: &Verdict) -> String {
    let symbols: Vec<_> = verdict
        .symbols
        .iter()
        .map(|symbol| {
            json!({
                "name": symbol.name,
                "points": symbol.points.value(),
                "description": symbol.description,
                "evidence": symbol.evidence,
                "shadow": symbol.shadow,
            })
        })
        .collect();
    let line = json!({
        "file": origin,
        "action": verdict.action.as_str(),
        "score": verdict.score.value(),
        "probability": verdict.probability,
        "symbols": symbols,
    });
    format!("{line}\n")
}
