//! `weir check`: reads the configuration with the code that serves, and shows what it means. I/O: files, standard output.
//!
//! Rules that can't be loaded are named, but are no error of the configuration: sets of others always have some, and the gateway
//! runs without them.

use super::table::say;
use super::{ConfigFile, Exit};
use crate::config::settings::Filter;
use crate::filter::rules::{Rules, Severity, Source};

/// Arguments of `weir check`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print nothing if all is well.
    #[arg(long, short)]
    quiet: bool,
}

/// Checks, and prints the summary or every error.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    if !args.quiet {
        let source = args.config.path().map_or("built-in defaults".to_owned(), |path| path.display().to_string());
        say(&format!("{source}: no errors\n\n{}", config.summary().trim_end()));
    }
    let (loaded, problems) = rules(&config.filter, args.quiet);
    if !args.quiet {
        say(&format!("rules       {loaded}"));
    }
    if !problems.is_empty() {
        say(problems.trim_end());
    }
    Ok(())
}

/// How many rules are loaded, and a line for each problem with them; only for errors if `quiet`.
fn rules(filter: &Filter, quiet: bool) -> (String, String) {
    let rules = Rules::load(Source::configured(filter));
    let errors = rules.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let shown = rules.problems.iter().filter(|problem| !quiet || problem.severity == Severity::Error);
    let loaded = format!(
        "{} of {} loaded, {errors} errors, {} notes",
        rules.loaded(),
        rules.rules.len(),
        rules.problems.len() - errors
    );
    (loaded, shown.map(|problem| format!("{problem}\n")).collect())
}
