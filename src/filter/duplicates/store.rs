//! Counts of digests' keys that fade with time, in a table of fixed size. I/O: its file.
//!
//! The table is cut into shards with a lock each, held for some dozen loads; a key has a few places, and the weakest count
//! there gives way. So neither memory nor waiting grows with mail. The file is replaced as a whole and checked by
//! CRC32C; one that can't be used is begun anew, since all that it holds fades within days.

use std::fs;
use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::{Digest, KEYS, KEYS_AGREEING};
use crate::config::settings;

/// The file in the data directory.
pub const FILE_NAME: &str = "digests";

const MAGIC: &[u8; 8] = b"WEIRDIG1";
/// Locks; more than cores, so that two seldom meet.
const SHARDS: usize = 64;
/// Places of one key.
const WAYS: usize = 4;
/// Bytes of an entry on disk: key, count, time.
const ENTRY_BYTES: usize = 8 + 4 + 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    /// 0: free.
    key: u64,
    count: f32,
    seen_secs: u64,
}

/// What was seen.
pub struct Store {
    shards: Vec<Mutex<Vec<Entry>>>,
    half_life_secs: f32,
}

impl Store {
    /// An empty store; nothing if it is switched off.
    pub fn new(settings: &settings::Duplicates) -> Option<Self> {
        if settings.entries == 0 {
            return None;
        }
        let places = (settings.entries as usize).div_ceil(SHARDS * WAYS) * WAYS;
        let shards = (0..SHARDS).map(|_| Mutex::new(vec![Entry::default(); places])).collect();
        Some(Store { shards, half_life_secs: settings.half_life.as_secs_f32() })
    }

    /// How many messages like this came before `now_secs`, faded, and counts this one.
    pub fn count(&self, digest: &Digest, now_secs: u64) -> f32 {
        let mut seen = [0.0; KEYS];
        for (seen, &key) in seen.iter_mut().zip(&digest.0) {
            *seen = self.count_key(key, now_secs);
        }
        seen.sort_by(|a, b| b.total_cmp(a));
        seen[KEYS_AGREEING - 1]
    }

    fn count_key(&self, key: u64, now_secs: u64) -> f32 {
        // The shard is told by the high bits, the place by the low ones.
        let mut shard = self.shards[(key >> 58) as usize % SHARDS].lock();
        let sets = shard.len() / WAYS;
        let set = (key as usize >> 1) % sets * WAYS;
        let ways = &mut shard[set..set + WAYS];
        let faded = |entry: &Entry| self.faded(entry, now_secs);
        let place = ways.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let weakest = (0..WAYS).min_by(|&a, &b| faded(&ways[a]).total_cmp(&faded(&ways[b])));
            let place = weakest.expect("a key has places");
            ways[place] = Entry { key, count: 0.0, seen_secs: now_secs };
            place
        });
        let before = faded(&ways[place]);
        ways[place] = Entry { key, count: before + 1.0, seen_secs: now_secs };
        before
    }

    fn faded(&self, entry: &Entry, now_secs: u64) -> f32 {
        if entry.key == 0 {
            return 0.0;
        }
        let age = now_secs.saturating_sub(entry.seen_secs) as f32;
        entry.count * (-age / self.half_life_secs).exp2()
    }

    /// Writes all counts in place of the file that was there.
    /// # Errors
    /// As for any write; the old file then stands.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = MAGIC.to_vec();
        for shard in &self.shards {
            // A copy, so that nobody waits for the encoding.
            let entries = shard.lock().clone();
            for entry in entries.iter().filter(|entry| entry.key != 0) {
                out.extend_from_slice(&entry.key.to_le_bytes());
                out.extend_from_slice(&entry.count.to_le_bytes());
                out.extend_from_slice(&entry.seen_secs.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let new = path.with_extension("new");
        fs::write(&new, &out)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)
    }

    /// Takes over the counts of a file; a missing one is an empty one.
    /// # Errors
    /// If it can't be read, is no such file, or damaged; then nothing is taken over.
    pub fn restore(&self, path: &Path) -> io::Result<()> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not a file of digests, or damaged");
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        let entries = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
            self.put(entry);
        }
        Ok(())
    }

    fn put(&self, bytes: &[u8; ENTRY_BYTES]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, seen @ ..] = *bytes;
        let entry = Entry {
            key: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            count: f32::from_le_bytes([i, j, k, l]),
            seen_secs: u64::from_le_bytes(seen),
        };
        let mut shard = self.shards[(entry.key >> 58) as usize % SHARDS].lock();
        let sets = shard.len() / WAYS;
        let set = (entry.key as usize >> 1) % sets * WAYS;
        // A smaller table than the file's keeps what finds a free place.
        if let Some(free) = shard[set..set + WAYS].iter_mut().find(|place| place.key == 0) {
            *free = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: u64 = 3600;

    fn store(entries: u32) -> Store {
        Store::new(&settings::Duplicates { entries, half_life: Duration::from_secs(HOUR) }).unwrap()
    }

    fn digest(number: u64) -> Digest {
        Digest(std::array::from_fn(|key| (number * 6 + key as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    #[test]
    fn counts_grow_and_fade() {
        let store = store(1024);
        let seen: Vec<f32> = (0..4).map(|_| store.count(&digest(1), 1_000_000)).collect();
        assert_eq!(seen, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(store.count(&digest(1), 1_000_000 + HOUR), 2.0, "half of four is left after an hour");
        assert_eq!(store.count(&digest(2), 1_000_000), 0.0);
        // A message that shares half of the keys counts as seen, one that shares two does not.
        let mut half = digest(3);
        half.0[..KEYS_AGREEING].copy_from_slice(&digest(1).0[..KEYS_AGREEING]);
        assert!(store.count(&half, 1_000_000 + HOUR) >= 2.0);
        let mut fewer = digest(4);
        fewer.0[..KEYS_AGREEING - 1].copy_from_slice(&digest(1).0[..KEYS_AGREEING - 1]);
        assert_eq!(store.count(&fewer, 1_000_000 + HOUR), 0.0);
    }

    #[test]
    fn the_table_stays_as_large_as_it_is_and_keeps_what_comes_often() {
        let store = store(256);
        (0..50).for_each(|_| _ = store.count(&digest(7), HOUR));
        (100..10_000).for_each(|number| _ = store.count(&digest(number), HOUR));
        assert!(store.count(&digest(7), HOUR) >= 50.0);
        let places: usize = store.shards.iter().map(|shard| shard.lock().len()).sum();
        assert_eq!(places, 256);
    }

    #[test]
    fn counts_survive_the_disk_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let first = store(1024);
        first.restore(&path).unwrap();
        (0..5).for_each(|_| _ = first.count(&digest(1), HOUR));
        first.save(&path).unwrap();
        let second = store(1024);
        second.restore(&path).unwrap();
        assert_eq!(second.count(&digest(1), HOUR), 5.0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(store(1024).restore(&path).is_err());
    }
}
