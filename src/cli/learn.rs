//! `weir learn spam|ham PATH…`: teaches the classifier. I/O: mail files, the model.

use std::path::PathBuf;

use clap::ValueEnum;
use rayon::prelude::*;

use super::table::say;
use super::{ConfigFile, Exit, mail_files};
use crate::filter::classifier::{Features, Label, features, file};
use crate::filter::message::View;

/// Arguments of `weir learn`.
#[derive(clap::Args)]
pub struct Args {
    /// What the messages are.
    #[arg(value_enum)]
    kind: Kind,
    /// Files, folders, mbox files; `-` for standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The model [default: classifier.model in data_dir]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Wanted mail.
    Ham,
    /// Unwanted mail.
    Spam,
}

/// Learns all messages in the order given and saves the model.
pub fn run(args: &Args) -> Result<(), Exit> {
    let path = match &args.model {
        Some(path) => path.clone(),
        None => args.config.load_or_complain()?.data_dir.join(file::DEFAULT_NAME),
    };
    say(&learn(args, &path).map_err(|error| Exit::No.because(error))?);
    Ok(())
}

fn learn(args: &Args, path: &std::path::Path) -> Result<String, String> {
    let files = mail_files::list(&args.paths)?;
    let features: Vec<Vec<Features>> = files
        .par_iter()
        .map(|file| {
            Ok(mail_files::read(file)?.iter().map(|mail| features::extract(&View::read(&mail.bytes))).collect())
        })
        .collect::<Result<_, String>>()?;
    let mut model = file::load(path).map_err(|error| error.to_string())?.unwrap_or_default();
    let label = if args.kind == Kind::Spam { Label::Spam } else { Label::Ham };
    let mut count = 0;
    for features in features.iter().flatten() {
        model.learn(features, label);
        count += 1;
    }
    file::save(&model, path).map_err(|error| error.to_string())?;
    let all = model.learned();
    Ok(format!("learned {count} messages; the model knows {} ham and {} spam", all.ham, all.spam))
}
