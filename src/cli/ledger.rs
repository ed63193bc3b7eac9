//! `weir rules ledger`: what each rule is good for, and what it costs. I/O: the trace of `data_dir`, the API of a running Weir.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::api::Api;
use super::explain::unreadable;
use super::table::{print, print_json, say};
use super::{ConfigFile, Exit};
use crate::admin::model::RuleCost;
use crate::config::Config;
use crate::config::units::duration;
use crate::flow::ledger::{Account, Ledger};
use crate::observe::trace::read::{Wanted, each};
use crate::observe::trace::{self};

/// Arguments of `weir rules ledger`.
#[derive(clap::Args)]
pub struct Args {
    /// How far back [default: all that is recorded]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Adds up, prints; the exit code is `No` if nothing was recorded.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    let mut ledger = Ledger::default();
    let since = args.since.and_then(|since| SystemTime::now().checked_sub(since));
    each(&config.data_dir.join(trace::FOLDER), &Wanted { since, ..Wanted::default() }, |found| {
        ledger.add(&found.entry);
        true
    })
    .map_err(unreadable)?;
    let micros = micros_a_run(&config);
    let mut accounts: Vec<(&String, &Account)> = ledger.accounts.iter().collect();
    accounts.sort_by_key(|(_, account)| std::cmp::Reverse((account.deciding, account.hits)));
    if args.json {
        print_json(&json!({ "messages": ledger.messages, "rules": ledger.accounts, "micros": micros }));
    } else {
        let row = |(name, account): &(&String, &Account)| {
            let numbers = [account.hits, account.spam, account.deciding, account.released];
            let mut row = vec![(*name).clone()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(micros.get(*name).map_or("-".to_owned(), |micros| format!("{micros:.1}")));
            row
        };
        let rows: Vec<Vec<String>> = accounts.iter().map(row).collect();
        print(&["RULE", "HITS", "ON SPAM", "DECIDING", "RELEASED", "MICROS"], &rows);
        say(&format!("{} messages judged", ledger.messages));
    }
    Exit::No.unless(ledger.messages > 0)
}

/// Microseconds that a run of each rule takes in the Weir that runs; nothing if none does. A meta runs nothing of its own.
fn micros_a_run(config: &Config) -> HashMap<String, f64> {
    let costs: Vec<RuleCost> = Api::running(config).and_then(|api| api.get("/v1/rules").ok()).unwrap_or_default();
    costs.into_iter().map(|cost| (cost.rule, cost.nanoseconds as f64 / 1000.0 / cost.tried as f64)).collect()
}
