//! What one message asked of DNS and what was answered, for whoever explains its fate later. I/O: the clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lookup::Answer;

/// Characters of an answer that are remembered; a TXT record may have 64 KiB.
pub const ANSWER_CHARS_MAX: usize = 400;

/// One question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `TXT example.org`
    pub question: String,
    /// The records, or why there are none.
    pub answer: String,
    /// Time until the answer.
    pub took: Duration,
}

/// All questions of one message, in the order of their answers.
#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<Asked>>);

impl Log {
    /// Asks, and remembers. `show` writes what was found and may stop at [`ANSWER_CHARS_MAX`].
    pub async fn ask<T>(
        &self,
        question: String,
        answer: impl Future<Output = Answer<T>>,
        show: impl Fn(&T, &mut String),
    ) -> Answer<T> {
        let mut waiting = pin!(answer);
        // Most answers are in the cache and take no time, so no clock is read for them.
        let at_once = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
        let (answer, took) = match at_once {
            Poll::Ready(answer) => (answer, Duration::ZERO),
            Poll::Pending => {
                let began = Instant::now();
                (waiting.await, began.elapsed())
            }
        };
        let mut text = String::new();
        match &answer {
            Answer::Found(found) => show(found, &mut text),
            Answer::NoData => text.push_str("no such record"),
            Answer::NxDomain => text.push_str("no such name"),
            Answer::Temporary => text.push_str("no answer"),
        }
        if let Some((end, _)) = text.char_indices().nth(ANSWER_CHARS_MAX) {
            text.truncate(end);
        }
        self.0.lock().push(Asked { question, answer: text, took });
        answer
    }

    /// What was asked so far.
    pub fn all(&self) -> Vec<Asked> {
        self.0.lock().clone()
    }
}
