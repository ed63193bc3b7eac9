//! The message that brings a report's file to who asked for it. I/O: reads the clock. RFC 9990 §3.1.2, RFC 8460 §5.3.

use std::time::SystemTime;

use crate::verify::reports::Reporter;
use crate::verify::reports::ledger::Due;
use crate::verify::reports::letter::{Head, Part, compose};
use crate::wire::date::rfc5322;

/// In what reports of one kind differ from those of another.
pub(super) struct Form {
    /// The report's own name.
    pub id: String,
    /// What it is, with its article.
    pub what: &'static str,
    /// Lines for people about what is in it, each ended by LF.
    pub summary: String,
    /// How the file's name ends.
    pub ending: &'static str,
    /// The file's media type.
    pub media_type: &'static str,
    /// As in [`Head::multipart`].
    pub multipart: &'static str,
    /// As in [`Head::more`].
    pub more: String,
}

/// The message with `file` in it, to one address.
pub(super) fn letter<H, R>(due: &Due<H, R>, reporter: &Reporter, form: &Form, to: &str, file: &[u8]) -> Vec<u8> {
    let (id, hostname, domain) = (&form.id, &reporter.hostname, &due.domain);
    let name = format!("{hostname}!{domain}!{}!{}.{}", due.begin, due.end, form.ending);
    let text = format!(
        "This is {} from {} about {domain}.\n\n{}Report-ID: {id}\nQuestions: {}\n",
        form.what, reporter.organization, form.summary, reporter.address
    );
    let head = Head {
        from: (&reporter.organization, &reporter.address),
        to,
        subject: &format!("Report Domain: {domain} Submitter: {hostname} Report-ID: <{id}>"),
        date: &rfc5322(SystemTime::now()),
        message_id: &format!("{}.{}@{hostname}", due.begin, fastrand::u64(..)),
        multipart: form.multipart,
        more: &form.more,
    };
    compose(&head, &[Part::text(&text), Part::file(form.media_type, &name, file)])
}
