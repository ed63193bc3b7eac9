//! `weir trace`: decisions by client, sender, recipient, time. I/O: the trace of `data_dir`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::explain::{time, unreadable};
use super::table::{print, print_json, say};
use super::{ConfigFile, Exit};
use crate::admin::model::Filter;
use crate::config::units::{duration, network};
use crate::filter::Points;
use crate::observe::trace::read::{Wanted, as_json, each};
use crate::observe::trace::{self, Entry, Record};

/// Arguments of `weir trace`.
#[derive(clap::Args)]
pub struct Args {
    /// Only of this client, or of this network.
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    ip: Option<IpNet>,
    /// Only from this address, or @domain; <> for the null reverse-path.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Only to this address, or @domain.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Only with this Message-ID.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Only what came to this: accepted, deferred, discarded, held, quarantined, rejected.
    #[arg(long, value_name = "WORD")]
    fate: Option<String>,
    /// Only this long back, such as 24h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// The last so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Args {
    fn wanted(&self) -> Wanted {
        // Letters differ in case there and here, and an address in a network is not known yet.
        let words = [&self.message_id].into_iter().flatten().map(|word| as_json(word.trim_matches(['<', '>'])));
        let since = self.since.and_then(|since| SystemTime::now().checked_sub(since));
        Wanted { since, words: words.collect(), door: true }
    }

    fn fits(&self, record: &Record) -> bool {
        let from = record.from.as_deref().unwrap_or_default();
        let in_network = |network: &IpNet| network.contains::<&IpAddr>(&record.client.ip.to_canonical());
        self.ip.as_ref().is_none_or(in_network)
            && self.from.as_ref().is_none_or(|wanted| Filter::address_matches(wanted, from))
            && self.to.as_ref().is_none_or(|wanted| record.to.iter().any(|to| Filter::address_matches(wanted, to)))
            && self.message_id.as_ref().is_none_or(|wanted| record.is_called(wanted))
            && self.fate.as_ref().is_none_or(|fate| record.fate == *fate)
    }
}

/// Looks, prints.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    // The newest of both kinds, by time.
    let mut last = BTreeMap::new();
    each(&config.data_dir.join(trace::FOLDER), &args.wanted(), |found| {
        if let Entry::Decision(record) = found.entry
            && args.fits(&record)
        {
            last.insert((record.at, record.id.clone()), *record);
            if last.len() > args.limit {
                last.pop_first();
            }
        }
        true
    })
    .map_err(unreadable)?;
    if args.json {
        last.values().for_each(print_json);
    } else if last.is_empty() {
        say("nothing");
    } else {
        let rows: Vec<Vec<String>> = last.values().map(row).collect();
        print(&["REFERENCE", "TIME", "DECISION", "SCORE", "CLIENT", "FROM", "TO", "REASON"], &rows);
    }
    Exit::No.unless(!last.is_empty())
}

fn row(record: &Record) -> Vec<String> {
    let score = record.parcels.first().and_then(|parcel| parcel.score);
    let more = record.to.len().saturating_sub(1);
    let to = record.to.first().map_or("", String::as_str);
    vec![
        record.id.clone(),
        time(record.at),
        record.fate.clone(),
        score.map_or_else(String::new, |score| Points::new(score).to_string()),
        record.client.ip.to_string(),
        format!("<{}>", record.from.as_deref().unwrap_or_default()),
        if more > 0 { format!("{to} +{more}") } else { to.to_owned() },
        record.decided.reason.clone(),
    ]
}
