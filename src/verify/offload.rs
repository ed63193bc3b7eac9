//! Puts work that takes longer than about a millisecond on the rayon pool. I/O: none of its own; waits for the pool.

use tokio::sync::oneshot;

/// SHA-256 runs at some 400 MB/s and more: below this a hop to another thread costs more than the work.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Runs `work` over `bytes` of data, here or on the pool.
pub async fn offload<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // The receiver is gone only if the whole check was given up.
        let _ = sender.send(work());
    });
    receiver.await.expect("the pool runs what it was given")
}
