//! `weir report`: reads reports of others, shows what a running Weir got and collects, and sends what is due. I/O: files, standard input; the API.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::api::Api;
use super::table::{age, list, plain, print, print_json, say, tell};
use super::{ConfigFile, Exit};
use crate::admin::model::{ReportReceived, ReportSend, ReportWaiting, ReportsSent};
use crate::admin::query::encode;
use crate::base::report::{Row, Summary};
use crate::base::unix;
use crate::config::units::duration;
use crate::verify::reports::read::read;

/// A file that is larger is not read; reports end far below.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Without `--since`: reports come daily, and a month shows what changed.
const SINCE_DEFAULT: &str = "30d";

/// Arguments of `weir report`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read reports: mail messages, or bare XML, JSON, gzip and zip; DMARC aggregate, DMARC failure, abuse and TLS.
    Read {
        /// Files; `-` is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what came to `[reports]` inbox.
    Summary {
        /// Only about this domain, or below it
        #[arg(long)]
        domain: Option<String>,
        /// Only what came in the last "7d", "12h" …
        #[arg(long, default_value = SINCE_DEFAULT, value_parser = duration)]
        since: Duration,
        /// At most so many reports, the newest
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// JSON, with all rows, instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show what is collected for reports of ours.
    Waiting {
        /// At most so many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Send the reports that are due.
    Send {
        /// Today's too, as far as today has come
        #[arg(long)]
        now: bool,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Reads or asks, prints.
pub fn run(args: Args) -> Result<(), Exit> {
    let api = || Api::find(&args.config);
    match args.what {
        What::Read { files, json } => read_files(&files, json),
        What::Summary { domain, since, limit, json } => summary(&api()?, domain.as_deref(), since, limit, json),
        What::Waiting { limit, json } => waiting(&api()?, limit, json),
        What::Send { now, json } => send(&api()?, now, json),
    }
}

/// Says no if a file is no report; the others are shown all the same.
fn read_files(files: &[PathBuf], json: bool) -> Result<(), Exit> {
    let (mut all, mut bad) = (Vec::new(), false);
    for file in files {
        match bytes_of(file).and_then(|bytes| read(&bytes)) {
            Ok(summary) if json => all.push(json!({ "file": file, "report": summary })),
            Ok(summary) => show(&summary),
            Err(error) => {
                bad = true;
                eprintln!("error: {}: {}", file.display(), plain(&error));
                all.push(json!({ "file": file, "error": error }));
            }
        }
    }
    if json {
        print_json(&all);
    }
    Exit::No.unless(!bad)
}

fn bytes_of(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| error.to_string())?)
    };
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err("too large".to_owned()) } else { Ok(bytes) }
}

fn show(summary: &Summary) {
    let Summary { kind, organization, domain, id, begin, end, rows } = summary;
    say(&plain(&format!("{kind} report about {domain} by {organization}, {} to {} ({id})", day(*begin), day(*end))));
    let cells = |row: &Row| vec![row.source.clone(), row.count.to_string(), row.failed.to_string(), row.detail.clone()];
    print(&["SOURCE", "COUNT", "FAILED", "DETAIL"], &rows.iter().map(cells).collect::<Vec<_>>());
}

fn day(secs: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(secs.min(u32::MAX.into()));
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%d").to_string()
}

fn summary(api: &Api, domain: Option<&str>, since: Duration, limit: usize, json: bool) -> Result<(), Exit> {
    let since = SystemTime::now().checked_sub(since).map_or(0, unix::secs);
    let domain = domain.map(|domain| format!("&domain={}", encode(domain))).unwrap_or_default();
    let reports: Vec<ReportReceived> = api.get(&format!("/v1/reports/received?limit={limit}&since={since}{domain}"))?;
    let cells = |report: &ReportReceived| {
        let summary = &report.summary;
        let sum = |count: fn(&Row) -> u64| summary.rows.iter().map(count).sum::<u64>();
        vec![
            age(report.at),
            summary.kind.clone(),
            summary.domain.clone(),
            day(summary.begin),
            sum(|row| row.count).to_string(),
            sum(|row| row.failed).to_string(),
            if report.dmarc.is_empty() { "-".to_owned() } else { report.dmarc.clone() },
            summary.organization.clone(),
        ]
    };
    let header = ["AGE", "KIND", "DOMAIN", "DAY", "COUNT", "FAILED", "DMARC", "BY"];
    list(json, &reports, &header, cells, "no reports came");
    Ok(())
}

fn waiting(api: &Api, limit: usize, json: bool) -> Result<(), Exit> {
    let waiting: Vec<ReportWaiting> = api.get(&format!("/v1/reports/waiting?limit={limit}"))?;
    let cells = |one: &ReportWaiting| {
        vec![one.kind.clone(), one.domain.clone(), age(one.begin), one.rows.to_string(), one.count.to_string()]
    };
    list(json, &waiting, &["KIND", "DOMAIN", "SINCE", "ROWS", "COUNT"], cells, "nothing");
    Ok(())
}

fn send(api: &Api, now: bool, json: bool) -> Result<(), Exit> {
    let sent: ReportsSent = api.post("/v1/reports/send", &ReportSend { now })?;
    tell(json, &sent, |sent| {
        let lines = sent.lines.iter().map(|line| plain(line) + "\n").collect::<String>();
        format!("{lines}{} sent, {} not", sent.sent, sent.failed)
    });
    Ok(())
}
