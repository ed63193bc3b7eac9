//! `weir learn spam|ham PATH…`: teaches the classifier. I/O: mail files; the model, or a running Weir.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::ValueEnum;
use rayon::prelude::*;

use super::api::Api;
use super::table::say;
use super::{ConfigFile, Exit, mail_files};
use crate::admin::model::{Lesson, Lessons, Taught};
use crate::config::settings;
use crate::filter::classifier::{Classifier, Features, Label, Learned, features, file};
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

/// Bytes of mail that are sent to a running Weir at once.
const BATCH_BYTES: usize = 1 << 20;

/// Learns all messages in the order given and saves the model. A running Weir has the model in memory, so it is the one that learns.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    let running = if args.model.is_none() { Api::running(&config) } else { None };
    let Taught { count, ham, spam } = match running {
        Some(api) => tell(args, &api)?,
        None => {
            let path = args.model.clone().unwrap_or_else(|| config.data_dir.join(file::DEFAULT_NAME));
            learn(args, &path, &config.filter.classifier).map_err(|error| Exit::No.because(error))?
        }
    };
    say(&format!("learned {count} messages; the model knows {ham} ham and {spam} spam"));
    Ok(())
}

fn learn(args: &Args, path: &Path, settings: &settings::Classifier) -> Result<Taught, String> {
    let files = mail_files::list(&args.paths)?;
    let features: Vec<Vec<Features>> = files
        .par_iter()
        .map(|file| {
            Ok(mail_files::read(file)?.iter().map(|mail| features::extract(&View::read(&mail.bytes))).collect())
        })
        .collect::<Result<_, String>>()?;
    let model = file::load(path).map_err(|error| error.to_string())?;
    let mut model = model.unwrap_or_else(|| Classifier::begin(settings));
    let label = if args.kind == Kind::Spam { Label::Spam } else { Label::Ham };
    let mut count = 0;
    for features in features.iter().flatten() {
        model.learn(features, label);
        count += 1;
    }
    file::save(&model, path).map_err(|error| error.to_string())?;
    let Learned { ham, spam } = model.learned();
    Ok(Taught { count, ham, spam })
}

/// Teaches a running Weir.
fn tell(args: &Args, api: &Api) -> Result<Taught, Exit> {
    let kind = if args.kind == Kind::Spam { Lesson::Spam } else { Lesson::Ham };
    let complain = |error: String| Exit::No.because(error);
    let mut taught = Taught { count: 0, ham: 0, spam: 0 };
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let mut send = |messages: &mut Vec<String>| {
        let lessons = Lessons { kind, messages: std::mem::take(messages) };
        let said: Taught = api.post("/v1/learn", &lessons)?;
        taught = Taught { count: taught.count + said.count, ..said };
        Ok(())
    };
    for file in mail_files::list(&args.paths).map_err(complain)? {
        for mail in mail_files::read(&file).map_err(complain)? {
            bytes += mail.bytes.len();
            messages.push(BASE64_STANDARD.encode(&mail.bytes));
            if bytes > BATCH_BYTES {
                send(&mut messages)?;
                bytes = 0;
            }
        }
    }
    send(&mut messages)?;
    Ok(taught)
}
