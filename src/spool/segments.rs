//! Which segment files there are and what of them is still needed. Pure bookkeeping over open files.
//!
//! A segment may go when no body and no state of a live message stands in it, no admin act (until copied forward), and no
//! end of a message whose body a segment still on disk holds: else that message would live again after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::storage::StoredFile;

/// One segment.
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) seal: u64,
    /// Counts those who read it: a segment is not used again while content of it is lent out.
    pub(super) file: Arc<dyn StoredFile>,
    pub(super) file_bytes: u64,
    /// Bytes that hold believed records.
    pub(super) bytes: u32,
    pub(super) sealed: bool,
    pub(super) poisoned: bool,
    pub(super) bodies: u32,
    pub(super) body_bytes: u64,
    /// Live messages whose state records stand here.
    pub(super) states: u32,
    pub(super) acts: u32,
    /// All that was needed of it is written elsewhere; it goes as soon as nobody reads it.
    pub(super) copied: bool,
    /// A body in it can't be read; it stays for the operator.
    pub(super) damaged: bool,
    /// Ends of messages whose body stood in an older segment, and bodies copied from there: segment, how many.
    pub(super) ends: BTreeMap<u32, u32>,
}

impl Segment {
    pub(super) fn new(name: String, seal: u64, file: Arc<dyn StoredFile>, file_bytes: u64) -> Self {
        Segment {
            name,
            seal,
            file,
            file_bytes,
            bytes: 0,
            sealed: false,
            poisoned: false,
            bodies: 0,
            body_bytes: 0,
            states: 0,
            acts: 0,
            copied: false,
            damaged: false,
            ends: BTreeMap::new(),
        }
    }
}

/// All segments by generation.
#[derive(Default)]
pub(super) struct Segments(pub(super) BTreeMap<u32, Segment>);

impl Segments {
    pub(super) fn get(&self, generation: u32) -> Option<&Segment> {
        self.0.get(&generation)
    }

    /// The segment's records are believed up to `bytes`, and what they say is in memory.
    pub(super) fn set_bytes(&mut self, generation: u32, bytes: u32) {
        if let Some(segment) = self.0.get_mut(&generation) {
            segment.bytes = bytes;
        }
    }

    pub(super) fn add_body(&mut self, generation: u32, bytes: u64) {
        if let Some(segment) = self.0.get_mut(&generation) {
            segment.bodies += 1;
            segment.body_bytes += bytes;
        }
    }

    pub(super) fn remove_body(&mut self, generation: u32, bytes: u64) {
        if let Some(segment) = self.0.get_mut(&generation) {
            segment.bodies -= 1;
            segment.body_bytes -= bytes;
        }
    }

    /// The state of a message moves from segment `from` (0: none) to `to` (0: none).
    pub(super) fn move_state(&mut self, from: u32, to: u32) {
        if let Some(segment) = self.0.get_mut(&from) {
            segment.states -= 1;
        }
        if let Some(segment) = self.0.get_mut(&to) {
            segment.states += 1;
        }
    }

    /// A record in `generation` ends or replaces a body in `body`.
    pub(super) fn add_end(&mut self, generation: u32, body: u32) {
        if generation != body
            && let Some(segment) = self.0.get_mut(&generation)
        {
            *segment.ends.entry(body).or_default() += 1;
        }
    }

    /// A body was copied from `from`: what `from` kept dead in still older segments, the copy's segment keeps dead now.
    pub(super) fn inherit_ends(&mut self, generation: u32, from: u32) {
        let Some(segment) = self.0.get(&from) else { return };
        let older: Vec<u32> = segment.ends.keys().filter(|body| self.0.contains_key(body)).copied().collect();
        older.into_iter().for_each(|body| self.add_end(generation, body));
    }

    /// A record in `generation` ends a message whose body may stand in any older segment.
    pub(super) fn add_end_of_unknown(&mut self, generation: u32) {
        let older: Vec<u32> = self.0.range(..generation).map(|(older, _)| *older).collect();
        older.into_iter().for_each(|body| self.add_end(generation, body));
    }

    pub(super) fn add_act(&mut self, generation: u32) {
        if let Some(segment) = self.0.get_mut(&generation) {
            segment.acts += 1;
        }
    }

    /// True if a record of `segment` still keeps an older body dead.
    pub(super) fn holds_ends(&self, segment: &Segment) -> bool {
        segment.ends.keys().any(|body| self.0.contains_key(body))
    }

    /// The oldest segment below `limit` with nothing needed in it and no reader.
    pub(super) fn free_one(&self, limit: u32) -> Option<u32> {
        let free = |segment: &Segment| {
            segment.sealed
                && segment.bodies == 0
                && segment.states == 0
                && segment.acts == 0
                && Arc::strong_count(&segment.file) == 1
                && !self.holds_ends(segment)
        };
        self.0.range(..limit).find(|(_, segment)| free(segment)).map(|(generation, _)| *generation)
    }

    /// The sealed segment below `limit` that is cheapest to copy forward: the one with the least alive.
    pub(super) fn emptiest(&self, limit: u32) -> Option<u32> {
        let sealed = self.0.range(..limit).filter(|(_, segment)| segment.sealed && !segment.damaged);
        sealed.min_by_key(|(_, segment)| segment.body_bytes).map(|(generation, _)| *generation)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.0.values().map(|segment| segment.file_bytes).sum()
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.0.values().map(|segment| segment.body_bytes).sum()
    }

    pub(super) fn poisoned(&self) -> Vec<(u32, u32)> {
        self.0.iter().filter(|(_, s)| s.poisoned).map(|(generation, s)| (*generation, s.bytes)).collect()
    }
}
