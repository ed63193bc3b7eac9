//! One mail transaction: MAIL, RCPT, then DATA or BDAT, and who took what. Pure. RFC 5321 §3.3, RFC 2920, RFC 3030, RFC 3461, RFC 2033.
//!
//! With PIPELINING the head (MAIL, all RCPT, DATA) is one write and its replies come in any mix; the tail (content)
//! may be followed by the next transaction's head. Every recipient ends with exactly one [`Verdict`].

use super::Protocol;
use super::capabilities::Capabilities;
use super::plan::{Plan, Tail, mail_command, rcpt_command};
use super::reply::RemoteReply;
use crate::wire::envelope::{Envelope, Recipient};
use crate::wire::reply::Enhanced;

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server took the message for it.
    Accepted(RemoteReply),
    /// It did not; 4xx or 5xx.
    Refused(RemoteReply),
    /// Too many recipients in this transaction (`452 4.5.3`): to be sent in the next one.
    NextTransaction,
}

/// What the driver does next, after writing what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Wait for a reply.
    Await,
    /// Send the content, then wait for replies.
    Content(Tail),
    /// All verdicts are there; `reset`: RSET must come before the next MAIL.
    Done {
        /// The server still holds a half transaction.
        reset: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// After the content; LMTP: one for each accepted recipient, this is the next to be answered.
    Content(usize),
    LoneDot,
    Nothing,
}

/// One transaction. Commands are kept encoded, so it borrows nothing.
#[derive(Debug)]
pub struct Transaction {
    protocol: Protocol,
    pipelining: bool,
    tail: Tail,
    /// Commands not sent yet, last first (one at a time without PIPELINING).
    unsent: Vec<Vec<u8>>,
    expect: Expect,
    mail_refused: Option<RemoteReply>,
    verdicts: Vec<Option<Verdict>>,
    accepted: usize,
}

impl Transaction {
    /// A transaction to `recipients` of `envelope`; appends its head to `out`. `reset`: begin with RSET.
    pub fn begin<'a>(
        protocol: Protocol,
        offers: &Capabilities,
        plan: &Plan,
        envelope: &Envelope,
        recipients: impl ExactSizeIterator<Item = &'a Recipient>,
        reset: bool,
        out: &mut Vec<u8>,
    ) -> Self {
        let count = recipients.len();
        let mut commands = Vec::new();
        if reset {
            commands.push(b"RSET\r\n".to_vec());
        }
        commands.push(mail_command(offers, plan, envelope));
        commands.extend(recipients.map(|recipient| rcpt_command(offers, recipient)));
        if matches!(plan.tail(), Tail::Data { .. }) {
            commands.push(b"DATA\r\n".to_vec());
        }
        commands.reverse();
        let mut new = Transaction {
            protocol,
            pipelining: offers.pipelining,
            tail: plan.tail(),
            unsent: commands,
            expect: if reset { Expect::Reset } else { Expect::Mail },
            mail_refused: None,
            verdicts: vec![None; count],
            accepted: 0,
        };
        new.send_more(out);
        new
    }

    /// True until the server has answered MAIL: sent again, nothing is delivered twice.
    pub fn is_untouched(&self) -> bool {
        matches!(self.expect, Expect::Reset | Expect::Mail)
    }

    /// True while the reply to the content is awaited, for which servers may take minutes.
    pub fn awaits_content_reply(&self) -> bool {
        matches!(self.expect, Expect::Content(_) | Expect::LoneDot)
    }

    /// True while the reply to DATA is awaited.
    pub fn awaits_data_reply(&self) -> bool {
        self.expect == Expect::Data
    }

    /// The verdicts in the order of the recipients. One without a verdict (the connection broke) is `None`.
    pub fn into_verdicts(self) -> Vec<Option<Verdict>> {
        self.verdicts
    }

    fn send_more(&mut self, out: &mut Vec<u8>) {
        while let Some(command) = self.unsent.pop() {
            out.extend_from_slice(&command);
            if !self.pipelining {
                return;
            }
        }
    }

    /// Takes one reply; appends what to send. After [`Progress::Done`] it must not be called again.
    pub fn handle_reply(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Progress {
        match self.expect {
            Expect::Reset => self.expect = Expect::Mail,
            Expect::Mail => return self.after_mail(reply, out),
            Expect::Rcpt(index) => return self.after_rcpt(index, reply, out),
            Expect::Data => return self.after_data(reply),
            Expect::Content(index) => return self.after_content(index, reply),
            Expect::LoneDot | Expect::Nothing => return self.done(false),
        }
        self.send_more(out);
        Progress::Await
    }

    fn after_mail(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Progress {
        if !reply.is_positive() {
            self.verdicts.fill(Some(Verdict::Refused(reply.clone())));
            self.mail_refused = Some(reply);
            if !self.pipelining {
                return self.done(true);
            }
        }
        self.expect = Expect::Rcpt(0);
        self.send_more(out);
        Progress::Await
    }

    fn after_rcpt(&mut self, index: usize, reply: RemoteReply, out: &mut Vec<u8>) -> Progress {
        if self.mail_refused.is_none() {
            if reply.is_positive() {
                self.accepted += 1;
            } else if self.accepted > 0 && is_too_many(&reply) {
                self.verdicts[index] = Some(Verdict::NextTransaction);
            } else {
                self.verdicts[index] = Some(Verdict::Refused(reply));
            }
        }
        if index + 1 < self.verdicts.len() {
            self.expect = Expect::Rcpt(index + 1);
            self.send_more(out);
            return Progress::Await;
        }
        self.after_last_rcpt(out)
    }

    fn after_last_rcpt(&mut self, out: &mut Vec<u8>) -> Progress {
        let is_data = matches!(self.tail, Tail::Data { .. });
        if self.accepted == 0 && !(is_data && self.pipelining) {
            return self.done(true);
        }
        if is_data {
            self.expect = Expect::Data;
            self.send_more(out);
            return Progress::Await;
        }
        self.content_is_next()
    }

    fn after_data(&mut self, reply: RemoteReply) -> Progress {
        match (reply.code == 354, self.accepted > 0) {
            (true, true) => self.content_is_next(),
            (true, false) => {
                self.expect = Expect::LoneDot;
                Progress::Content(Tail::LoneDot)
            }
            (false, _) => {
                // 2xx is no answer to DATA; whoever says it has not understood, and gets the message again later.
                let reply = if reply.is_positive() { out_of_step(&reply) } else { reply };
                self.fill(&Verdict::Refused(reply));
                self.done(true)
            }
        }
    }

    fn content_is_next(&mut self) -> Progress {
        let first = self.next_open(0).expect("somebody was accepted");
        self.expect = Expect::Content(first);
        Progress::Content(self.tail)
    }

    fn after_content(&mut self, index: usize, reply: RemoteReply) -> Progress {
        let verdict = match reply.code {
            200..300 => Verdict::Accepted(reply),
            400.. => Verdict::Refused(reply),
            _ => Verdict::Refused(out_of_step(&reply)),
        };
        if self.protocol == Protocol::Smtp {
            self.fill(&verdict);
            return self.done(false);
        }
        self.verdicts[index] = Some(verdict);
        match self.next_open(index + 1) {
            Some(next) => {
                self.expect = Expect::Content(next);
                Progress::Await
            }
            None => self.done(false),
        }
    }

    fn next_open(&self, from: usize) -> Option<usize> {
        (from..self.verdicts.len()).find(|index| self.verdicts[*index].is_none())
    }

    fn fill(&mut self, verdict: &Verdict) {
        for open in self.verdicts.iter_mut().filter(|verdict| verdict.is_none()) {
            *open = Some(verdict.clone());
        }
    }

    fn done(&mut self, reset: bool) -> Progress {
        self.expect = Expect::Nothing;
        Progress::Done { reset }
    }
}

/// RFC 5321 §4.5.3.1.10: 452 means too many recipients, and 552 must be read as 452. Without the
/// enhanced code 4.5.3 a 452 may as well be a full disk, which is then found out in the next transaction.
fn is_too_many(reply: &RemoteReply) -> bool {
    match reply.enhanced {
        Some(Enhanced(_, subject, detail)) => (subject, detail) == (5, 3),
        None => matches!(reply.code, 452 | 552),
    }
}

fn out_of_step(reply: &RemoteReply) -> RemoteReply {
    let text = format!("the server answered out of step: {}", reply.one_line());
    RemoteReply { code: 451, enhanced: Some(Enhanced(4, 5, 0)), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::content::ContentNeeds;
    use crate::smtp::client::plan::{Link, tests::envelope};
    use crate::smtp::client::reply::ReplyReader;

    /// Plays `script` in pieces of `cut` bytes; gives what was sent (content as `<tail>`) and each recipient's fate.
    fn play(
        offers: &Capabilities,
        protocol: Protocol,
        recipients: usize,
        script: &str,
        cut: usize,
    ) -> (String, String) {
        let envelope = envelope(recipients);
        let plan =
            Plan::new(&envelope, envelope.recipients.iter(), ContentNeeds::default(), 9, offers, Link::Plain).unwrap();
        let mut out = Vec::new();
        let mut machine =
            Transaction::begin(protocol, offers, &plan, &envelope, envelope.recipients.iter(), false, &mut out);
        let (mut reader, mut end) = (ReplyReader::default(), "unfinished");
        for piece in script.as_bytes().chunks(cut) {
            reader.feed(piece);
            while let Some(reply) = reader.next_reply().unwrap() {
                match machine.handle_reply(reply, &mut out) {
                    Progress::Await => {}
                    Progress::Content(tail) => out.extend_from_slice(format!("{tail:?}|").as_bytes()),
                    Progress::Done { reset: true } => end = "reset",
                    Progress::Done { reset: false } => end = "clean",
                }
            }
        }
        let fate = |verdict: Option<Verdict>| match verdict {
            None => "?".to_owned(),
            Some(Verdict::Accepted(_)) => "+".to_owned(),
            Some(Verdict::NextTransaction) => "later".to_owned(),
            Some(Verdict::Refused(reply)) => reply.code.to_string(),
        };
        let fates: Vec<String> = machine.into_verdicts().into_iter().map(fate).collect();
        (String::from_utf8(out).unwrap().replace("\r\n", "|"), format!("{} {end}", fates.join(" ")))
    }

    #[test]
    fn every_mix_of_replies_gives_each_recipient_one_fate_however_it_is_cut() {
        let pipelining = Capabilities { pipelining: true, ..Capabilities::default() };
        let chunking = Capabilities { chunking: true, ..pipelining.clone() };
        let slow = Capabilities::default();
        let (smtp, lmtp) = (Protocol::Smtp, Protocol::Lmtp);
        let table = [
            (&pipelining, smtp, 2, "250 a\r\n250 b\r\n250 c\r\n354 d\r\n250 e\r\n", "+ + clean"),
            (&pipelining, smtp, 2, "250 a\r\n550 b\r\n250 c\r\n354 d\r\n250 e\r\n", "550 + clean"),
            (&pipelining, smtp, 2, "250 a\r\n250 b\r\n452 4.5.3 c\r\n354 d\r\n250 e\r\n", "+ later clean"),
            (&pipelining, smtp, 2, "250 a\r\n452 4.5.3 b\r\n452 c\r\n503 d\r\n", "452 452 reset"),
            (&pipelining, smtp, 2, "250 a\r\n550 b\r\n450 c\r\n354 d\r\n554 e\r\n", "550 450 clean"),
            (&pipelining, smtp, 2, "250 a\r\n550 b\r\n450 c\r\n503 d\r\n", "550 450 reset"),
            (&pipelining, smtp, 2, "550 a\r\n503 b\r\n503 c\r\n503 d\r\n", "550 550 reset"),
            (&pipelining, smtp, 2, "550 a\r\n250 b\r\n250 c\r\n354 d\r\n250 e\r\n", "550 550 clean"),
            (&pipelining, smtp, 2, "250 a\r\n250 b\r\n250 c\r\n451 d\r\n", "451 451 reset"),
            (&pipelining, smtp, 2, "250 a\r\n250 b\r\n250 c\r\n250 d\r\n", "451 451 reset"),
            (&pipelining, smtp, 2, "250 a\r\n250 b\r\n250 c\r\n354 d\r\n354 e\r\n", "451 451 clean"),
            (
                &pipelining,
                lmtp,
                3,
                "250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n250 f\r\n452 g\r\n",
                "+ 550 452 clean",
            ),
            (&chunking, smtp, 2, "250 a\r\n250 b\r\n550 c\r\n250 d\r\n", "+ 550 clean"),
            (&chunking, smtp, 1, "250 a\r\n550 b\r\n", "550 reset"),
            (&slow, smtp, 1, "450 a\r\n", "450 reset"),
            (&slow, smtp, 1, "250 a\r\n550 b\r\n", "550 reset"),
            (&slow, smtp, 2, "250 a\r\n550 b\r\n250 c\r\n354 d\r\n250 e\r\n", "550 + clean"),
            (&slow, lmtp, 2, "250 a\r\n250 b\r\n250 c\r\n354 d\r\n250 e\r\n", "+ ? unfinished"),
        ];
        for (offers, protocol, recipients, script, fates) in table {
            let whole = play(offers, protocol, recipients, script, script.len());
            assert_eq!(whole.1, fates, "{script:?}");
            for cut in 1..script.len() {
                assert_eq!(play(offers, protocol, recipients, script, cut), whole, "{script:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn one_write_with_pipelining_and_one_command_at_a_time_without() {
        let pipelining = Capabilities { pipelining: true, size: Some(10), ..Capabilities::default() };
        let (sent, _) = play(&pipelining, Protocol::Smtp, 2, "250 a\r\n", 3);
        assert_eq!(sent, "MAIL FROM:<> SIZE=9|RCPT TO:<r0@b.example>|RCPT TO:<r1@b.example>|DATA|");
        let (sent, _) = play(&Capabilities::default(), Protocol::Smtp, 2, "250 a\r\n", 3);
        assert_eq!(sent, "MAIL FROM:<>|RCPT TO:<r0@b.example>|");
        let lone = "250 a\r\n550 b\r\n354 c\r\n554 d\r\n";
        assert!(play(&pipelining, Protocol::Smtp, 1, lone, 5).0.ends_with("DATA|LoneDot|"));
    }
}
