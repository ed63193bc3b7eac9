//! `weir rate`: who is near a limit. I/O: the API of a running Weir.

use std::time::Duration;

use clap::Subcommand;

use super::api::Api;
use super::{ConfigFile, Exit, table};
use crate::admin::model::{Acted, RateEntry, RateReset, RateUse};
use crate::admin::query::encode;
use crate::config::units::show_duration;

/// Arguments of `weir rate`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List keys, the fullest first.
    List {
        /// Only this key: all of it, one fact (login=alice), or a fact's value (alice).
        key: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Forget what is counted for a key.
    Reset {
        /// As for list.
        key: String,
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Asks, prints.
pub fn run(args: Args) -> Result<(), Exit> {
    let api = Api::find(&args.config)?;
    match args.what {
        What::List { key, limit, json } => list(&api, key.as_deref(), limit, json),
        What::Reset { key, json } => reset(&api, key, json),
    }
}

fn list(api: &Api, key: Option<&str>, limit: usize, json: bool) -> Result<(), Exit> {
    let key = key.map(|key| format!("&key={}", encode(key))).unwrap_or_default();
    let entries: Vec<RateEntry> = api.get(&format!("/v1/rates?limit={limit}{key}"))?;
    let window = |window: &RateUse| {
        format!("{}/{} in {}", window.used, window.limit, show_duration(Duration::from_secs(window.period_secs)))
    };
    let used = |entry: &RateEntry| entry.windows.iter().map(window).collect::<Vec<String>>().join(", ");
    let row = |entry: &RateEntry| vec![entry.key.clone(), used(entry), entry.rate.clone()];
    table::list(json, &entries, &["KEY", "USED", "RATE"], row, "nothing");
    Ok(())
}

fn reset(api: &Api, key: String, json: bool) -> Result<(), Exit> {
    let acted: Acted = api.post("/v1/rates/reset", &RateReset { key })?;
    table::tell(json, &acted, |acted| format!("{} keys", acted.count));
    Exit::No.unless(acted.count > 0)
}
