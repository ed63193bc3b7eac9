//! Final delivery on this host: Maildir, the embedded store, discard. I/O: files; runs on a thread that may block.
//!
//! `Return-Path` and `Delivered-To` are added here (RFC 5321 §4.4). A message that already carries our `Delivered-To` mark for
//! the same mailbox has been here before: it loops, and bounces.

use memchr::memmem;

use super::{Answer, Fate, Job, LocalStore, maildir};
use crate::config::settings::NextHop;
use crate::wire::reply::Enhanced;

/// Answers every waiting recipient of `job`.
pub fn deliver(job: &mut Job, hop: &NextHop, hostname: &str, store: &dyn LocalStore) {
    for position in job.waiting.clone() {
        let answer = if *hop == NextHop::Discard {
            Answer::local(Fate::Discarded, Enhanced(2, 0, 0), "discarded as configured")
        } else {
            deliver_one(job, position, hop, hostname, store)
        };
        job.answer(position, answer);
    }
}

fn deliver_one(job: &Job, position: usize, hop: &NextHop, hostname: &str, store: &dyn LocalStore) -> Answer {
    let mailbox = &job.recipient(position).mailbox;
    let mark = format!("Delivered-To: {mailbox}\r\n");
    if was_here(&job.lease.content, &mark) {
        return Answer::local(
            Fate::Failed,
            Enhanced(5, 4, 6),
            "the message has been delivered to this mailbox before: a loop",
        );
    }
    let reverse_path = job.lease.envelope.reverse_path.as_ref().map_or("", |path| path.as_str());
    let mut prefix = format!("Return-Path: <{reverse_path}>\r\n{mark}").into_bytes();
    prefix.extend_from_slice(&job.lease.prefix);
    let delivered = match hop {
        NextHop::Maildir(template) => {
            let path = maildir::path_of(template, mailbox);
            let (id, recipient) = (job.lease.id, job.lease.recipients[position].index);
            let item = maildir::Item { id, recipient, prefix: &prefix, content: &job.lease.content };
            maildir::deliver(&path, hostname, &item).map_err(|error| {
                Answer::local(Fate::Deferred, Enhanced(4, 3, 0), format!("the Maildir can't be written: {error}"))
            })
        }
        _ => store.deliver(mailbox, &prefix, &job.lease.content).map_err(Answer::from),
    };
    match delivered {
        Ok(()) => Answer::local(Fate::Delivered, Enhanced(2, 0, 0), "delivered"),
        Err(answer) => answer,
    }
}

/// Looks for our mark as a whole line of the header section.
fn was_here(content: &[u8], mark: &str) -> bool {
    let end = memmem::find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 2);
    let header = &content[..end];
    header.starts_with(mark.as_bytes()) || memmem::find(header, format!("\r\n{mark}").as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mark_counts_only_in_the_header() {
        let mark = "Delivered-To: a@b.example\r\n";
        assert!(was_here(b"Delivered-To: a@b.example\r\nSubject: x\r\n\r\n", mark));
        assert!(was_here(b"Subject: x\r\nDelivered-To: a@b.example\r\n\r\n", mark));
        assert!(!was_here(b"Subject: x\r\n\r\nDelivered-To: a@b.example\r\n", mark));
        assert!(!was_here(b"X-Delivered-To: a@b.example\r\n\r\n", mark));
    }
}
