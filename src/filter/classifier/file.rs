//! A model on disk: bounded, versioned, checked, replaced as a whole. I/O: one file and its folder.
//!
//! Layout, little endian: magic, version, number of slots, messages learned, calibration, mixture, messages counted, then the
//! weights and energies of each learner by margin, the counts of spam and of ham, and CRC32C of all before it. A reader
//! takes only files it understands wholly; a writer makes a new file beside the old, syncs, renames, syncs the folder,
//! so a crash leaves the old model or the new one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::learner::{Counts, Margin, Weighted};
use super::{Calibration, Classifier, Learned, SIZE_DEFAULT, SLOT_BYTES, VOICES, seed, slots};

/// The name of the model in the data directory.
pub const DEFAULT_NAME: &str = "classifier.model";

const MAGIC: &[u8; 8] = b"WEIRCLSF";
/// How a seed begins (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Raised with every change of features or layout: weights for other features mean nothing.
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4 + 4 + 4 * VOICES + 2 + 2;
const CRC_BYTES: usize = 4;
/// What a file has beside the weights.
pub(super) const FRAME_BYTES: usize = HEADER_BYTES + CRC_BYTES;

/// Why a model can't be read.
#[derive(Debug)]
pub enum ModelError {
    /// The file is not a model, was cut, or a bit of it flipped.
    Damaged(PathBuf),
    /// Reading or writing failed.
    Io(PathBuf, io::Error),
    /// It was written by another version, whose features differ.
    Version(PathBuf, u32),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelError::Damaged(path) => write!(f, "{}: not a model, or damaged", path.display()),
            ModelError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            ModelError::Version(path, version) => {
                write!(f, "{}: model version {version}, this program reads {VERSION}; learn anew", path.display())
            }
        }
    }
}

impl std::error::Error for ModelError {}

/// Reads a model, or a seed of one; nothing if there is no such file.
/// # Errors
/// If the file can't be read or is not a whole model of this version.
pub fn load(path: &Path) -> Result<Option<Classifier>, ModelError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ModelError::Io(path.to_owned(), error)),
    };
    if bytes.starts_with(&GZIP) {
        let seed = seed::decode(&bytes, slots(SIZE_DEFAULT));
        return seed.map(Some).ok_or_else(|| ModelError::Damaged(path.to_owned()));
    }
    decode(&bytes, path).map(Some)
}

/// Writes a model in place of what was there.
/// # Errors
/// If writing, syncing or renaming fails; the old file then still stands.
pub fn save(model: &Classifier, path: &Path) -> Result<(), ModelError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = folder.join(name);
    let written = write_synced(&new, &encode(model))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|error| {
        // The old model stands; the half-written new one is of no use to anybody.
        let _ = fs::remove_file(&new);
        ModelError::Io(path.to_owned(), error)
    })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(model: &Classifier) -> Vec<u8> {
    let slots = model.text.slots.len();
    let mut out = Vec::with_capacity(file_bytes(slots));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&u32::try_from(slots).expect("a model has fewer than 2^32 slots").to_le_bytes());
    out.extend_from_slice(&model.learned.ham.to_le_bytes());
    out.extend_from_slice(&model.learned.spam.to_le_bytes());
    put_floats(&mut out, &[model.calibration.slope, model.calibration.offset]);
    put_floats(&mut out, &model.mixture);
    put_shorts(&mut out, &[model.counts.spams, model.counts.hams]);
    put_margin(&mut out, &model.text);
    model.others.iter().for_each(|margin| put_margin(&mut out, margin));
    for kind in 0..2 {
        model.text.slots.iter().for_each(|slot| put_shorts(&mut out, &slot.seen[kind..=kind]));
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn put_margin<S: Weighted>(out: &mut Vec<u8>, margin: &Margin<S>) {
    margin.slots.iter().for_each(|slot| put_floats(out, &[slot.weight()]));
    put_shorts(out, &margin.energy);
}

fn put_floats(out: &mut Vec<u8>, values: &[f32]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

fn put_shorts(out: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

fn decode(bytes: &[u8], path: &Path) -> Result<Classifier, ModelError> {
    let damaged = || ModelError::Damaged(path.to_owned());
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let version = u32::from_le_bytes(take(&mut rest).ok_or_else(damaged)?);
    if version != VERSION {
        return Err(ModelError::Version(path.to_owned(), version));
    }
    let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or_else(damaged)?;
    let slots = u32::from_le_bytes(take(&mut rest).ok_or_else(damaged)?) as usize;
    let whole = slots.is_power_of_two() && bytes.len() == file_bytes(slots);
    if !whole || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    Ok(read_body(rest, slots))
}

/// Reads what stands behind the number of slots; the length was checked.
fn read_body(mut rest: &[u8], slots: usize) -> Classifier {
    let rest = &mut rest;
    let count = |rest: &mut &[u8]| u64::from_le_bytes(take(rest).expect(CHECKED));
    let mut model = Classifier::with_slots(slots);
    model.learned = Learned { ham: count(rest), spam: count(rest) };
    let calibration = floats(rest, 2);
    model.calibration = Calibration { slope: calibration[0], offset: calibration[1] };
    model.mixture.copy_from_slice(&floats(rest, VOICES));
    let messages = shorts(rest, 2);
    model.counts = Counts { spams: messages[0], hams: messages[1] };
    read_margin(rest, &mut model.text);
    model.others.iter_mut().for_each(|margin| read_margin(rest, margin));
    for kind in 0..2 {
        model.text.slots.iter_mut().zip(shorts(rest, slots)).for_each(|(slot, seen)| slot.seen[kind] = seen);
    }
    model
}

fn read_margin<S: Weighted>(rest: &mut &[u8], margin: &mut Margin<S>) {
    let weights = floats(rest, margin.slots.len());
    margin.slots.iter_mut().zip(weights).for_each(|(slot, weight)| *slot.weight_mut() = weight);
    margin.energy = shorts(rest, margin.slots.len());
}

const CHECKED: &str = "the file's length was checked against its number of slots";

fn file_bytes(slots: usize) -> usize {
    FRAME_BYTES + SLOT_BYTES * slots
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn floats(rest: &mut &[u8], count: usize) -> Vec<f32> {
    (0..count).map(|_| f32::from_le_bytes(take(rest).expect(CHECKED))).collect()
}

fn shorts(rest: &mut &[u8], count: usize) -> Vec<u16> {
    (0..count).map(|_| u16::from_le_bytes(take(rest).expect(CHECKED))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::classifier::{Features, Label};

    #[test]
    fn a_model_survives_the_disk_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        assert!(load(&path).unwrap().is_none());
        let mut model = Classifier::default();
        model.learn(&Features([vec![1, 3], vec![5], vec![], vec![7]]), Label::Spam);
        save(&model, &path).unwrap();
        assert_eq!(load(&path).unwrap().unwrap(), model);
        let mut bytes = fs::read(&path).unwrap();
        assert!((SIZE_DEFAULT / 2..=SIZE_DEFAULT).contains(&bytes.len()), "{}", bytes.len());
        bytes[1000] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(load(&path), Err(ModelError::Damaged(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_model_of_another_version_is_named_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        save(&Classifier::sized(1 << 20), &path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len()] += 1;
        fs::write(&path, &bytes).unwrap();
        let error = load(&path).unwrap_err();
        assert!(matches!(error, ModelError::Version(_, version) if version == VERSION + 1), "{error}");
    }

    #[test]
    fn a_model_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let mut model = Classifier::sized(1 << 20);
        save(&model, &path).unwrap();
        let old = fs::read(&path).unwrap();
        model.learn(&Features([vec![1], vec![], vec![], vec![]]), Label::Spam);
        // What stands where the new one would be written can't be opened for writing, not even by root.
        fs::create_dir(folder.path().join(format!("model.{}.new", std::process::id()))).unwrap();
        assert!(matches!(save(&model, &path), Err(ModelError::Io(..))));
        assert_eq!(fs::read(&path).unwrap(), old);
    }

    #[test]
    fn what_is_learned_does_not_make_it_larger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let mut model = Classifier::sized(1 << 20);
        let mut random = fastrand::Rng::with_seed(1);
        for number in 0..300 {
            let features = std::array::from_fn(|_| (0..1000).map(|_| random.u32(..) | 1).collect());
            model.learn(&Features(features), if number % 2 == 0 { Label::Spam } else { Label::Ham });
        }
        save(&model, &path).unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= 1 << 20);
    }
}
