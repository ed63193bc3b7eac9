//! The TREC spam track's measures over judged messages. Pure. Cormack & Lynam, "TREC 2005 Spam Track Overview".
//!
//! (1-ROCA)% is the chance in per cent that a ham scores above a spam; LAM% the logistic average of both error rates;
//! "caught at" the share of spam above a threshold that loses at most that share of ham.

/// One judged message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// What it is.
    pub spam: bool,
    /// Its score; higher is more like spam.
    pub score: f64,
    /// What was said of it.
    pub verdict_spam: bool,
    /// How likely it was said to be spam, from 0 to 1, if that was said.
    pub probability: Option<f64>,
}

/// The measures, all in per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measures {
    /// 100 (1 - area under the ROC curve).
    pub one_minus_roca: f64,
    /// Logistic average misclassification.
    pub lam: f64,
    /// Ham called spam.
    pub ham_loss: f64,
    /// Spam called ham.
    pub spam_miss: f64,
    /// Spam caught where 0.1 % of ham is lost.
    pub caught_at_01: f64,
    /// Spam caught where no ham is lost.
    pub caught_at_none: f64,
}

/// Share of ham that may be lost for [`Measures::caught_at_01`].
const HAM_LOSS_SHARE: f64 = 0.001;

/// Computes all measures.
pub fn measure(judged: &[Judged]) -> Measures {
    let mut order: Vec<Judged> = judged.to_vec();
    order.sort_by(|a, b| a.score.total_cmp(&b.score));
    let hams = judged.iter().filter(|one| !one.spam).count();
    let spams = judged.len() - hams;
    if hams == 0 || spams == 0 {
        return one_class(judged);
    }
    let wrong_ham = judged.iter().filter(|one| !one.spam && one.verdict_spam).count();
    let wrong_spam = judged.iter().filter(|one| one.spam && !one.verdict_spam).count();
    let allowed = (hams as f64 * HAM_LOSS_SHARE) as usize;
    Measures {
        one_minus_roca: 100.0 * inversions(&order) / (hams as f64 * spams as f64),
        lam: 100.0 * logistic_average(rate(wrong_ham, hams), rate(wrong_spam, spams)),
        ham_loss: 100.0 * wrong_ham as f64 / hams as f64,
        spam_miss: 100.0 * wrong_spam as f64 / spams as f64,
        caught_at_01: 100.0 * caught(&order, allowed) / spams as f64,
        caught_at_none: 100.0 * caught(&order, 0) / spams as f64,
    }
}

fn one_class(judged: &[Judged]) -> Measures {
    let all = judged.len().max(1) as f64;
    let wrong_ham = judged.iter().filter(|one| !one.spam && one.verdict_spam).count() as f64;
    let wrong_spam = judged.iter().filter(|one| one.spam && !one.verdict_spam).count() as f64;
    Measures { ham_loss: 100.0 * wrong_ham / all, spam_miss: 100.0 * wrong_spam / all, ..Measures::default() }
}

/// Pairs in which a ham stands above a spam; equal scores count half.
fn inversions(order: &[Judged]) -> f64 {
    let (mut hams_below, mut spams_below, mut right) = (0.0, 0.0, 0.0);
    let mut at = 0;
    while at < order.len() {
        let tied = order[at..].iter().take_while(|one| one.score == order[at].score).count();
        let spams = order[at..at + tied].iter().filter(|one| one.spam).count() as f64;
        let hams = tied as f64 - spams;
        right += spams * (hams_below + hams / 2.0);
        hams_below += hams;
        spams_below += spams;
        at += tied;
    }
    hams_below * spams_below - right
}

/// Spam strictly above the ham that is first past the `allowed` lost ones.
fn caught(order: &[Judged], allowed: usize) -> f64 {
    let bar = order.iter().rev().filter(|one| !one.spam).nth(allowed).map_or(f64::NEG_INFINITY, |one| one.score);
    order.iter().filter(|one| one.spam && one.score > bar).count() as f64
}

/// With half an error added, so that no error at all still has a logarithm (as TREC's tool does).
fn rate(wrong: usize, all: usize) -> f64 {
    (wrong as f64 + 0.5) / (all as f64 + 1.0)
}

fn logistic_average(a: f64, b: f64) -> f64 {
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let mean = (logit(a) + logit(b)) / 2.0;
    1.0 / (1.0 + (-mean).exp())
}

/// Messages of which about the same was said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub messages: usize,
    /// Mean of the probabilities that were said.
    pub said: f64,
    /// Share of them that is spam.
    pub was: f64,
}

/// Bins of [`reliability`].
pub const BINS: usize = 10;

/// Said and true shares of spam, by tenths of what was said; and the expected calibration error, the mean difference of the two.
pub fn reliability(judged: &[Judged]) -> ([Bin; BINS], f64) {
    let mut bins = [Bin::default(); BINS];
    for (probability, spam) in judged.iter().filter_map(|one| Some((one.probability?, one.spam))) {
        let bin = &mut bins[((probability * BINS as f64) as usize).min(BINS - 1)];
        bin.messages += 1;
        bin.said += probability;
        bin.was += f64::from(u8::from(spam));
    }
    let all: usize = bins.iter().map(|bin| bin.messages).sum();
    let error: f64 = bins.iter().map(|bin| (bin.said - bin.was).abs()).sum();
    for bin in &mut bins {
        let messages = bin.messages.max(1) as f64;
        (bin.said, bin.was) = (bin.said / messages, bin.was / messages);
    }
    (bins, error / all.max(1) as f64)
}

/// Rounds of resampling; the 95 % interval is what lies between the 5th lowest and the 5th highest of 200.
const BOOTSTRAP_ROUNDS: usize = 200;

/// The 95 % interval of one measure, by resampling messages with a fixed seed.
pub fn interval(judged: &[Judged], seed: u64, of: impl Fn(&Measures) -> f64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut values: Vec<f64> = (0..BOOTSTRAP_ROUNDS)
        .map(|_| {
            let sample: Vec<Judged> = judged.iter().map(|_| judged[random.usize(..judged.len())]).collect();
            of(&measure(&sample))
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let edge = BOOTSTRAP_ROUNDS / 40;
    (values[edge - 1], values[BOOTSTRAP_ROUNDS - edge])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(spam: bool, score: f64) -> Judged {
        Judged { spam, score, verdict_spam: score > 0.5, probability: Some(score) }
    }

    #[test]
    fn what_is_said_is_compared_with_what_is() {
        // Three of four at 0.7, as said less one in twenty; one at 1 that was none.
        let many =
            [(true, 0.7), (true, 0.7), (true, 0.7), (false, 0.7), (false, 1.0)].map(|(spam, said)| judged(spam, said));
        let (bins, error) = reliability(&many);
        assert_eq!((bins[7].messages, bins[7].was), (4, 0.75));
        assert_eq!((bins[9].messages, bins[9].was), (1, 0.0));
        assert!((error - (4.0 * 0.05 + 1.0) / 5.0).abs() < 1e-9, "{error}");
        assert_eq!(reliability(&[]).1, 0.0);
    }

    #[test]
    fn perfect_and_inverted_orders() {
        let perfect = [judged(false, 0.1), judged(false, 0.2), judged(true, 0.8), judged(true, 0.9)];
        let measures = measure(&perfect);
        assert_eq!((measures.one_minus_roca, measures.caught_at_none), (0.0, 100.0));
        let inverted = [judged(true, 0.1), judged(false, 0.9)];
        assert_eq!(measure(&inverted).one_minus_roca, 100.0);
        let tied = [judged(true, 0.5), judged(false, 0.5)];
        assert_eq!(measure(&tied).one_minus_roca, 50.0);
    }

    #[test]
    fn interval_holds_the_value() {
        let many: Vec<_> = (0..200).map(|n| judged(n % 2 == 0, f64::from(n * 7 % 31))).collect();
        let value = measure(&many).one_minus_roca;
        let (low, high) = interval(&many, 1, |measures| measures.one_minus_roca);
        assert!(low <= value && value <= high, "{low} {value} {high}");
    }
}
