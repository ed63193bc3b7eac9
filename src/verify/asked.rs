//! What one message asked of DNS and what was answered, for whoever explains its fate later. I/O: the clock.

use std::future::Future;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lookup::Answer;

/// Characters of an answer that are remembered; a TXT record may have 64 KiB.
const ANSWER_CHARS_MAX: usize = 400;

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
    /// Asks, and remembers.
    pub async fn ask<T>(
        &self,
        question: String,
        answer: impl Future<Output = Answer<T>>,
        show: impl Fn(&T) -> String,
    ) -> Answer<T> {
        let began = Instant::now();
        let answer = answer.await;
        let text = match &answer {
            Answer::Found(found) => show(found),
            Answer::NoData => "no such record".to_owned(),
            Answer::NxDomain => "no such name".to_owned(),
            Answer::Temporary => "no answer".to_owned(),
        };
        let answer_text = text.chars().take(ANSWER_CHARS_MAX).collect();
        self.0.lock().push(Asked { question, answer: answer_text, took: began.elapsed() });
        answer
    }

    /// What was asked so far.
    pub fn all(&self) -> Vec<Asked> {
        self.0.lock().clone()
    }
}
