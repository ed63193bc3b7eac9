//! `weir check`: reads the configuration with the code that serves, and shows what it means. I/O: files, standard output.

use super::table::say;
use super::{ConfigFile, Exit};

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
    Ok(())
}
