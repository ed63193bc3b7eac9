//! An online linear learner over hashed binary features. Pure.
//!
//! Logistic regression by stochastic gradient. Each of a message's n features has the value 1/sqrt(n), so a long message
//! teaches no more than a short one. It learns on errors and near them: what is right by more than `THICKNESS` changes
//! nothing, which keeps the weights small and a flood of equal messages from drowning the rest.

/// Step of the gradient; measured best between 8 and 15 on public mail.
const RATE: f32 = 12.0;
/// Log-odds on the right side beyond which nothing is learned (95 % sure).
const THICKNESS: f32 = 3.0;

/// Weights of one space of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    weights: Vec<f32>,
}

impl Learner {
    /// An empty learner of `slots` weights, a power of two.
    pub fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "slots are addressed by the low bits of a hash");
        Learner { weights: vec![0.0; slots] }
    }

    /// A learner with known weights; their number is a power of two.
    pub fn from_weights(weights: Vec<f32>) -> Self {
        assert!(weights.len().is_power_of_two(), "slots are addressed by the low bits of a hash");
        Learner { weights }
    }

    /// All weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Log-odds of spam.
    pub fn log_odds(&self, features: &[u32]) -> f32 {
        let sum: f32 = features.iter().map(|&feature| self.weights[self.slot(feature)]).sum();
        sum * value(features.len())
    }

    /// Learns what a message was.
    pub fn learn(&mut self, features: &[u32], spam: bool) {
        let log_odds = self.log_odds(features);
        let right_by = if spam { log_odds } else { -log_odds };
        if right_by > THICKNESS {
            return;
        }
        let error = f32::from(u8::from(spam)) - sigmoid(log_odds);
        let step = RATE * error * value(features.len());
        for &feature in features {
            let slot = self.slot(feature);
            self.weights[slot] += step;
        }
    }

    // The lowest bit of a feature is always set, see `Once::add`.
    fn slot(&self, feature: u32) -> usize {
        (feature >> 1) as usize & (self.weights.len() - 1)
    }
}

fn value(features: usize) -> f32 {
    1.0 / (features.max(1) as f32).sqrt()
}

/// The probability of `log_odds`.
pub fn sigmoid(log_odds: f32) -> f32 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_and_then_rests() {
        let mut learner = Learner::new(64);
        for _ in 0..20 {
            learner.learn(&[3, 5], true);
            learner.learn(&[7, 9], false);
        }
        assert!(learner.log_odds(&[3, 5]) > 2.0 && learner.log_odds(&[7, 9]) < -2.0);
        let before = learner.clone();
        learner.learn(&[3, 5], true);
        assert_eq!(learner, before, "a message known well teaches nothing");
    }
}
