//! One batch of records on its way into a segment: headers and metas in one buffer, contents where they lie. Pure.

use std::io::IoSlice;
use std::ops::Range;

use super::record::{ALIGNMENT, FLAG_MORE, Header, Kind, record_bytes};
use super::table::Place;
use crate::base::content::Content;

/// A record as the batch remembers it, to apply it once it is durable.
pub(super) struct Written {
    pub(super) kind: Kind,
    pub(super) meta: Range<usize>,
    pub(super) place: Place,
}

enum Piece {
    Buffer(Range<usize>),
    Content(Content),
}

/// A record to be pushed.
pub(super) struct NewRecord<'a> {
    pub(super) kind: Kind,
    pub(super) meta: &'a [u8],
    pub(super) meta_crc: u32,
    pub(super) content: Option<&'a Content>,
    /// The next record belongs to it.
    pub(super) more: bool,
}

impl<'a> NewRecord<'a> {
    /// A record without content.
    pub(super) fn plain(kind: Kind, meta: &'a [u8]) -> Self {
        NewRecord { kind, meta, meta_crc: crc32c::crc32c(meta), content: None, more: false }
    }

    pub(super) fn with_more(self, more: bool) -> Self {
        NewRecord { more, ..self }
    }

    pub(super) fn bytes(&self) -> u64 {
        record_bytes(self.meta.len(), self.content.map_or(0, |content| content.len() as u64))
    }
}

/// The batch.
#[derive(Default)]
pub(super) struct Batch {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    pub(super) records: Vec<Written>,
    pub(super) segment: u32,
    seal: u64,
    pub(super) start: u32,
    pub(super) bytes: u64,
    room: u64,
}

/// Where a batch stood, to go back to.
pub(super) struct Mark {
    buffer: usize,
    pieces: usize,
    records: usize,
    bytes: u64,
    last_piece_end: usize,
}

impl Batch {
    /// Empties it for a new use at `start` of a segment with `room` bytes left.
    pub(super) fn begin(&mut self, segment: u32, seal: u64, start: u32, room: u64) {
        self.buffer.clear();
        self.pieces.clear();
        self.records.clear();
        (self.segment, self.seal, self.start, self.room, self.bytes) = (segment, seal, start, room, 0);
    }

    /// Adds a record; false if the segment has no room for it.
    pub(super) fn push(&mut self, record: &NewRecord) -> bool {
        let total = record.bytes();
        if self.bytes + total > self.room {
            return false;
        }
        let content_bytes = record.content.map_or(0, |content| content.len() as u64);
        let header = Header {
            seal: self.seal,
            batch: self.start,
            kind: record.kind,
            flags: if record.more { FLAG_MORE } else { 0 },
            meta_bytes: record.meta.len() as u32,
            content_bytes,
            meta_crc: record.meta_crc,
            content_crc: record.content.map_or(0, Content::crc32c),
        };
        let from = self.buffer.len();
        self.buffer.extend_from_slice(&header.write());
        let meta = self.buffer.len()..self.buffer.len() + record.meta.len();
        self.buffer.extend_from_slice(record.meta);
        self.extend_piece(from);
        if let Some(content) = record.content {
            self.pieces.push(Piece::Content(content.clone()));
        }
        let from = self.buffer.len();
        let padding = total as usize - header.write().len() - record.meta.len() - content_bytes as usize;
        self.buffer.extend_from_slice(&[0; ALIGNMENT][..padding]);
        self.extend_piece(from);
        let offset = self.start + self.bytes as u32;
        let place = Place { segment: self.segment, offset, bytes: total };
        self.records.push(Written { kind: record.kind, meta, place });
        self.bytes += total;
        true
    }

    fn extend_piece(&mut self, from: usize) {
        let end = self.buffer.len();
        match self.pieces.last_mut() {
            Some(Piece::Buffer(range)) if range.end == from => range.end = end,
            _ => self.pieces.push(Piece::Buffer(from..end)),
        }
    }

    pub(super) fn mark(&self) -> Mark {
        let last_piece_end = match self.pieces.last() {
            Some(Piece::Buffer(range)) => range.end,
            _ => 0,
        };
        Mark {
            buffer: self.buffer.len(),
            pieces: self.pieces.len(),
            records: self.records.len(),
            bytes: self.bytes,
            last_piece_end,
        }
    }

    /// Takes back what was pushed since `mark`.
    pub(super) fn back_to(&mut self, mark: &Mark) {
        self.buffer.truncate(mark.buffer);
        self.pieces.truncate(mark.pieces);
        self.records.truncate(mark.records);
        self.bytes = mark.bytes;
        if let Some(Piece::Buffer(range)) = self.pieces.last_mut() {
            range.end = mark.last_piece_end;
        }
    }

    pub(super) fn meta(&self, record: &Written) -> &[u8] {
        &self.buffer[record.meta.clone()]
    }

    /// The contents are written: none need be resident.
    pub(super) fn release(&self) {
        for piece in &self.pieces {
            if let Piece::Content(content) = piece {
                content.release();
            }
        }
    }

    /// The whole batch, for one gather write.
    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            slices.push(match piece {
                Piece::Buffer(range) => IoSlice::new(&self.buffer[range.clone()]),
                Piece::Content(content) => IoSlice::new(content),
            });
        }
        slices
    }
}
