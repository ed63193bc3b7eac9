//! Connections by number, with a generation so that a late event never meets the next user of a place. Pure.

/// Place and generation of a connection; also its mio token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    place: u32,
    generation: u32,
}

/// Generations are 31 bits, so that tokens with the highest bit are free for listeners and the waker.
const GENERATION_MASK: u32 = u32::MAX >> 1;

impl Key {
    /// As a token for the poll.
    pub fn token(self) -> usize {
        (self.generation as usize) << 32 | self.place as usize
    }

    /// Back from a token.
    pub fn from_token(token: usize) -> Self {
        Key { place: token as u32, generation: (token >> 32) as u32 & GENERATION_MASK }
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<Box<T>>,
    /// A key of this generation is in use, though its value may be out for a turn.
    taken: bool,
}

/// Boxed values, so that a free place costs 16 bytes and taking one out for a turn moves a pointer.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    /// An empty slab.
    pub fn new() -> Self {
        Slab { slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Places in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Gives out a key whose value follows with [`Slab::put_back`], or is given up with [`Slab::release`].
    pub fn reserve(&mut self) -> Key {
        self.len += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None, taken: false });
            u32::try_from(self.slots.len() - 1).expect("connections are bounded far below 2^32")
        });
        let slot = &mut self.slots[place as usize];
        slot.taken = true;
        Key { place, generation: slot.generation }
    }

    /// Takes a value out for a turn.
    pub fn take(&mut self, key: Key) -> Option<Box<T>> {
        self.slot(key)?.value.take()
    }

    /// Ends a turn.
    pub fn put_back(&mut self, key: Key, value: Box<T>) {
        let slot = self.slot(key).expect("only a key in use is put back");
        debug_assert!(slot.value.is_none(), "a place holds one value");
        slot.value = Some(value);
    }

    /// Looks at a value that is not out.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot(key)?.value.as_deref_mut()
    }

    /// Ends a key; events that still carry it find nothing.
    pub fn release(&mut self, key: Key) {
        let Some(slot) = self.slot(key) else { return };
        slot.value = None;
        slot.taken = false;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(key.place);
        self.len -= 1;
    }

    /// All keys in use.
    pub fn keys(&self) -> Vec<Key> {
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.taken);
        taken.map(|(place, slot)| Key { place: place as u32, generation: slot.generation }).collect()
    }

    /// The value at `position` modulo the number of places, for sampling.
    pub fn at(&self, position: usize) -> Option<(Key, &T)> {
        let place = position.checked_rem(self.slots.len())?;
        let slot = &self.slots[place];
        Some((Key { place: place as u32, generation: slot.generation }, slot.value.as_deref()?))
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.slots.get_mut(key.place as usize).filter(|slot| slot.taken && slot.generation == key.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.reserve();
        slab.put_back(first, Box::new("first"));
        assert_eq!(slab.take(first).as_deref(), Some(&"first"));
        slab.release(first);
        let second = slab.reserve();
        slab.put_back(second, Box::new("second"));
        assert_eq!(second.token() as u32, first.token() as u32, "the place is used again");
        assert!(slab.take(first).is_none());
        slab.release(first);
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.keys(), [Key::from_token(second.token())]);
        assert_eq!(slab.at(5).map(|(_, value)| *value), Some("second"));
    }
}
