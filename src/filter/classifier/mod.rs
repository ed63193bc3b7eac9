//! The classifier: what mail that was called spam or ham before says about this message. Pure but [`mod@file`] and [`models`].
//!
//! Four learners by margin and one by counts see different features. Their log-odds are mixed by weights that are learned too, so
//! that on known ground the surer ones decide, and elsewhere the one that generalises. What comes out is calibrated by
//! the model's own hits and misses before it learned them, and becomes a score. It alone never rejects: the score is
//! capped below any sensible threshold of rejection, and it stays near zero until enough of both kinds were learned.
//!
//! Names of hosts, lists and people that were seen once must not decide. Hence fields of lists and of the way are not read as words,
//! the four sets of features are learned apart, no learner says more than [`VOICE_MAX`], and what counts have seen once is
//! bounded by their prior.

pub mod features;
pub mod file;
mod learner;
pub mod metrics;
pub mod models;
pub mod seed;

pub use features::Features;
use features::SETS;
pub use models::Models;

use crate::config::settings;
use learner::{Counts, Margin, Shared, sigmoid};

/// Bytes of a model's file, if nobody says otherwise.
pub const SIZE_DEFAULT: usize = 16 << 20;
/// Fewest slots of a learner; with less, every feature shares its weight with others.
const SLOTS_MIN: usize = 1 << 10;
/// Bytes of one slot in all learners: a weight and its energy in each by margin, two counts.
const SLOT_BYTES: usize = SETS * (4 + 2) + 2 * 2;
/// Learners: one by margin for each set, one by counts for the text.
const VOICES: usize = SETS + 1;
/// Log-odds beyond which a learner is not believed (2,980 to 1).
const VOICE_MAX: f32 = 8.0;
/// Step of the mixture's weights.
const MIXTURE_RATE: f32 = 0.01;
/// Least weight of a learner: one that erred much must be heard when the others fail.
const MIXTURE_MIN: f32 = 0.02;
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

/// What a message is, as somebody who read it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Wanted mail.
    Ham,
    /// Unwanted mail.
    Spam,
}

/// What the classifier says of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opinion {
    /// Mixed log-odds of the learners, for ordering messages.
    pub log_odds: f32,
    /// Calibrated probability of spam.
    pub probability: f32,
    /// Points for the verdict.
    pub score: f32,
}

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    /// The learner by margin of the text, in whose slots the counts stand; then those of the other sets.
    text: Margin<Shared>,
    others: [Margin; SETS - 1],
    counts: Counts,
    /// How much each learner is believed; they begin as a mean.
    mixture: [f32; VOICES],
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
        Classifier::sized(SIZE_DEFAULT)
    }
}

impl Classifier {
    /// A new model, as `settings` say: empty, or with what is built in.
    pub fn begin(settings: &settings::Classifier) -> Self {
        let bytes = settings.size as usize;
        if settings.seed { seed::shipped(slots(bytes)) } else { Classifier::sized(bytes) }
    }

    /// An empty model whose file takes at most `bytes`.
    pub fn sized(bytes: usize) -> Self {
        Classifier::with_slots(slots(bytes))
    }

    /// An empty model; each of its learners has so many slots, a power of two.
    fn with_slots(slots: usize) -> Self {
        Classifier {
            text: Margin::new(slots),
            others: std::array::from_fn(|_| Margin::new(slots)),
            counts: Counts::default(),
            mixture: [1.0 / VOICES as f32; VOICES],
            learned: Learned::default(),
            calibration: Calibration::default(),
        }
    }

    /// Judges a message by its features.
    pub fn judge(&self, features: &Features) -> Opinion {
        let log_odds = self.log_odds(features);
        opinion(log_odds, self.calibrated(log_odds), self.maturity())
    }

    /// Judges together with `own`, a model of fewer people's mail, that counts half once it is mature.
    pub fn judge_beside(&self, own: &Classifier, features: &Features) -> Opinion {
        let weight = own.maturity() / 2.0;
        let mean = |global: f32, own: f32| global + weight * (own - global);
        let (log_odds, own_odds) = (self.log_odds(features), own.log_odds(features));
        let calibrated = mean(self.calibrated(log_odds), own.calibrated(own_odds));
        opinion(mean(log_odds, own_odds), calibrated, self.maturity().max(own.maturity()))
    }

    /// From 0, nothing is known, to 1.
    fn maturity(&self) -> f32 {
        (self.learned.ham.min(self.learned.spam) as f32 / MATURE_MESSAGES).min(1.0)
    }

    fn calibrated(&self, log_odds: f32) -> f32 {
        self.calibration.slope * log_odds + self.calibration.offset
    }

    /// Learns what a message was.
    pub fn learn(&mut self, features: &Features, label: Label) {
        let spam = label == Label::Spam;
        let voices = self.voices(features);
        let log_odds = self.mix(&voices);
        self.calibration.learn(log_odds, spam);
        let error = f32::from(u8::from(spam)) - sigmoid(log_odds);
        for (weight, voice) in self.mixture.iter_mut().zip(voices) {
            *weight = (*weight + MIXTURE_RATE * error * bounded(voice)).max(MIXTURE_MIN);
        }
        let [text, others @ ..] = &features.0;
        let [text_voice, other_voices @ ..] = voices;
        self.text.learn(text, text_voice, spam);
        self.counts.learn(&mut self.text.slots, text, spam);
        for ((margin, features), voice) in self.others.iter_mut().zip(others).zip(other_voices) {
            margin.learn(features, voice, spam);
        }
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
        self.mix(&self.voices(features))
    }

    fn voices(&self, features: &Features) -> [f32; VOICES] {
        let [text, head, head_runs, text_runs] = &features.0;
        // What was fetched for the one is still near for the other.
        let (by_margin, by_counts) = (self.text.log_odds(text), self.counts.log_odds(&self.text.slots, text));
        let [of_head, of_head_runs, of_text_runs] = &self.others;
        [
            by_margin,
            of_head.log_odds(head),
            of_head_runs.log_odds(head_runs),
            of_text_runs.log_odds(text_runs),
            by_counts,
        ]
    }

    fn mix(&self, voices: &[f32; VOICES]) -> f32 {
        voices.iter().zip(self.mixture).map(|(&voice, weight)| bounded(voice) * weight).sum()
    }
}

/// Slots of each learner of a model whose file takes at most `bytes`.
fn slots(bytes: usize) -> usize {
    let most = bytes.saturating_sub(file::FRAME_BYTES) / SLOT_BYTES;
    ((most + 1).next_power_of_two() / 2).max(SLOTS_MIN)
}

fn bounded(voice: f32) -> f32 {
    voice.clamp(-VOICE_MAX, VOICE_MAX)
}

fn opinion(log_odds: f32, calibrated: f32, maturity: f32) -> Opinion {
    let score = (SCORE_PER_LOG_ODDS * calibrated).clamp(SCORE_MIN, SCORE_MAX) * maturity;
    // Scores are shown with one digit and must add up to what is shown.
    Opinion { log_odds, probability: sigmoid(calibrated), score: (score * 10.0).round() / 10.0 }
}

impl Default for Calibration {
    /// What a model says is what it means.
    fn default() -> Self {
        Calibration { slope: 1.0, offset: 0.0 }
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
            model.learn(&features("cheap pills online"), Label::Spam);
        }
        assert_eq!(model.judge(&features("cheap pills online")).score, 0.0);
        for number in 0..120 {
            model.learn(&features(&format!("cheap pills online {number}")), Label::Spam);
            model.learn(&features(&format!("minutes of the meeting {number}")), Label::Ham);
        }
        assert!(model.judge(&features("cheap pills here")).score > 1.0);
        assert!(model.judge(&features("the meeting minutes")).score < -0.5);
    }

    #[test]
    fn the_score_is_capped() {
        let mut model = Classifier::default();
        for number in 0..200 {
            model.learn(&features(&format!("cheap pills {number}")), Label::Spam);
            model.learn(&features(&format!("a meeting {number}")), Label::Ham);
        }
        assert!(model.judge(&features("cheap pills")).score <= SCORE_MAX);
        let scores = crate::config::Config::default_for(std::path::Path::new("/nonexistent")).filter.scores;
        for action in ["quarantine", "reject"] {
            let bound = scores.bound(action).expect("on by default").score;
            assert!(f64::from(SCORE_MAX) < bound, "the classifier alone does not {action}");
        }
    }
}
