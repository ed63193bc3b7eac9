//! Puts work that takes longer than a runtime thread may be kept on the rayon pool. I/O: none of its own.
//!
//! What it will take is estimated from figures of `cargo bench --bench verify`, which prints them again, and what handing
//! over costs: work of a few signatures is done where it is.

use tokio::sync::oneshot;

/// A thread of the runtime is kept no longer than this; handing over costs about 7 microseconds and a switch of threads.
const INLINE_MICROS_MAX: u64 = 500;
/// SHA-256 with canonicalisation runs at some 580 MB/s.
const HASHED_BYTES_PER_MICRO: u64 = 500;
/// RSA of 4096 bits, the longest that is taken, takes 57, of 2048 bits 17; besides its header fields are put into canonical form.
const SIGNATURE_MICROS: u64 = 70;

/// What work is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost(u64);

impl Cost {
    /// Hashing `bytes`, `times` times.
    pub fn hashing(bytes: usize, times: usize) -> Self {
        Cost((bytes as u64).saturating_mul(times as u64) / HASHED_BYTES_PER_MICRO)
    }

    /// Checking `count` signatures.
    pub fn signatures(count: usize) -> Self {
        Cost(SIGNATURE_MICROS.saturating_mul(count as u64))
    }

    /// Both.
    pub fn and(self, other: Cost) -> Self {
        Cost(self.0.saturating_add(other.0))
    }

    /// True if the pool shall do it.
    pub fn is_large(self) -> bool {
        self.0 > INLINE_MICROS_MAX
    }
}

/// Runs `work`, here or on the pool.
pub async fn offload<T: Send + 'static>(cost: Cost, work: impl FnOnce() -> T + Send + 'static) -> T {
    if cost.is_large() { on_pool(work).await } else { work() }
}

/// Runs `work` on the pool.
pub async fn on_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // The receiver is gone only if the whole check was given up.
        let _ = sender.send(work());
    });
    receiver.await.expect("the pool runs what it was given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_message_stays_and_a_large_one_goes() {
        assert!(!Cost::signatures(4).and(Cost::hashing(50_000, 2)).is_large());
        assert!(Cost::signatures(8).is_large());
        assert!(Cost::hashing(300_000, 1).is_large());
        assert!(Cost::hashing(usize::MAX, usize::MAX).and(Cost::signatures(1)).is_large());
    }

    #[tokio::test]
    async fn large_work_runs_on_a_thread_of_the_pool() {
        let where_it_ran = || rayon::current_thread_index().is_some();
        assert!(offload(Cost::signatures(100), where_it_ran).await);
        assert!(!offload(Cost::signatures(1), where_it_ran).await);
    }
}
