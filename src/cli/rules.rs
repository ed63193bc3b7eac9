//! `weir rules check|ledger`: loads rules as the filter does and shows what is not in force. I/O: rule files, standard output.

use std::path::PathBuf;

use super::{ConfigFile, Exit, ledger};
use crate::filter::rules::{Rules, Severity, Source};

/// Arguments of `weir rules`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Load rules, run their examples, and list what is not in force.
    Check(CheckArgs),
    /// What each rule did, by the records: hits, hits that decided, hits on mail that was released.
    Ledger(ledger::Args),
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Rule files or folders [default: the configured ones]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show errors only, not what is left out knowingly.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs the subcommand; `No` if a rule can't be loaded or an example fails.
pub fn run(args: &Args) -> Result<(), Exit> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Ledger(args) => ledger::run(args),
    }
}

fn check(args: &CheckArgs) -> Result<(), Exit> {
    let source = match args.paths.as_slice() {
        [] => Source::configured(&args.config.load_or_complain()?.filter),
        paths => Source::read(paths),
    };
    let rules = Rules::load(source);
    let failing = rules.failing_examples();
    let problems = rules.problems.iter().chain(&failing);
    let shown = problems.clone().filter(|problem| !args.quiet || problem.severity == Severity::Error);
    shown.for_each(|problem| println!("{problem}"));
    let errors = problems.filter(|problem| problem.severity == Severity::Error).count();
    println!(
        "{} of {} rules loaded, {} of {} examples hold, {errors} errors",
        rules.loaded(),
        rules.rules.len(),
        rules.example_count() - failing.len(),
        rules.example_count(),
    );
    Exit::No.unless(errors == 0)
}
