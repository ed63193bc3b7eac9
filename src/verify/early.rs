//! Work that begins before its result is needed. I/O: none of its own; it runs on the tokio runtime.
//!
//! Invariant: the work is done once, whoever asks, and stops when nobody is left who could ask. A finished one keeps its
//! result and nothing else, so a conversation may hold it for as long as it lasts.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OnceCell, oneshot};

/// A result under way.
pub struct Early<T> {
    answer: Arc<OnceCell<T>>,
    /// Dropped, it stops the work.
    _wanted: oneshot::Sender<()>,
}

impl<T> fmt::Debug for Early<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Early").field("is_done", &self.answer.initialized()).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> Early<T> {
    /// Begins. Call within the tokio runtime.
    pub fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let (wanted, unwanted) = oneshot::channel();
        let answer = Arc::new(OnceCell::new());
        let own = answer.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = own.get_or_init(|| work) => {}
                _ = unwanted => {}
            }
        });
        Early { answer, _wanted: wanted }
    }

    /// The result, once it is there. Where the work itself was lost (it panicked, the runtime stops), it is done `again`.
    pub async fn get<W: Future<Output = T>>(&self, again: impl FnOnce() -> W) -> T {
        match self.answer.get() {
            Some(answer) => answer.clone(),
            None => Box::pin(self.answer.get_or_init(again)).await.clone(),
        }
    }

    /// The result, if it is there.
    pub fn now(&self) -> Option<T> {
        self.answer.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn the_work_is_done_once_for_all_who_ask() {
        let count = Arc::new(AtomicU32::new(0));
        let work = |count: Arc<AtomicU32>| async move { count.fetch_add(1, Ordering::Relaxed) };
        let early = Early::start(work(count.clone()));
        assert_eq!((early.get(|| work(count.clone())).await, early.get(|| work(count.clone())).await), (0, 0));
        assert_eq!((early.now(), count.load(Ordering::Relaxed)), (Some(0), 1));
    }

    #[tokio::test]
    async fn dropped_it_stops() {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let early = Early::start(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        tokio::task::yield_now().await;
        assert_eq!(early.now(), None);
        drop(early);
        assert_eq!(receiver.recv().await, None);
    }
}
