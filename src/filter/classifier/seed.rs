//! A small model to begin with: the weightiest features of a large one, a byte each. Pure.
//!
//! The one that is built in (`rules/seed.model`) was learned from public mail; rules/SEED.md tells which, and what it is worth. It
//! holds hashes and weights, no words. It is believed less than a model that learned as much here, and nothing in it is settled:
//! the first lessons change it as they change an empty model, and after as many as any model needs it is only a beginning.
//!
//! Layout, gzipped: magic, version, slots as a power of two, mixture, messages counted; then for each learner by margin the
//! scale and number of its weights, and for each its distance from the one before (LEB128) and its value; for counts the
//! same with spam and ham.

use std::io::{Read, Write};

use super::learner::{Counts, Margin, Shared, Weighted};
use super::{Classifier, Learned, VOICES};

/// The model that is built in.
const SHIPPED: &[u8] = include_bytes!("../../../rules/seed.model");

const MAGIC: &[u8; 8] = b"WEIRSEED";
/// Raised with every change of features or layout, as that of the file of a model.
const VERSION: u8 = 4;
/// Weights that are kept of each learner by margin; more are no better on mail that was never seen.
const WEIGHTS_MAX: usize = 20_000;
/// Features that are kept of the counts.
const COUNTS_MAX: usize = 20_000;
/// What a seed counts for: so many lessons of each kind, half of what makes a model mature.
const LESSONS: u64 = 50;
/// Largest seed that is unpacked.
const BYTES_MAX: u64 = 4 << 20;

/// The built-in model, spread over `slots`.
pub fn shipped(slots: usize) -> Classifier {
    decode(SHIPPED, slots).expect("what is built in was tested")
}

/// The weightiest part of `model`.
pub fn encode(model: &Classifier) -> Vec<u8> {
    let slots = model.text.slots.len();
    let mut out = MAGIC.to_vec();
    out.extend([VERSION, slots.ilog2() as u8]);
    model.mixture.iter().for_each(|weight| out.extend(weight.to_le_bytes()));
    out.extend(model.counts.spams.to_le_bytes());
    out.extend(model.counts.hams.to_le_bytes());
    put_margin(&mut out, &model.text);
    model.others.iter().for_each(|margin| put_margin(&mut out, margin));
    put_counts(&mut out, &model.text.slots);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&out).and_then(|()| packer.finish()).expect("a vector takes any write")
}

fn put_margin<S: Weighted>(out: &mut Vec<u8>, margin: &Margin<S>) {
    let weight = |slot: usize| margin.slots[slot].weight();
    let most = (0..margin.slots.len()).fold(0.0_f32, |most, slot| most.max(weight(slot).abs()));
    let scale = most.max(f32::MIN_POSITIVE) / f32::from(i8::MAX);
    out.extend(scale.to_le_bytes());
    let kept = weightiest(margin.slots.len(), WEIGHTS_MAX, |slot| weight(slot).abs());
    put_slots(out, &kept, |out, slot| out.push((weight(slot) / scale).round() as i8 as u8));
}

fn put_counts(out: &mut Vec<u8>, slots: &[Shared]) {
    let seen = |slot: usize| slots[slot].seen.map(f32::from).iter().sum();
    let kept = weightiest(slots.len(), COUNTS_MAX, seen);
    put_slots(out, &kept, |out, slot| slots[slot].seen.iter().for_each(|&count| put_number(out, count.into())));
}

/// The slots with the highest values above nothing, in their order.
fn weightiest(slots: usize, most: usize, value: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..slots).filter(|&slot| value(slot) > 0.0).collect();
    kept.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    kept.truncate(most);
    kept.sort_unstable();
    kept
}

fn put_slots(out: &mut Vec<u8>, kept: &[usize], mut put: impl FnMut(&mut Vec<u8>, usize)) {
    put_number(out, kept.len() as u32);
    let mut last = 0;
    for &slot in kept {
        put_number(out, (slot - last) as u32);
        last = slot;
        put(out, slot);
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a seed into a model of `slots`; nothing if it is none of this version, or cut.
pub fn decode(bytes: &[u8], slots: usize) -> Option<Classifier> {
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(BYTES_MAX).read_to_end(&mut unpacked).ok()?;
    let mut rest = Reader(unpacked.strip_prefix(MAGIC)?);
    let [version, exponent] = rest.take()?;
    let from = 1_usize.checked_shl(exponent.into()).filter(|_| version == VERSION && exponent < 32)?;
    let mut model = Classifier::with_slots(slots);
    model.mixture = rest.floats::<VOICES>()?;
    model.counts = Counts { spams: u16::from_le_bytes(rest.take()?), hams: u16::from_le_bytes(rest.take()?) };
    rest.margin(from, &mut model.text)?;
    for margin in &mut model.others {
        rest.margin(from, margin)?;
    }
    rest.slots(from, |rest, slot| {
        let more = [u16::try_from(rest.number()?).ok()?, u16::try_from(rest.number()?).ok()?];
        spread(slot, from, slots, |slot| {
            let seen = &mut model.text.slots[slot].seen;
            seen.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(more));
        });
        Some(())
    })?;
    // Its calibration is none: mail that it never saw looks more like spam to it than it is, so ham stays as likely as it was where it learned.
    model.learned = Learned { ham: LESSONS, spam: LESSONS };
    Some(model)
}

/// The slots of a table of `to` where a feature may be that is in `slot` of one of `from`: both are told by its low bits.
fn spread(slot: usize, from: usize, to: usize, each: impl FnMut(usize)) {
    (slot & (to - 1)..to).step_by(from).for_each(each);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn floats<const N: usize>(&mut self) -> Option<[f32; N]> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = Some(f32::from_le_bytes(self.take()?)).filter(|value| value.is_finite())?;
        }
        Some(values)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.take()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Adds weights that stood in a table of `from` slots.
    fn margin<S: Weighted>(&mut self, from: usize, margin: &mut Margin<S>) -> Option<()> {
        let [scale] = self.floats()?;
        self.slots(from, |rest, slot| {
            let weight = f32::from(rest.take::<1>()?[0] as i8) * scale;
            spread(slot, from, margin.slots.len(), |slot| *margin.slots[slot].weight_mut() += weight);
            Some(())
        })
    }

    /// Calls `each` for the slots that are listed; all are below `slots`.
    fn slots(&mut self, slots: usize, mut each: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        let mut slot = 0;
        for _ in 0..self.number()? {
            slot += self.number()? as usize;
            if slot >= slots {
                return None;
            }
            each(self, slot)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::classifier::{Features, Label, features};
    use crate::filter::message::View;

    fn taught(slots: usize) -> Classifier {
        let mut model = Classifier::sized(slots * super::super::SLOT_BYTES + super::super::file::FRAME_BYTES);
        for number in 0..60 {
            model.learn(&features("cheap pills", number), Label::Spam);
            model.learn(&features("minutes of the meeting", number), Label::Ham);
        }
        model
    }

    fn features(text: &str, number: usize) -> Features {
        features::extract(&View::read(format!("Subject: {text}\n\n{text} {number}\n").as_bytes()))
    }

    #[test]
    fn a_seed_says_what_its_model_said_whatever_the_size() {
        let model = taught(1 << 14);
        let seed = encode(&model);
        for slots in [1 << 14, 1 << 16] {
            let grown = decode(&seed, slots).unwrap();
            for text in ["cheap pills", "the minutes"] {
                let (then, now) = (model.judge(&features(text, 7)).log_odds, grown.judge(&features(text, 7)).log_odds);
                assert!((then - now).abs() < 0.2 * then.abs(), "{text}: {then} {now}");
            }
        }
        assert!(decode(&seed, 1 << 12).unwrap().judge(&features("cheap pills", 1)).log_odds > 1.0);
    }

    #[test]
    fn what_is_no_seed_is_refused() {
        let seed = encode(&taught(1 << 12));
        for cut in [0, 5, seed.len() / 2] {
            assert!(decode(&seed[..cut], 1 << 12).is_none(), "{cut}");
        }
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(b"WEIRSEED\xff").unwrap();
        assert!(decode(&packer.finish().unwrap(), 1 << 12).is_none());
    }

    #[test]
    fn the_built_in_model_helps_is_not_believed_whole_and_gives_way_to_lessons() {
        let mut model = shipped(1 << 19);
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mail");
        let mut right = (0, 0);
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.extension().is_some_and(|ending| ending == "eml")) {
            let spam = path.file_name().unwrap().to_string_lossy().starts_with("spam");
            let opinion = model.judge(&features::extract(&View::read(&std::fs::read(&path).unwrap())));
            right = (right.0 + u32::from((opinion.log_odds > 0.0) == spam), right.1 + 1);
            assert!(opinion.score.abs() <= super::super::SCORE_MAX / 2.0 + 0.1, "{}: {opinion:?}", path.display());
        }
        // It was taught this mail: less than nearly all of it is known only if features have changed and the seed has not.
        assert!(right.0 * 10 >= right.1 * 9, "{right:?}");
        for number in 0..30 {
            model.learn(&features("cheap pills and a free offer", number), Label::Ham);
        }
        assert!(model.judge(&features("cheap pills and a free offer", 99)).score < 0.0);
    }
}
