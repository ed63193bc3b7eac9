//! A coarse timer wheel: which connections to look at again, and when. Pure; the time is passed in.
//!
//! It is lazy: an entry says "look not later than this", the looker compares with the real deadline and enters the
//! connection again. A deadline that moves back with each command therefore costs nothing, and one beyond the wheel's
//! horizon is just looked at once on the way. Entries are never removed, only found stale.

use std::time::{Duration, Instant};

use super::slab::Key;

/// Slots; a power of two, one bit each in `occupied`.
const SLOTS: usize = 1024;
/// One slot: how late a timeout may be. With [`SLOTS`] the horizon is 65 s.
const TICK: Duration = Duration::from_millis(64);

/// Timers of one reactor.
pub struct Wheel {
    start: Instant,
    /// All ticks before this one have fired.
    done: u64,
    slots: Vec<Vec<Key>>,
    occupied: [u64; SLOTS / 64],
}

impl Wheel {
    /// An empty wheel that begins at `start`.
    pub fn new(start: Instant) -> Self {
        Wheel { start, done: 0, slots: vec![Vec::new(); SLOTS], occupied: [0; SLOTS / 64] }
    }

    /// The tick in which `deadline` has passed for certain, at most one horizon away.
    pub fn tick_of(&self, deadline: Instant) -> u64 {
        let ticks = deadline.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos() + 1;
        (ticks as u64).clamp(self.done, self.done + SLOTS as u64 - 1)
    }

    /// Looks at `key` once `tick` (of [`Wheel::tick_of`]) has come.
    pub fn enter(&mut self, tick: u64, key: Key) {
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// The next moment something is due.
    pub fn next(&self) -> Option<Instant> {
        let first = self.done + self.distance()?;
        Some(self.start + TICK * u32::try_from(first).unwrap_or(u32::MAX))
    }

    /// Ticks from the first that has not fired to the first that has entries. Asked before every sleep, so by words.
    fn distance(&self) -> Option<u64> {
        let start = self.done as usize % SLOTS;
        let words = self.occupied.len();
        (0..=words).find_map(|step| {
            let place = (start / 64 + step) % words;
            // The first word counts from `start`; met again at the end, it counts below it.
            let mask = match step {
                0 => u64::MAX << (start % 64),
                _ if step == words => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = self.occupied[place] & mask;
            let slot = place * 64 + bits.trailing_zeros() as usize;
            (bits != 0).then(|| ((slot + SLOTS - start) % SLOTS) as u64)
        })
    }

    /// Moves what is due at `now` into `due`, with the tick that it was entered for.
    pub fn advance(&mut self, now: Instant, due: &mut Vec<(u64, Key)>) {
        let current = (now.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos()) as u64;
        // Behind by more than a turn of the wheel (the machine slept): every slot is due once.
        let last = current.min(self.done + SLOTS as u64 - 1);
        for tick in self.done..=last {
            if self.is_occupied(tick) {
                let slot = tick as usize % SLOTS;
                due.extend(self.slots[slot].drain(..).map(|key| (tick, key)));
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.done = self.done.max(current + 1);
    }

    fn is_occupied(&self, tick: u64) -> bool {
        let slot = tick as usize % SLOTS;
        self.occupied[slot / 64] & (1 << (slot % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_fires_early_and_everything_fires_within_a_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let mut due = Vec::new();
        for n in 0..600u32 {
            let deadline = start + Duration::from_millis(u64::from(n) * 97);
            wheel.enter(wheel.tick_of(deadline), Key::from_token(n as usize));
        }
        for step in 0..2000u64 {
            let now = start + Duration::from_millis(step * 31);
            let slowly = (wheel.done..wheel.done + SLOTS as u64).find(|tick| wheel.is_occupied(*tick));
            assert_eq!(wheel.distance().map(|ticks| wheel.done + ticks), slowly);
            wheel.advance(now, &mut due);
            for (_, key) in due.drain(..) {
                let deadline = start + Duration::from_millis(key.token() as u64 * 97);
                assert!(deadline <= now, "early");
                assert!(now - deadline <= TICK * 2, "late");
            }
        }
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_far_deadline_is_looked_at_on_the_way() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let tick = wheel.tick_of(start + Duration::from_secs(3600));
        wheel.enter(tick, Key::from_token(7));
        let looked = wheel.next().unwrap();
        assert!(looked < start + Duration::from_secs(70));
        let mut due = Vec::new();
        wheel.advance(start + Duration::from_secs(4000), &mut due);
        assert_eq!(due, [(tick, Key::from_token(7))]);
    }
}
