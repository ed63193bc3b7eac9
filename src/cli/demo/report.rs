//! What the demo prints: a line a message, what did not arrive and why, and a summary that adds up. Pure.
//!
//! Everything fits 120 columns. What a fault is, is decided here too: a sum that does not add up is one.

use std::fmt::Write;

use super::samples::DOMAIN;
use super::world::HOST;
use crate::base::audit::Audit;
use crate::cli::table::plain;

/// One message.
pub struct Line {
    /// What it is.
    pub title: &'static str,
    /// Reverse-path.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// Size as sent.
    pub bytes: usize,
    /// What the gateway decided, and why.
    pub decision: String,
    /// Where it is now.
    pub place: String,
    /// From the connection's begin until it was there.
    pub millis: u128,
    /// The whole story, for what is not in a mailbox.
    pub story: Option<String>,
}

/// Messages and recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: usize,
    /// Recipients.
    pub recipients: usize,
}

impl Count {
    /// One more message.
    pub fn add(&mut self, recipients: usize) {
        self.messages += 1;
        self.recipients += recipients;
    }

    fn and(self, other: Count) -> Count {
        Count { messages: self.messages + other.messages, recipients: self.recipients + other.recipients }
    }
}

/// The sums.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Sent by the client.
    pub sent: Count,
    /// In mailboxes.
    pub delivered: Count,
    /// In the queue.
    pub queued: Count,
    /// Kept back.
    pub quarantined: Count,
    /// Refused by the gateway.
    pub refused: Count,
    /// Conversations under TLS with a certificate that verified.
    pub encrypted: usize,
    /// Conversations with AUTH.
    pub logins: usize,
    /// Messages whose content went by BDAT.
    pub chunked: usize,
    /// Messages read back that are as they were sent.
    pub good: usize,
    /// Bytes read back.
    pub bytes: usize,
    /// The spool's books.
    pub audit: Audit,
    /// The whole demo.
    pub seconds: f64,
}

/// What fits a terminal of today.
const COLUMNS: usize = 120;
/// Of the table; with the gaps they make less than [`COLUMNS`].
const WIDTHS: [usize; 7] = [2, 19, 27, 8, 35, 16, 4];

/// What is about to happen.
pub fn opening(messages: usize) -> String {
    format!(
        "A gateway runs on loopback as {HOST}, with mailboxes for {DOMAIN} and a DNS of its own.\n\
         {messages} messages go in by SMTP, one after the other; what is delivered comes back by POP3 and is compared.\n"
    )
}

/// The table: a line a message, below a heading.
pub fn table(lines: &[Line]) -> String {
    let heading = row(["#", "from", "to", "size", "decision, reason", "where it is now", "ms"].map(str::to_owned));
    let rows = lines.iter().enumerate().map(|(place, line)| line.text(place + 1));
    std::iter::once(heading).chain(rows).map(|line| line + "\n").collect()
}

impl Line {
    fn text(&self, number: usize) -> String {
        let to = match self.to.as_slice() {
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first} +{}", rest.len()),
            [] => String::new(),
        };
        let from = format!("{:>2}", number);
        row([
            from,
            self.from.clone(),
            to,
            size(self.bytes),
            self.decision.clone(),
            self.place.clone(),
            self.millis.to_string(),
        ])
    }
}

/// Cells in columns; the size and the milliseconds to the right.
fn row(cells: [String; 7]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let cell = fit(cell, width);
        let gap = if column == 0 { "" } else { " " };
        match column {
            0 | 3 | 6 => write!(line, "{gap}{cell:>width$}"),
            _ => write!(line, "{gap}{cell:<width$}"),
        }
        .expect(INFALLIBLE);
        // Numbers stand to the right, so what follows them needs more room.
        if column == 3 {
            line.push(' ');
        }
    }
    line
}

const INFALLIBLE: &str = "a String takes any write";

/// Cut to `width`, with a mark where something is missing; what strangers said can't steer the terminal.
pub fn fit(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

fn size(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0),
    }
}

/// What is not in a mailbox, and why: a paragraph.
pub fn stories(lines: &[Line]) -> String {
    let mut out = String::from("Not in a mailbox:\n");
    for (place, line) in lines.iter().enumerate() {
        if let Some(story) = &line.story {
            let story = format!("{:>2} {}: {}", place + 1, line.title, plain(story));
            out.push_str(&wrapped(&story));
        }
    }
    out
}

/// Who sent what the enforcing listener let in, by number and title: a paragraph.
pub fn identities(found: &[(usize, &str, &str)]) -> String {
    let mut out = String::from("Who sent it, and let in where policies are enforced:\n");
    for (place, title, what) in found {
        out.push_str(&wrapped(&format!("{:>2} {title}: {}", place + 1, plain(what))));
    }
    out
}

/// Lines of at most [`COLUMNS`], broken between words, the second and further ones indented.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count() + 1;
        if column + width > COLUMNS {
            out.push_str("\n  ");
            column = 2;
        }
        if column > 0 {
            out.push(' ');
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
    out
}

impl Totals {
    /// Sums that do not agree.
    pub fn faults(&self) -> Vec<String> {
        let kept = self.queued.and(self.quarantined);
        let accepted = self.delivered.and(kept);
        let books = [self.audit.accepted, self.audit.delivered, self.audit.queued_now, self.audit.quarantined_now];
        let counted = [accepted, self.delivered, kept, self.quarantined].map(|count| count.recipients as i64);
        let lost =
            self.audit.bounced + self.audit.expired + self.audit.discarded + self.audit.dropped + self.audit.lost;
        let checks = [
            (self.sent == accepted.and(self.refused), "sent is not delivered + queued + quarantined + refused"),
            (self.audit.balanced && lost == 0, "the spool's books do not balance"),
            (books == counted, "the spool's books do not agree with what was sent"),
            (self.good == self.delivered.recipients, "not every delivered message was read back as it was sent"),
            (self.encrypted == self.sent.messages, "a conversation was not encrypted"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what.to_owned()).collect()
    }

    /// The summary, a few lines.
    pub fn text(&self) -> String {
        let sum = |of: fn(&Count) -> usize| {
            let parts = [&self.sent, &self.delivered, &self.queued, &self.quarantined, &self.refused];
            let [sent, delivered, queued, quarantined, refused] = parts.map(of);
            format!(
                "{sent:>3} sent = {delivered:>3} delivered + {queued} queued + {quarantined} quarantined + {refused} refused"
            )
        };
        let audit = &self.audit;
        format!(
            "messages    {}\nrecipients  {}\nspool       {:>3} accepted = {:>3} delivered + {} queued + {} quarantined; {}\n\
             read back   {} messages by POP3, {}, each byte as it was sent\n\
             sessions    {} with TLS and a verified certificate, {} with AUTH; content {} times by BDAT, else by DATA\n\
             time        {:.1} s\n",
            sum(|count| count.messages),
            sum(|count| count.recipients),
            audit.accepted,
            audit.delivered,
            audit.queued_now - audit.quarantined_now,
            audit.quarantined_now,
            if audit.balanced { "the books balance" } else { "the books do NOT balance" },
            self.good,
            size(self.bytes),
            self.encrypted,
            self.logins,
            self.chunked,
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            title: "the percent hack",
            from: "paul@club.example".into(),
            to: vec!["victim%elsewhere.example@weir.example".into(), "b@weir.example".into()],
            bytes: 5_300_000,
            decision: "refused: 550 5.7.1 Relaying denied, really".into(),
            place: "with its sender".into(),
            millis: 12,
            story: Some("550 5.7.1 Relaying denied\x1b".into()),
        }
    }

    fn totals() -> Totals {
        let count = |messages, recipients| Count { messages, recipients };
        Totals {
            sent: count(40, 42),
            delivered: count(35, 37),
            queued: count(1, 1),
            quarantined: count(1, 1),
            refused: count(3, 3),
            encrypted: 40,
            logins: 5,
            chunked: 20,
            good: 37,
            bytes: 5_600_000,
            audit: Audit {
                accepted: 39,
                delivered: 37,
                closing: 2,
                queued_now: 2,
                quarantined_now: 1,
                balanced: true,
                ..Audit::default()
            },
            seconds: 2.34,
        }
    }

    #[test]
    fn a_line_is_aligned_and_fits_120_columns() {
        assert_eq!(
            table(&[line()]),
            " # from                to                              size  decision, reason                    where it is now    ms\n \
             1 paul@club.example   victim%elsewhere.example@w…  5.1 MiB  refused: 550 5.7.1 Relaying denied… with its sender    12\n"
        );
        assert!(table(&[]).chars().count() <= COLUMNS);
    }

    #[test]
    fn what_strangers_said_cannot_steer_the_terminal() {
        assert_eq!(stories(&[line()]), "Not in a mailbox:\n 1 the percent hack: 550 5.7.1 Relaying denied\\u{1b}\n");
    }

    #[test]
    fn a_long_story_is_broken_between_words() {
        let text = wrapped(&"word ".repeat(30));
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with("   word"), "{text}");
    }

    #[test]
    fn the_summary_adds_up_or_says_what_does_not() {
        assert_eq!(
            totals().text(),
            "messages     40 sent =  35 delivered + 1 queued + 1 quarantined + 3 refused\n\
             recipients   42 sent =  37 delivered + 1 queued + 1 quarantined + 3 refused\n\
             spool        39 accepted =  37 delivered + 1 queued + 1 quarantined; the books balance\n\
             read back   37 messages by POP3, 5.3 MiB, each byte as it was sent\n\
             sessions    40 with TLS and a verified certificate, 5 with AUTH; content 20 times by BDAT, else by DATA\n\
             time        2.3 s\n"
        );
        assert_eq!(totals().faults(), Vec::<String>::new());
        let wrong = Totals { good: 36, queued: Count::default(), encrypted: 38, ..totals() };
        assert_eq!(wrong.faults().len(), 4);
    }
}
