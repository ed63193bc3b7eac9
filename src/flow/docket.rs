//! Messages that wait for the filter at the same time are judged together. I/O: the pool's threads.
//!
//! What lies beside each other takes turns at every rule, so that a rule is fetched from memory once for all of them; that takes a
//! fifth off the time. Nobody waits for company: a message goes with those that wait already when a thread of the pool comes to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::checks::caught;
use crate::base::content::Content;
use crate::filter::budget::LIMITS;
use crate::filter::engine::together;
use crate::filter::meters::Meters;
use crate::filter::{Engine, Facts, Verdict};

/// Content up to this size is judged on the thread that asks, if nothing else is being judged. It takes a fraction of a millisecond, so
/// nothing else waits long there, and the way to another thread and back would take a tenth of that again.
const JUDGED_AT_ONCE_BYTES_MAX: usize = 8 * 1024;

/// See the module. What waits is bounded by the messages that are being received.
pub struct Docket {
    engine: Arc<Engine>,
    meters: Arc<Meters>,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Threads that are judging.
    judging: AtomicUsize,
}

/// What is judged.
pub struct Case {
    /// The message.
    pub content: Content,
    /// What is known beside it.
    pub facts: Facts,
    /// Its id, for the log.
    pub id: String,
}

struct Waiting {
    case: Case,
    /// Nobody listens any more when the conversation has ended.
    answer: oneshot::Sender<Option<Verdict>>,
}

impl Docket {
    /// A docket for this engine.
    pub fn new(engine: Arc<Engine>, meters: Arc<Meters>) -> Arc<Self> {
        Arc::new(Docket { engine, meters, waiting: Mutex::default(), judging: AtomicUsize::new(0) })
    }

    /// Rules and classifier.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The verdict on a message; nothing if judging it panicked.
    pub async fn judge(self: &Arc<Self>, case: Case) -> Option<Verdict> {
        let idle = self.judging.load(Ordering::Relaxed) == 0;
        if idle && case.content.len() <= JUDGED_AT_ONCE_BYTES_MAX {
            return self.judge_all(&[&case]).remove(0);
        }
        let (answer, verdict) = oneshot::channel();
        self.waiting.lock().push_back(Waiting { case, answer });
        let docket = self.clone();
        rayon::spawn(move || docket.serve());
        verdict.await.ok().flatten()
    }

    /// Judges some of what waits, if another thread has not done so already.
    fn serve(&self) {
        let taken = self.take(rayon::current_num_threads());
        if !taken.is_empty() {
            let verdicts = self.judge_all(&taken.iter().map(|one| &one.case).collect::<Vec<_>>());
            for (one, verdict) in taken.into_iter().zip(verdicts) {
                // The receiver is gone when the conversation has ended; then nobody waits for the verdict.
                let _ = one.answer.send(verdict);
            }
        }
    }

    /// The oldest that wait, as many as come to one of so many threads.
    fn take(&self, threads: usize) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|one| !one.answer.is_closed());
        let share = waiting.len().div_ceil(threads);
        let count = together(waiting.iter().take(share).map(|one| one.case.content.len())).min(share);
        waiting.drain(..count).collect()
    }

    fn judge_all(&self, cases: &[&Case]) -> Vec<Option<Verdict>> {
        self.judging.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let together: Vec<(&[u8], &Facts)> = cases.iter().map(|case| (&*case.content, &case.facts)).collect();
        let verdicts = match caught(|| self.engine.judge_together(&together)) {
            Some(verdicts) => verdicts.into_iter().map(Some).collect(),
            // One of them is to blame; the others have their verdicts.
            None if cases.len() > 1 => {
                together.iter().map(|(content, facts)| caught(|| self.engine.judge(content, facts))).collect()
            }
            None => vec![None],
        };
        let seconds = began.elapsed().as_secs_f64() / cases.len() as f64;
        self.judging.fetch_sub(1, Ordering::Relaxed);
        self.meters.judged_together(cases.len());
        for (case, verdict) in cases.iter().zip(&verdicts) {
            let Some(verdict) = verdict else { continue };
            self.meters.count(verdict, seconds);
            for row in LIMITS.iter().filter(|row| verdict.has(row.symbol)) {
                tracing::info!(id = %case.id, limit = row.symbol, "a message is over a limit of the filter");
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::filter::engine::{TOGETHER_BYTES_MAX, TOGETHER_MAX};

    fn docket() -> Arc<Docket> {
        let filter = Config::default_for(Path::new("/nonexistent")).filter;
        let engine = Arc::new(Engine::open(&filter, None).unwrap());
        Docket::new(engine, Arc::new(Meters::register(&prometheus::Registry::new()).unwrap()))
    }

    fn case(number: usize, bytes: usize) -> Case {
        let words = ["viagra", "invoice", "dear friend", "http://192.0.2.1/x", "unsubscribe"];
        let text = format!("{} {number}\n", words[number % words.len()]).repeat(bytes / 16);
        let content = format!("From: a{number}@b.example\nSubject: {}\n\n{text}", words[number / 2 % words.len()]);
        Case { content: Content::from_bytes(content.into_bytes()), facts: Facts::default(), id: number.to_string() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_has_the_verdict_that_it_has_alone() {
        let docket = docket();
        let asked: Vec<_> = (0..60)
            .map(|number| {
                let docket = docket.clone();
                tokio::spawn(async move { docket.judge(case(number, 100 + 400 * (number % 30))).await })
            })
            .collect();
        for (number, asked) in asked.into_iter().enumerate() {
            let verdict = asked.await.unwrap().unwrap();
            let alone = docket.engine.judge(&case(number, 100 + 400 * (number % 30)).content, &Facts::default());
            assert_eq!(verdict.symbols, alone.symbols, "{number}");
            assert_eq!(verdict.score, alone.score, "{number}");
        }
        assert!(docket.waiting.lock().is_empty());
        assert_eq!(docket.judging.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_waits_is_shared_out() {
        let docket = docket();
        let mut listening = Vec::new();
        let mut wait = |number: usize, bytes: usize| {
            let (answer, verdict) = oneshot::channel();
            docket.waiting.lock().push_back(Waiting { case: case(number, bytes), answer });
            listening.push(verdict);
        };
        let (most, small) = (TOGETHER_MAX, 2 * TOGETHER_MAX + 5);
        (0..small).for_each(|number| wait(number, 100));
        wait(small, 2 * TOGETHER_BYTES_MAX);
        wait(small + 1, 100);
        drop(listening.remove(1));
        let take = |threads| {
            let taken = docket.take(threads);
            taken.iter().map(|one| one.case.id.parse().unwrap()).collect::<Vec<usize>>()
        };
        let expected: Vec<usize> = (0..=most).filter(|&number| number != 1).collect();
        assert_eq!(take(2), expected, "as many as are worth it, but not whose conversation has ended");
        let quarter = (small + 1 - most).div_ceil(4);
        assert_eq!(take(4), (most + 1..).take(quarter).collect::<Vec<_>>(), "what comes to one of four threads");
        assert_eq!(take(1), (most + 1 + quarter..small).collect::<Vec<_>>());
        assert_eq!(take(1), [small], "a large one goes alone");
        assert_eq!(take(1), [small + 1]);
        assert!(take(1).is_empty());
    }
}
