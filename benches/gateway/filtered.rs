//! Identity and filter on, from accept to delivered: Weir beside Postfix with Rspamd as its milter.
//!
//! Both ask one resolver, which answers at once that nothing exists; both write their results and refuse nothing, so that every message arrives.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Plan;
use crate::nowhere::nowhere;
use crate::subject::{LOG_LEVEL, Running, Subject, postfix_with, weir_with};
use crate::work::{Measured, WORKS, Work};

/// What the project has set.
const TARGET: f64 = 8.0;

/// Weir with all checks of an mx listener, in the mode that refuses nothing.
pub fn start_weir(folder: TempDir, to: Option<SocketAddr>) -> Running {
    let next = to.map_or("discard:".to_owned(), |to| format!("smtp://{to}?tls=none"));
    let more = format!(
        "[[domain]]\nname = \"example.net\"\ndeliver_to = \"{next}\"\nrecipients = \"any\"\n[dns]\nservers = [\"{}\"]\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"mx\"\nname = \"filtered\"\nverify = \"tag\"\nfilter = \"tag\"\n",
        nowhere()
    );
    weir_with(folder, LOG_LEVEL, to, "off", &more).at("filtered")
}

/// Rspamd and, before it, Postfix.
pub fn start_postfix(folder: TempDir, to: Option<SocketAddr>) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/rspamd.sh");
    let home = folder.path().join("rspamd");
    let mut command = Command::new("bash");
    command.arg(script).arg("start").arg(&home).env("DNS", nowhere().to_string()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let milter = text.lines().find_map(|line| line.strip_prefix("MILTER=")).expect("rspamd.sh says where");
    postfix_with(folder, to, &format!("inet:{milter}"))
}

/// Ends the Rspamd below `folder`, if there is one.
pub fn stop_rspamd(folder: &Path) {
    if let Ok(pid) = fs::read_to_string(folder.join("rspamd/run/rspamd.pid")) {
        let _ = Command::new("kill").arg(pid.trim()).output();
    }
}

/// Measures both and prints the ratio.
pub fn milter(plan: &Plan) {
    if !plan.wants("milter") {
        return;
    }
    let missing =
        [Subject::Postfix.missing(), (!Path::new("/usr/bin/rspamd").exists()).then_some("Rspamd is not installed")];
    if let Some(why) = missing.into_iter().flatten().next() {
        return println!("skipped: {why}");
    }
    let work = Work { name: "identity and filter on, accept to delivered", relay: true, ..WORKS[0] };
    println!("\n{}, {} connections, {} bytes; the best of {} runs", work.name, work.connections, work.size, plan.runs);
    let best = |subject: Subject| {
        let runs = (0..plan.runs).map(|_| work.run(subject, plan));
        runs.max_by(|a, b| a.per_second.total_cmp(&b.per_second)).unwrap_or_default()
    };
    let mut rates = Vec::new();
    for subject in [Subject::WeirFiltered, Subject::PostfixRspamd] {
        let Measured { per_second, cpu_micros, p99_ms } = best(subject);
        println!("  {:<22} {per_second:>9.0}/s  {cpu_micros:>7.1} us CPU  p99 {p99_ms:>8.2} ms", subject.name());
        rates.push(per_second);
    }
    println!("  Weir / Postfix with Rspamd: {:.1} (target {TARGET})", rates[0] / rates[1].max(1.0));
}
