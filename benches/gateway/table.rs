//! The works one after the other, and their table.

use crate::Plan;
use crate::subject::Subject;
use crate::work::{Measured, WORKS, Work};

/// The middle of several runs, each figure by itself.
fn median(runs: &[Measured]) -> Measured {
    let middle = |figure: fn(&Measured) -> f64| {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Measured {
        per_second: middle(|run| run.per_second),
        cpu_micros: middle(|run| run.cpu_micros),
        p99_ms: middle(|run| run.p99_ms),
    }
}

pub fn accept_and_relay(plan: &Plan) {
    let wanted: Vec<&Work> = WORKS.iter().filter(|work| plan.wants(work.name)).collect();
    if wanted.is_empty() {
        return;
    }
    for subject in Subject::ALL {
        if let Some(why) = subject.missing() {
            println!("skipped: {why}");
        }
    }
    println!("median of {} runs of {} s, one run of the rivals; CPU is the server's", plan.runs, plan.seconds);
    let mut rates = Vec::new();
    for work in wanted {
        let found = measure(work, plan);
        report(work, &found);
        rates.push((work.name, of(&found, Subject::Weir).map_or(0.0, |weir| weir.per_second)));
    }
    let rate = |end: &str| rates.iter().find(|(name, _)| *name == format!("accept, disk, 4 KiB x {end}"));
    if let (Some(many), Some(one)) = (rate("100"), rate("1")) {
        println!("rate at 100 connections / at 1: {:.1} (target 5)", many.1 / one.1.max(1.0));
    }
}

fn measure(work: &Work, plan: &Plan) -> Vec<(Subject, Measured)> {
    let wanted = |subject: &Subject| work.p99_target.is_some() || *subject != Subject::WeirSilent;
    let subjects = Subject::ALL.into_iter().filter(|subject| subject.missing().is_none() && wanted(subject));
    let mut runs: Vec<(Subject, Vec<Measured>)> = subjects.map(|subject| (subject, Vec::new())).collect();
    for run in 0..plan.runs {
        // The rivals are far behind: one run tells as much as three, and takes a third of the time.
        for (subject, measured) in runs.iter_mut().filter(|(subject, _)| run == 0 || subject.is_fast()) {
            measured.push(work.run(*subject, plan));
        }
    }
    runs.into_iter().map(|(subject, measured)| (subject, median(&measured))).collect()
}

fn of(found: &[(Subject, Measured)], subject: Subject) -> Option<Measured> {
    found.iter().find(|(each, _)| *each == subject).map(|(_, measured)| *measured)
}

fn best(found: &[(Subject, Measured)], of: [Subject; 2]) -> Option<(Subject, Measured)> {
    let those = found.iter().filter(|(subject, _)| of.contains(subject));
    those.max_by(|a, b| a.1.per_second.total_cmp(&b.1.per_second)).copied()
}

fn report(work: &Work, found: &[(Subject, Measured)]) {
    println!("\n{}", work.name);
    for (subject, measured) in found {
        let Measured { per_second, cpu_micros, p99_ms } = measured;
        println!("  {:<22} {per_second:>9.0}/s  {cpu_micros:>7.1} us CPU  p99 {p99_ms:>8.2} ms", subject.name());
    }
    let Some(weir) = of(found, Subject::Weir) else { return };
    if let Some((form, limit)) = best(found, [Subject::LimitInline, Subject::LimitThread]) {
        let ratio = weir.per_second / limit.per_second;
        println!("  Weir / {}: {ratio:.2} (target {})", form.name(), work.limit_target);
    }
    if let Some((rival, theirs)) = best(found, [Subject::Postfix, Subject::Exim]) {
        let ratio = weir.per_second / theirs.per_second;
        println!("  Weir / {}: {ratio:.1} (target {})", rival.name(), work.rival_target);
    }
    if let Some(target) = work.cpu_target {
        println!("  CPU a message: {:.1} us (target {target})", weir.cpu_micros);
    }
    if let Some(target) = work.p99_target {
        println!("  p99: {:.2} ms (target {target})", weir.p99_ms);
    }
}
