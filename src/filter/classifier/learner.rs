//! Two kinds of learners over hashed features. Pure.
//!
//! [`Margin`] is logistic regression by stochastic gradient. Each of a message's n features has the value 1/sqrt(n), so a long
//! message teaches no more than a short one. It learns on errors and near them: what is right by more than `THICKNESS` changes
//! nothing. A feature's step shrinks with the errors that it was part of already (AdaGrad): what is seen rarely learns fast,
//! what is seen always settles.
//!
//! [`Counts`] counts in how much spam and ham a feature was and adds up log ratios, shrunk towards nothing by how little was seen. It
//! learns from every message and asks no context, so it errs on other mail than [`Margin`], and less on mail of another
//! time and place; where the ground is known, it errs more. That is why both are asked.
//!
//! Both look a message's features up in slots, of which a model has more than a processor has near at hand; so the two that are asked about
//! the same features share theirs ([`Shared`]).

/// Step of the gradient; measured best between 12 and 20 on public mail.
const RATE: f32 = 16.0;
/// Log-odds on the right side beyond which nothing is learned (95 % sure).
const THICKNESS: f32 = 3.0;
/// How fast steps shrink with the squared errors seen.
const SETTLING: f32 = 0.3;
/// Squared errors are kept in steps of 1/256, so that two bytes hold them.
const ENERGY_UNIT: f32 = 256.0;
/// Mentions that are assumed of each feature beside those seen, half in spam, half in ham.
const PRIOR: f32 = 0.2;
/// Scale of the sum of log ratios, to bring it near log-odds; the mixture corrects the rest.
const COUNTS_SCALE: f32 = 0.35;
/// Messages of one kind after which all counts are halved: they fit two bytes, and old mail fades.
const MESSAGES_MAX: u16 = 60_000;

/// Weights of logistic regression.
#[derive(Clone, Debug, PartialEq)]
pub struct Margin<S = f32> {
    pub(super) slots: Vec<S>,
    pub(super) energy: Vec<u16>,
}

/// What a learner by margin has for a feature.
pub trait Weighted: Copy + Default {
    /// Its weight.
    fn weight(&self) -> f32;

    /// The same, to be changed.
    fn weight_mut(&mut self) -> &mut f32;
}

impl Weighted for f32 {
    fn weight(&self) -> f32 {
        *self
    }

    fn weight_mut(&mut self) -> &mut f32 {
        self
    }
}

/// What both kinds of learners have for a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    weight: f32,
    /// In how much spam it was, in how much ham.
    pub(super) seen: [u16; 2],
}

impl Weighted for Shared {
    fn weight(&self) -> f32 {
        self.weight
    }

    fn weight_mut(&mut self) -> &mut f32 {
        &mut self.weight
    }
}

/// The slot of a feature: the lowest bit of a feature is always set (see `features`), so the next ones tell it.
fn slot(feature: u32, slots: usize) -> usize {
    (feature >> 1) as usize & (slots - 1)
}

fn value(features: usize) -> f32 {
    1.0 / (features.max(1) as f32).sqrt()
}

impl<S: Weighted> Margin<S> {
    /// An empty learner of `slots` weights, a power of two.
    pub fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "slots are addressed by the low bits of a hash");
        Margin { slots: vec![S::default(); slots], energy: vec![0; slots] }
    }

    /// Log-odds of spam.
    pub fn log_odds(&self, features: &[u32]) -> f32 {
        let slots = self.slots.len();
        let weight = |&feature: &u32| self.slots[slot(feature, slots)].weight();
        // Sums side by side: one alone waits for each addition, and a message has thousands.
        let (fours, rest) = features.as_chunks::<4>();
        let mut sums = [0.0_f32; 4];
        for [one, two, three, four] in fours {
            sums[0] += weight(one);
            sums[1] += weight(two);
            sums[2] += weight(three);
            sums[3] += weight(four);
        }
        let sum = sums.iter().sum::<f32>() + rest.iter().map(weight).sum::<f32>();
        sum * value(features.len())
    }

    /// Learns what a message was; `log_odds` is what this learner said of it.
    pub fn learn(&mut self, features: &[u32], log_odds: f32, spam: bool) {
        let right_by = if spam { log_odds } else { -log_odds };
        if right_by > THICKNESS {
            return;
        }
        let error = f32::from(u8::from(spam)) - sigmoid(log_odds);
        let step = RATE * error * value(features.len());
        let energy = (error * error * ENERGY_UNIT).round() as u16;
        let slots = self.slots.len();
        for &feature in features {
            let slot = slot(feature, slots);
            let seen = f32::from(self.energy[slot]) / ENERGY_UNIT;
            *self.slots[slot].weight_mut() += step / (1.0 + SETTLING * seen).sqrt();
            self.energy[slot] = self.energy[slot].saturating_add(energy);
        }
    }
}

/// Counts of messages; those of each feature stand in its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub(super) spams: u16,
    pub(super) hams: u16,
}

impl Counts {
    /// Something like log-odds of spam. The number of slots is a power of two.
    pub fn log_odds(self, slots: &[Shared], features: &[u32]) -> f32 {
        let per_spam = 1.0 / (f32::from(self.spams) + 1.0);
        let per_ham = 1.0 / (f32::from(self.hams) + 1.0);
        let seen = |&feature: &u32| slots[slot(feature, slots.len())].seen;
        let ratio = |[spam, ham]: [u16; 2]| {
            let (spam, ham) = (f32::from(spam), f32::from(ham));
            let (spam_share, ham_share) = (spam * per_spam, ham * per_ham);
            // The prior and what was seen, both times the sum of the shares: of what was never seen, this is 1.
            let prior = PRIOR / 2.0 * (spam_share + ham_share) + f32::MIN_POSITIVE;
            ln((prior + (spam + ham) * spam_share) / (prior + (spam + ham) * ham_share))
        };
        // All of a block are fetched before one is reckoned with: memory is what takes long.
        let (blocks, rest) = features.as_chunks::<16>();
        let mut sums = [0.0_f32; 16];
        for block in blocks {
            let mut fetched = [[0; 2]; 16];
            for place in 0..16 {
                fetched[place] = seen(&block[place]);
            }
            for place in 0..16 {
                sums[place] += ratio(fetched[place]);
            }
        }
        let sum = sums.iter().sum::<f32>() + rest.iter().map(seen).map(ratio).sum::<f32>();
        sum * COUNTS_SCALE * value(features.len())
    }

    /// Learns what a message was.
    pub fn learn(&mut self, slots: &mut [Shared], features: &[u32], spam: bool) {
        if self.spams.max(self.hams) >= MESSAGES_MAX {
            slots.iter_mut().flat_map(|slot| &mut slot.seen).for_each(|count| *count /= 2);
            self.spams /= 2;
            self.hams /= 2;
        }
        let (kind, messages) = if spam { (0, &mut self.spams) } else { (1, &mut self.hams) };
        *messages += 1;
        let many = slots.len();
        for &feature in features {
            let count = &mut slots[slot(feature, many)].seen[kind];
            *count = count.saturating_add(1);
        }
    }
}

/// The natural logarithm to a hundredth, which is enough for a sum of a thousand of them and takes a third of the time.
fn ln(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    // The parabola through log2 at 1, sqrt(2) and 2, nearly.
    let log2 = exponent as f32 + (mantissa * (-1.0 / 3.0) + 2.0) * mantissa - 5.0 / 3.0;
    log2 * std::f32::consts::LN_2
}

/// The probability of `log_odds`.
pub fn sigmoid(log_odds: f32) -> f32 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margin_learns_and_then_rests() {
        let mut learner = Margin::<f32>::new(64);
        for _ in 0..20 {
            for (features, spam) in [([3, 5], true), ([7, 9], false)] {
                learner.learn(&features, learner.log_odds(&features), spam);
            }
        }
        assert!(learner.log_odds(&[3, 5]) > 2.0 && learner.log_odds(&[7, 9]) < -2.0);
        let before = learner.clone();
        learner.learn(&[3, 5], before.log_odds(&[3, 5]), true);
        assert_eq!(learner, before, "a message known well teaches nothing");
    }

    #[test]
    fn counts_believe_more_what_they_saw_more_and_fade() {
        let mut slots = [Shared::default(); 64];
        let mut counts = Counts::default();
        counts.learn(&mut slots, &[3], true);
        counts.learn(&mut slots, &[7], false);
        let once = counts.log_odds(&slots, &[3]);
        (0..10).for_each(|_| counts.learn(&mut slots, &[3], true));
        (0..10).for_each(|_| counts.learn(&mut slots, &[7], false));
        assert!(counts.log_odds(&slots, &[3]) > once && once > 0.0);
        assert_eq!(counts.log_odds(&slots, &[11]), 0.0, "what was never seen says nothing");
        (0..u32::from(MESSAGES_MAX)).for_each(|_| counts.learn(&mut slots, &[9], true));
        assert!(counts.spams < MESSAGES_MAX && slots[3].seen[1] < 11, "old counts are halved");
    }

    #[test]
    fn the_quick_logarithm_is_near() {
        for value in [0.01_f32, 0.3, 0.99, 1.0, 1.5, 3.0, 1234.5] {
            assert!((ln(value) - value.ln()).abs() < 0.01, "{value}: {} {}", ln(value), value.ln());
        }
    }
}
