//! Mail as everybody gets it, as the programs of today write it: none of it is marked.
//!
//! Receipts, codes, newsletters that were asked for, invitations, reports of machines, letters of people; made up, after what such
//! programs send. The public corpora have next to none of it, so points that fit them alone fall on such mail.

use std::fs;

use weir::filter::Facts;
use weir::filter::verdict::Judge;

use super::{engine, root};

/// Points of the rules alone that such mail may have: half of what marks it.
const RULES_MAX: f64 = 2.5;

#[test]
fn everyday_mail_is_not_marked() {
    let engine = engine();
    let folder = fs::read_dir(root().join("tests/vectors/everyday")).expect("the letters are there");
    let (mut letters, mut failures) = (0, Vec::new());
    for path in folder.map(|entry| entry.expect("readable").path()) {
        let raw = fs::read(&path).expect("a letter can be read");
        let verdict = engine.judge(&raw, &Facts::default());
        let others = verdict.symbols.iter().filter(|symbol| symbol.judge != Judge::Classifier);
        let rules: f64 = others.map(|symbol| symbol.points.value()).sum();
        letters += 1;
        if rules > RULES_MAX || verdict.score.reaches(5.0) {
            let symbols = verdict.symbols.iter().map(|symbol| format!("{} {}", symbol.name, symbol.points.value()));
            failures.push(format!(
                "{}: {:.1}, {:?}",
                path.display(),
                verdict.score.value(),
                symbols.collect::<Vec<_>>()
            ));
        }
    }
    assert!(letters >= 40, "{letters} letters");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
