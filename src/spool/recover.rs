//! Reading the journal back: after a stop of any kind, for `verify`, and for copying forward. I/O: reads segments.
//!
//! Invariants: a record is believed only whole and with the seal of its segment's present use; damage costs the records
//! that it touches and no others; what can't be read is reported, never guessed. The content of the last batch of each segment is checked, since
//! a power cut may have torn it; all other content is checked when it is read for delivery.

use std::io;

use super::payload::{self, SegmentHead};
use super::record::{ALIGNMENT, FLAG_MORE, HEADER_BYTES, Header, Kind};
use super::segments::Segment;
use super::state::State;
use super::storage::{Storage, StoredFile};
use super::table::Place;

/// How much is read at once: a few hundred small messages.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Segment files end so; before it stand generation and seal.
const SEGMENT_SUFFIX: &str = ".seg";
/// Files that wait to become segments begin so.
pub(super) const FREE_PREFIX: &str = "free-";

/// The name of a segment's file.
pub(super) fn segment_name(generation: u32, seal: u64) -> String {
    format!("{generation:010}-{seal:016x}{SEGMENT_SUFFIX}")
}

fn parse_name(name: &str) -> Option<(u32, u64)> {
    let (generation, seal) = name.strip_suffix(SEGMENT_SUFFIX)?.split_once('-')?;
    Some((generation.parse().ok()?, u64::from_str_radix(seal, 16).ok()?))
}

/// A piece of a segment that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's generation.
    pub segment: u32,
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One record that was found whole.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) offset: u64,
    pub(super) meta: Vec<u8>,
}

impl Found {
    pub(super) fn place(&self, segment: u32) -> Place {
        Place { segment, offset: self.offset as u32, bytes: self.header.record_bytes() }
    }
}

/// What a walk through one segment came to.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) damage: Vec<(u64, u64)>,
    /// Where the last believed record ends.
    pub(super) end: u64,
    /// Damage inside the last batch: torn, never acknowledged, if this is the last segment.
    pub(super) torn: Vec<(u64, u64)>,
}

struct Window<'a> {
    file: &'a dyn StoredFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `length` bytes from `offset`, or what there is of them.
    fn get(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + length as u64 > end {
            self.bytes.resize(length.max(WINDOW_BYTES), 0);
            let read = self.file.read_at(offset, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + length)])
    }
}

/// Walks through the believed part of a segment, up to `limit`; `visit` gets each record in order.
pub(super) fn walk(
    file: &dyn StoredFile,
    seal: u64,
    limit: u64,
    check_all: bool,
    visit: &mut dyn FnMut(Found),
) -> io::Result<Walk> {
    let mut walker = Walker {
        window: Window { file, start: 0, bytes: Vec::new() },
        seal,
        limit: limit.min(file.size()?),
        check_all,
        batch: Vec::new(),
        walk: Walk::default(),
        holes: Vec::new(),
        visit,
    };
    walker.run()?;
    Ok(walker.walk)
}

struct Walker<'a> {
    window: Window<'a>,
    seal: u64,
    limit: u64,
    check_all: bool,
    batch: Vec<Found>,
    /// Damage since the present batch began.
    holes: Vec<(u64, u64)>,
    walk: Walk,
    visit: &'a mut dyn FnMut(Found),
}

impl Walker<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut at = 0;
        loop {
            match self.header_at(at)? {
                Some(header) => {
                    self.take(header, at)?;
                    at += header.record_bytes();
                }
                None => match self.search(at + ALIGNMENT as u64)? {
                    Some(next) => {
                        self.holes.push((at, next - at));
                        at = next;
                    }
                    None => break,
                },
            }
        }
        self.end_batch(true)
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let limit = self.limit;
        let header = Header::read(self.window.get(at, HEADER_BYTES)?, self.seal);
        Ok(header.filter(|header| header.record_bytes() <= limit.saturating_sub(at)))
    }

    /// The next place at or behind `at` where a record begins.
    fn search(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        let seal = self.seal.to_le_bytes();
        while at + HEADER_BYTES as u64 <= self.limit {
            let ahead = (self.limit - at).min(WINDOW_BYTES as u64) as usize;
            let bytes = self.window.get(at, ahead)?;
            let places = (0..bytes.len().saturating_sub(HEADER_BYTES - 1)).step_by(ALIGNMENT);
            let mut likely = places.clone().filter(|p| bytes[p + 8..p + 16] == seal);
            match likely.next() {
                Some(place) => {
                    at += place as u64;
                    if self.header_at(at)?.is_some() {
                        return Ok(Some(at));
                    }
                    at += ALIGNMENT as u64;
                }
                None if places.len() == 0 => return Ok(None),
                None => at += (places.len() * ALIGNMENT) as u64,
            }
        }
        Ok(None)
    }

    fn take(&mut self, header: Header, at: u64) -> io::Result<()> {
        if self.batch.first().is_some_and(|first| first.header.batch != header.batch) {
            self.end_batch(false)?;
        }
        let meta = self.window.get(at + HEADER_BYTES as u64, header.meta_bytes as usize)?;
        if crc32c::crc32c(meta) == header.meta_crc {
            let meta = meta.to_vec();
            self.batch.push(Found { header, offset: at, meta });
        } else {
            self.holes.push((at, header.record_bytes()));
        }
        self.walk.end = at + header.record_bytes();
        Ok(())
    }

    /// Hands over what is whole of the batch.
    fn end_batch(&mut self, last: bool) -> io::Result<()> {
        let mut whole = Vec::with_capacity(self.batch.len());
        for found in std::mem::take(&mut self.batch) {
            if (last || self.check_all) && !content_is_whole(self.window.file, &found)? {
                self.holes.push((found.offset, found.header.record_bytes()));
            } else {
                whole.push(found);
            }
        }
        // Members of a group stand one right behind the other; if one is missing, those before it don't count.
        let mut group: Vec<Found> = Vec::new();
        for found in whole {
            if group.last().is_some_and(|before| before.offset + before.header.record_bytes() != found.offset) {
                self.holes.extend(group.drain(..).map(|lost| (lost.offset, lost.header.record_bytes())));
            }
            let more = found.header.flags & FLAG_MORE != 0;
            group.push(found);
            if !more {
                group.drain(..).for_each(&mut self.visit);
            }
        }
        self.holes.extend(group.into_iter().map(|lost| (lost.offset, lost.header.record_bytes())));
        let list = if last { &mut self.walk.torn } else { &mut self.walk.damage };
        list.append(&mut self.holes);
        Ok(())
    }
}

/// True if the content's checksum is right.
pub(super) fn content_is_whole(file: &dyn StoredFile, found: &Found) -> io::Result<bool> {
    let mut left = found.header.content_bytes;
    let mut at = found.offset + (HEADER_BYTES + found.meta.len()) as u64;
    let mut crc = 0;
    let mut buffer = vec![0; left.min(WINDOW_BYTES as u64) as usize];
    while left > 0 {
        let piece = left.min(buffer.len() as u64) as usize;
        let read = file.read_at(at, &mut buffer[..piece])?;
        if read < piece {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, &buffer[..piece]);
        (left, at) = (left - piece as u64, at + piece as u64);
    }
    Ok(crc == found.header.content_crc)
}

/// What the journal said.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) next_generation: u32,
    pub(super) damage: Vec<Damage>,
    pub(super) records: u64,
    /// Names of files that may become segments.
    pub(super) free: Vec<String>,
    /// What of other files lies about.
    pub(super) others: Vec<String>,
}

/// Fills a state from a checkpoint and says from where on the journal is to be applied; `None` if there is none to believe.
pub(super) type LoadCheckpoint<'a> = &'a mut dyn FnMut(&mut State) -> Option<Place>;

/// Segments of a journal that is being written, and how far each is to be read.
pub(super) type Limits = std::collections::HashMap<u32, u32>;

/// Reads the journal.
/// # Errors
/// Only if the directory or a whole file can't be read.
pub(super) fn recover(
    storage: &dyn Storage,
    load: LoadCheckpoint,
    limits: Option<&Limits>,
    check_all: bool,
) -> io::Result<Recovered> {
    let mut recovered = open_segments(storage, limits)?;
    let from = match load(&mut recovered.state) {
        Some(place) => place,
        None => {
            recovered = open_segments(storage, limits)?;
            Place::default()
        }
    };
    mark_poisoned(&mut recovered.state)?;
    apply_all(from, limits, check_all, &mut recovered)?;
    Ok(recovered)
}

fn open_segments(storage: &dyn Storage, limits: Option<&Limits>) -> io::Result<Recovered> {
    let mut out = Recovered {
        state: State::default(),
        next_generation: 1,
        damage: Vec::new(),
        records: 0,
        free: Vec::new(),
        others: Vec::new(),
    };
    for name in storage.list()? {
        match parse_name(&name) {
            Some((generation, _)) if limits.is_some_and(|limits| !limits.contains_key(&generation)) => {}
            Some((generation, seal)) => {
                let file = storage.open(&name)?;
                let file_bytes = file.size()?;
                let mut segment = Segment::new(name, seal, file, file_bytes);
                segment.sealed = true;
                // Segments before a checkpoint are not walked at the start: all of them may hold records.
                segment.bytes = file_bytes.min(u32::MAX.into()) as u32;
                out.next_generation = out.next_generation.max(generation + 1);
                out.state.segments.0.insert(generation, segment);
            }
            None if name.starts_with(FREE_PREFIX) => out.free.push(name),
            None => out.others.push(name),
        }
    }
    Ok(out)
}

/// Each head names the segments whose end is not to be believed.
fn mark_poisoned(state: &mut State) -> io::Result<()> {
    let mut poisoned = Vec::new();
    for segment in state.segments.0.values() {
        if let Some(head) = read_head(segment)? {
            poisoned.extend(head.poisoned);
            state.damage.extend(head.damage);
        }
    }
    state.damage.sort_unstable();
    state.damage.dedup();
    for (generation, bytes) in poisoned {
        if let Some(segment) = state.segments.0.get_mut(&generation) {
            (segment.poisoned, segment.bytes) = (true, bytes);
        }
    }
    Ok(())
}

fn read_head(segment: &Segment) -> io::Result<Option<SegmentHead>> {
    let mut window = Window { file: &*segment.file, start: 0, bytes: Vec::new() };
    let Some(header) = Header::read(window.get(0, HEADER_BYTES)?, segment.seal) else { return Ok(None) };
    let meta = window.get(HEADER_BYTES as u64, header.meta_bytes as usize)?;
    let whole = header.kind == Kind::Segment && crc32c::crc32c(meta) == header.meta_crc;
    Ok(whole.then(|| payload::read_head(&mut super::codec::Reader(meta))).flatten())
}

fn apply_all(from: Place, limits: Option<&Limits>, check_all: bool, out: &mut Recovered) -> io::Result<()> {
    let state = &mut out.state;
    let all: Vec<u32> = state.segments.0.range(from.segment..).map(|(generation, _)| *generation).collect();
    for generation in &all {
        let segment = state.segments.get(*generation).expect("listed above");
        let (file, seal) = (segment.file.clone(), segment.seal);
        let limit = if segment.poisoned { u64::from(segment.bytes) } else { segment.file_bytes };
        let limit =
            limits.and_then(|limits| limits.get(generation)).map_or(limit, |bytes| limit.min(u64::from(*bytes)));
        let mut unreadable = Vec::new();
        let walk = walk(&*file, seal, limit, check_all, &mut |found| {
            if *generation == from.segment && found.offset < u64::from(from.offset) {
                return;
            }
            out.records += 1;
            if state.apply(found.header.kind, &found.meta, found.place(*generation), false).is_err() {
                unreadable.push((found.offset, found.header.record_bytes()));
            }
        })?;
        let piece = |(offset, bytes): (u64, u64)| Damage { segment: *generation, offset, bytes };
        let mut damage: Vec<Damage> = walk.damage.into_iter().chain(unreadable).map(piece).collect();
        let torn: Vec<Damage> = walk.torn.into_iter().map(piece).collect();
        if Some(generation) == all.last() {
            // The last batch of all: its sync never returned, so nobody was told that it is safe.
            for piece in &torn {
                remember(&mut state.damage, piece);
            }
        } else {
            damage.extend(torn);
        }
        for piece in damage {
            if remember(&mut state.damage, &piece) {
                out.damage.push(piece);
            }
        }
        state.segments.0.get_mut(generation).expect("listed above").bytes = walk.end as u32;
    }
    Ok(())
}

/// Damaged pieces remembered at most; more are reported anew at each start.
const DAMAGE_REMEMBERED_MAX: usize = 1000;

/// True if the piece was not known.
fn remember(known: &mut Vec<(u32, u32, u32)>, piece: &Damage) -> bool {
    let entry = (piece.segment, piece.offset as u32, piece.bytes.min(u32::MAX.into()) as u32);
    if known.contains(&entry) {
        return false;
    }
    if known.len() < DAMAGE_REMEMBERED_MAX {
        known.push(entry);
    }
    true
}
