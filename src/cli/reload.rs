//! `weir reload`: a running Weir reads its configuration again. I/O: the API of a running Weir.

use super::api::Api;
use super::table::say;
use super::{ConfigFile, Exit};
use crate::admin::model::Reloaded;

/// Arguments of `weir reload`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

/// Asks, and says what came of it; a bad configuration leaves the old one in force.
pub fn run(args: &Args) -> Result<(), Exit> {
    let Reloaded { ok, text } = Api::find(&args.config)?.post("/v1/reload", &serde_json::json!({}))?;
    if ok {
        say(if text.is_empty() { "reloaded" } else { text.trim_end() });
    } else {
        eprintln!("{}\nthe old configuration stays in force", text.trim_end());
    }
    Exit::No.unless(ok)
}
