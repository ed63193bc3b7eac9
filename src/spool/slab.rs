//! A table of numbered places that grows in pieces, so that growth never copies nor doubles it. Pure.

/// Entries of one piece.
const PIECE_ENTRIES: usize = 4096;

/// Numbered places; a freed number is used again.
pub(super) struct Slab<T> {
    pieces: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    used: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { pieces: Vec::new(), free: Vec::new(), used: 0 }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if let Some(number) = self.free.pop() {
            self.pieces[number as usize / PIECE_ENTRIES][number as usize % PIECE_ENTRIES] = Some(value);
            return number;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE_ENTRIES) {
            self.pieces.push(Vec::with_capacity(PIECE_ENTRIES));
        }
        let before = (self.pieces.len() - 1) * PIECE_ENTRIES;
        let piece = self.pieces.last_mut().expect("one was pushed");
        piece.push(Some(value));
        (before + piece.len() - 1) as u32
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.pieces.get(number as usize / PIECE_ENTRIES)?.get(number as usize % PIECE_ENTRIES)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.pieces.get_mut(number as usize / PIECE_ENTRIES)?.get_mut(number as usize % PIECE_ENTRIES)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let place = self.pieces.get_mut(number as usize / PIECE_ENTRIES)?.get_mut(number as usize % PIECE_ENTRIES)?;
        let value = place.take()?;
        self.free.push(number);
        self.used -= 1;
        if self.used == 0 {
            *self = Slab::default();
        }
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }
}
