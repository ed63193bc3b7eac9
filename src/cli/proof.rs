//! `weir queue verify` and `weir audit`: proof that nothing was lost. I/O: the API of a running Weir, or a stopped one's spool.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::api::Api;
use super::table::{plain, tell};
use super::{ConfigFile, Exit};
use crate::admin::model::{Audited, Verified};
use crate::base::audit::Audit;
use crate::base::unix;
use crate::config::Config;
use crate::config::units::duration;
use crate::flow::backend::{audited, period, verified};
use crate::spool;

/// Arguments of `weir audit`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// From the hour of this time on: 2026-11-22T10:00:00Z, or how long ago, such as 24h [default: all that is known]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Until the end of the hour of this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// A date, or a duration before now, as seconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(stamp.as_second().max(0).unsigned_abs());
    }
    let ago: Duration = duration(text).map_err(|_| "neither 2026-11-22T10:00:00Z nor a duration such as 24h")?;
    Ok(SystemTime::now().checked_sub(ago).map_or(0, unix::secs))
}

/// Asks the running Weir, or looks at the spool of a stopped one; the text says which.
fn ask<T>(
    config: &ConfigFile,
    running: impl FnOnce(&Api) -> Result<T, Exit>,
    stopped: impl FnOnce(&Path) -> std::io::Result<T>,
) -> Result<(T, String), Exit> {
    let config: Config = config.load_or_complain()?;
    if let Some(api) = Api::running(&config) {
        return running(&api).map(|answer| (answer, "the running Weir".to_owned()));
    }
    let directory = &config.spool.directory;
    let place = directory.display();
    if !directory.is_dir() {
        return Err(Exit::No.because(format!("no Weir runs, and there is no spool in {place}")));
    }
    let answer = stopped(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            Exit::Temporary.because(format!("a Weir that does not answer has the spool in {place}"))
        }
        _ => Exit::No.because(format!("the spool in {place} can't be read: {error}")),
    })?;
    Ok((answer, format!("the stopped spool in {place}")))
}

/// `weir queue verify`.
pub(super) fn verify(config: &ConfigFile, json: bool) -> Result<(), Exit> {
    let (report, whose): (Verified, String) =
        ask(config, |api| api.get("/v1/queue/verify"), |path| spool::verify_stopped(path).map(verified))?;
    tell(json, &report, |report| verify_text(report, &whose));
    Exit::No.unless(report.clean)
}

fn verify_text(report: &Verified, whose: &str) -> String {
    let mut lines = vec![format!(
        "{whose}: {} records read and checked, {} messages in the queue",
        report.records, report.messages
    )];
    for damage in &report.damage {
        let (segment, offset, bytes) = (damage.segment, damage.offset, damage.bytes);
        lines.push(format!("damaged: segment {segment}, {bytes} bytes at {offset}"));
    }
    if report.differences > 0 {
        lines.push(format!(
            "{} messages are known differently: {}",
            report.differences,
            plain(&report.named.join(" "))
        ));
    }
    if !report.books_agree {
        lines.push("the books do not agree".to_owned());
    }
    lines.push(if report.clean { "clean" } else { "not clean" }.to_owned());
    lines.join("\n")
}

/// `weir audit`.
pub fn audit(args: &Args) -> Result<(), Exit> {
    let (from, to) = (args.from, args.to);
    let ends: Vec<String> =
        [("from", from), ("to", to)].iter().filter_map(|(name, at)| Some(format!("{name}={}", (*at)?))).collect();
    let stopped = |path: &Path| {
        let (from, to) = period(from, to, SystemTime::now());
        spool::audit_stopped(path, from, to).map(|audit| audited(from, to, audit))
    };
    let (audit, whose): (Audited, String) =
        ask(&args.config, |api| api.get(&format!("/v1/audit?{}", ends.join("&"))), stopped)?;
    tell(args.json, &audit, |audit| audit_text(audit, &whose));
    Exit::No.unless(missing(&audit.audit).is_none())
}

/// What keeps the equation from holding.
fn missing(audit: &Audit) -> Option<String> {
    if audit.lost != 0 {
        return Some(format!("{} recipients were lost to damage of the disk", audit.lost));
    }
    if !audit.balanced {
        return Some(format!("the queue holds {} recipients, which is not what the books say", audit.queued_now));
    }
    let gone = audit.delivered + audit.bounced + audit.expired + audit.discarded + audit.dropped;
    let difference = audit.opening + audit.accepted - gone - audit.closing;
    (difference != 0).then(|| format!("{difference} recipients are missing"))
}

fn audit_text(Audited { from, to, audit }: &Audited, whose: &str) -> String {
    let day = |secs: u64| {
        let stamp = i64::try_from(secs).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
        stamp.map_or_else(|| secs.to_string(), |stamp| stamp.strftime("%Y-%m-%d %H:%M UTC").to_string())
    };
    let from = if *from == 0 { "the beginning".to_owned() } else { format!("the hour of {}", day(*from)) };
    let Audit { opening, accepted, delivered, bounced, expired, discarded, dropped, closing, .. } = audit;
    let queue = format!("queue now {}, of these in quarantine {}", audit.queued_now, audit.quarantined_now);
    let verdict = missing(audit).map_or("adds up".to_owned(), |what| format!("does not add up: {what}"));
    format!(
        "{whose}, in recipients, from {from} to the hour of {}\n\
         queued before {opening} + accepted {accepted} = delivered {delivered} + bounced {bounced} + expired {expired} \
         + discarded {discarded} + dropped {dropped} + queued after {closing}\n{queue}\n{verdict}",
        day(*to)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited() -> Audited {
        let text = r#"{"from":0,"to":3600,"opening":1,"accepted":9,"delivered":4,"bounced":1,"expired":0,"discarded":0,
            "dropped":2,"lost":0,"closing":3,"queued_now":3,"quarantined_now":1,"balanced":true}"#;
        serde_json::from_str(text).expect("our own form")
    }

    #[test]
    fn the_equation_is_shown_with_its_numbers_and_its_verdict() {
        let text = audit_text(&audited(), "the running Weir");
        assert!(text.contains("queued before 1 + accepted 9 = delivered 4 + bounced 1"), "{text}");
        assert!(text.ends_with("\nadds up"), "{text}");
        let whole = audited().audit;
        let unbalanced = Audited { audit: Audit { balanced: false, ..whole }, ..audited() };
        assert!(
            audit_text(&unbalanced, "x")
                .ends_with("does not add up: the queue holds 3 recipients, which is not what the books say")
        );
        assert!(missing(&Audit { lost: 2, ..whole }).is_some_and(|what| what.starts_with("2 recipients were lost")));
        assert!(missing(&Audit { closing: 2, ..whole }).is_some());
    }

    #[test]
    fn a_time_is_a_date_or_an_age() {
        assert_eq!(time("1970-01-01T01:00:00Z"), Ok(3600));
        assert!(time("24h").is_ok_and(|at| at > 1_600_000_000));
        assert!(time("yesterday").is_err());
    }
}
