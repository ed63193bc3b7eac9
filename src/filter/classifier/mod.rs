//! The classifier: what mail that was called spam or ham before says about this message. Pure but [`mod@file`].
//!
//! Two learners see different features and their log-odds are averaged; what comes out is calibrated by the model's own
//! hits and misses and becomes a score. It alone never rejects: the score is capped below any sensible threshold of rejection,
//! and it stays near zero until enough of both kinds were learned.

pub mod features;
pub mod file;
mod learner;
pub mod metrics;

pub use features::Features;
use learner::{Learner, sigmoid};

/// Weights of the learner of words: 8 MiB.
const WORD_SLOTS: usize = 1 << 21;
/// Weights of the learner of byte runs: 4 MiB.
const GRAM_SLOTS: usize = 1 << 20;
/// Messages of the rarer kind after which the model is believed whole. SpamAssassin and Rspamd ask for 200 of each.
const MATURE_MESSAGES: f32 = 100.0;
/// Highest score: tags alone, and quarantines with little help, never rejects (default 15).
const SCORE_MAX: f32 = 6.5;
/// Lowest score: known correspondents outweigh one bad rule, not five.
const SCORE_MIN: f32 = -4.0;
/// Points per unit of calibrated log-odds: 99 % sure is 5.5.
const SCORE_PER_LOG_ODDS: f32 = 1.2;
/// Step of the calibration; the last few hundred messages count.
const CALIBRATION_RATE: f32 = 0.02;

/// What the classifier says of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opinion {
    /// Mean log-odds of the learners, for ordering messages.
    pub log_odds: f32,
    /// Calibrated probability of spam.
    pub probability: f32,
    /// Points for the verdict.
    pub score: f32,
}

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    words: Learner,
    grams: Learner,
    learned: Learned,
    calibration: Calibration,
}

/// Messages learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Ham.
    pub ham: u64,
    /// Spam.
    pub spam: u64,
}

/// A line from log-odds to calibrated log-odds, fitted to the model's own opinions before it learned (Platt).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Calibration {
    slope: f32,
    offset: f32,
}

impl Default for Classifier {
    fn default() -> Self {
        Classifier {
            words: Learner::new(WORD_SLOTS),
            grams: Learner::new(GRAM_SLOTS),
            learned: Learned::default(),
            calibration: Calibration { slope: 1.0, offset: 0.0 },
        }
    }
}

impl Classifier {
    /// Judges a message by its features.
    pub fn judge(&self, features: &Features) -> Opinion {
        let log_odds = self.log_odds(features);
        let calibrated = self.calibration.slope * log_odds + self.calibration.offset;
        let maturity = (self.learned.ham.min(self.learned.spam) as f32 / MATURE_MESSAGES).min(1.0);
        let score = (SCORE_PER_LOG_ODDS * calibrated).clamp(SCORE_MIN, SCORE_MAX) * maturity;
        // Scores are shown with one digit and must add up to what is shown.
        Opinion { log_odds, probability: sigmoid(calibrated), score: (score * 10.0).round() / 10.0 }
    }

    /// Learns what a message was.
    pub fn learn(&mut self, features: &Features, spam: bool) {
        self.calibration.learn(self.log_odds(features), spam);
        self.words.learn(&features.words, spam);
        self.grams.learn(&features.grams, spam);
        if spam {
            self.learned.spam += 1;
        } else {
            self.learned.ham += 1;
        }
    }

    /// What was learned so far.
    pub fn learned(&self) -> Learned {
        self.learned
    }

    fn log_odds(&self, features: &Features) -> f32 {
        (self.words.log_odds(&features.words) + self.grams.log_odds(&features.grams)) / 2.0
    }
}

impl Calibration {
    fn learn(&mut self, log_odds: f32, spam: bool) {
        let error = f32::from(u8::from(spam)) - sigmoid(self.slope * log_odds + self.offset);
        self.slope = (self.slope + CALIBRATION_RATE * error * log_odds).clamp(0.5, 4.0);
        self.offset = (self.offset + CALIBRATION_RATE * error).clamp(-3.0, 3.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::message::View;

    fn features(text: &str) -> Features {
        features::extract(&View::read(format!("Subject: {text}\n\n{text}\n").as_bytes()))
    }

    #[test]
    fn scores_wait_for_enough_of_both_kinds() {
        let mut model = Classifier::default();
        for _ in 0..10 {
            model.learn(&features("cheap pills online"), true);
        }
        assert_eq!(model.judge(&features("cheap pills online")).score, 0.0);
        for number in 0..120 {
            model.learn(&features(&format!("cheap pills online {number}")), true);
            model.learn(&features(&format!("minutes of the meeting {number}")), false);
        }
        assert!(model.judge(&features("cheap pills here")).score > 1.0);
        assert!(model.judge(&features("the meeting minutes")).score < -0.5);
    }

    #[test]
    fn the_score_is_capped() {
        let mut model = Classifier::default();
        for number in 0..200 {
            model.learn(&features(&format!("cheap pills {number}")), true);
            model.learn(&features(&format!("a meeting {number}")), false);
        }
        assert!(model.judge(&features("cheap pills")).score <= SCORE_MAX);
    }
}
