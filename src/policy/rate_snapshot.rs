//! The bytes of counted rates. Pure.
//!
//! `WEIRRATE1`, then entries, then the CRC32C of all before it. An entry: rate name and key, each with a 16-bit length before it;
//! the number of windows in one byte; for each window its newest slot and its cells, 64 bits each. All little-endian.

use std::fmt;

use super::window::Window;

const MAGIC: &[u8; 9] = b"WEIRRATE1";
const CRC_BYTES: usize = 4;

/// The bytes are no snapshot, or not a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the snapshot of rates is damaged")
    }
}

impl std::error::Error for Damaged {}

pub(super) struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Writer(MAGIC.to_vec())
    }
}

impl Writer {
    pub fn entry(&mut self, name: &str, key: &str, windows: &[Window]) {
        for text in [name, key] {
            let length = u16::try_from(text.len()).expect("names and keys are bounded below 64 KiB");
            self.0.extend(length.to_le_bytes());
            self.0.extend(text.as_bytes());
        }
        self.0.push(u8::try_from(windows.len()).expect("a rate has few windows"));
        for window in windows {
            self.0.extend(window.newest.to_le_bytes());
            window.cells.iter().for_each(|cell| self.0.extend(cell.to_le_bytes()));
        }
    }

    pub fn finish(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.0.extend(crc.to_le_bytes());
        self.0
    }
}

type Entry = (String, String, Vec<Window>);

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry>, Damaged> {
    let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(Damaged)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Damaged);
    }
    let mut rest = body.strip_prefix(MAGIC).ok_or(Damaged)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(read_entry(&mut rest).ok_or(Damaged)?);
    }
    Ok(entries)
}

fn read_entry(rest: &mut &[u8]) -> Option<Entry> {
    let (name, key) = (read_text(rest)?, read_text(rest)?);
    let count = rest.split_off_first()?;
    let windows: Option<Vec<Window>> = (0..*count).map(|_| read_window(rest)).collect();
    Some((name, key, windows?))
}

fn read_text(rest: &mut &[u8]) -> Option<String> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (text, tail) = tail.split_at_checked(u16::from_le_bytes(*length) as usize)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).ok()
}

fn read_window(rest: &mut &[u8]) -> Option<Window> {
    let mut window = Window { newest: read_u64(rest)?, ..Window::default() };
    for cell in &mut window.cells {
        *cell = read_u64(rest)?;
    }
    Some(window)
}

fn read_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*number))
}
