//! The classifier alone, from a message's bytes to its opinion, without and with learning.

use std::path::{Path, PathBuf};

use weir::filter::classifier::{Classifier, features, file};
use weir::filter::message::View;

use crate::corpus::Message;
use crate::{clock, row};

/// What the project has set, in messages a second and core.
const JUDGING: f64 = 10_000.0;
const LEARNING: f64 = 7_000.0;

/// Passes over the messages, of which the quickest counts: what else runs on the machine slows the others.
const PASSES: usize = 5;

/// Measures both, and gives the model that came of it.
pub fn measure(messages: &[Message], scratch: &Path) -> PathBuf {
    println!("the classifier, from bytes to opinion, one thread, the quickest of {PASSES} passes");
    let mut model = Classifier::default();
    let learning = clock::quickest_of(PASSES, || {
        model = Classifier::default();
        for message in messages {
            let features = features::extract(&View::read(&message.bytes));
            std::hint::black_box(model.judge(&features));
            model.learn(&features, message.label);
        }
    });
    let judging = clock::quickest_of(PASSES, || {
        for message in messages {
            std::hint::black_box(model.judge(&features::extract(&View::read(&message.bytes))));
        }
    });
    for (name, took, target) in [("judging", judging, JUDGING), ("judging and learning", learning, LEARNING)] {
        let rate = clock::rate(messages.len(), took);
        row(name, &format!("{rate:.0}/s"), &format!("at least {target:.0}"), rate >= target);
    }
    let path = scratch.join(file::DEFAULT_NAME);
    file::save(&model, &path).unwrap();
    path
}
