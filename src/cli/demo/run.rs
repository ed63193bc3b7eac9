//! Sends the samples one after the other, follows each to where it stays, reads back and sums up. I/O: through client and readback.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Client, Reply, Sent};
use super::readback::{self, Expected, reader_of};
use super::report::{self, Line, Totals};
use super::samples::{self, Fate, Sample, Way};
use super::world::World;
use crate::base::id::QueueId;
use crate::cli::table::say;

use crate::spool::queue::ItemState;
use crate::spool::{ItemView, Spool, WhyFacts};

/// A delivery on loopback takes milliseconds; a machine under load may take longer.
const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the queue is looked at; it is in this process, and the column of milliseconds shall mean something.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where an accepted message is.
enum Place {
    /// No longer in the queue.
    Delivered,
    /// Tried, and waiting for the next attempt.
    Queued(WhyFacts),
    /// Neither in time.
    Nowhere(String),
}

/// A sample on its way.
struct Passage {
    sent: Sent,
    place: Option<Place>,
    line: Line,
}

/// Runs the demo in `world`; gives all that is not as it must be.
/// # Errors
/// When it can't even begin.
pub async fn run(world: &World) -> Result<Vec<String>, String> {
    let began = (Instant::now(), SystemTime::now());
    let client = Client::new(world)?;
    let samples = samples::all();
    say(&report::opening(samples.len()));
    let mut passages = Vec::with_capacity(samples.len());
    for (index, sample) in samples.iter().enumerate() {
        passages.push(pass(world, &client, sample, index % 2 == 0).await);
    }
    let expected = expected(&samples, &passages);
    let findings = readback::read_all(world, &expected).await;
    for (index, reason) in &findings.reasons {
        passages[*index].line.decision = format!("accepted: {reason}");
    }
    let mut totals = totals(&samples, &passages);
    totals.good = findings.good;
    totals.bytes = findings.bytes;
    totals.audit = world.gateway.spool().audit(UNIX_EPOCH, SystemTime::now());
    totals.seconds = began.0.elapsed().as_secs_f64();
    let mut faults: Vec<String> = samples.iter().zip(&passages).enumerate().filter_map(against_fate).collect();
    faults.extend(findings.faults.iter().map(|(index, what)| named(*index, &samples[*index], what)));
    faults.extend(findings.strange);
    faults.extend(totals.faults());
    let lines: Vec<Line> = passages.into_iter().map(|passage| passage.line).collect();
    say(&format!("{}\n{}\n{}", report::table(&lines), report::stories(&lines), totals.text()));
    Ok(faults)
}

async fn pass(world: &World, client: &Client, sample: &Sample, may_chunk: bool) -> Passage {
    let sent = client.send(sample, may_chunk).await;
    let place = match &sent.reply {
        Reply::Accepted(id) => Some(follow(world.gateway.spool(), *id).await),
        _ => None,
    };
    let line = line(sample, &sent, place.as_ref());
    Passage { sent, place, line }
}

/// Waits until the message is delivered or has been tried.
async fn follow(spool: &Spool, id: QueueId) -> Place {
    let until = Instant::now() + DELIVERY_WAIT_MAX;
    loop {
        let Some(facts) = spool.why(id) else { return Place::Delivered };
        let was_tried = |item: &ItemView| item.state == ItemState::Waiting && !item.last_reply.is_empty();
        if facts.items.iter().all(was_tried) {
            return Place::Queued(facts);
        }
        if Instant::now() > until {
            let states: Vec<&str> = facts.items.iter().map(|item| item.state.name()).collect();
            return Place::Nowhere(states.join(", "));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn line(sample: &Sample, sent: &Sent, place: Option<&Place>) -> Line {
    let decision = match &sent.reply {
        Reply::Accepted(id) => format!("accepted: 250, as {id}"),
        Reply::Refused(_, text) => format!("refused: {text}"),
        Reply::Unclear(text) => format!("unclear: {text}"),
    };
    let (place, story) = match (place, &sent.reply) {
        (Some(Place::Delivered), _) => (mailboxes(sample), None),
        (Some(Place::Queued(facts)), _) => ("queue".to_owned(), Some(why(facts))),
        (Some(Place::Nowhere(states)), _) => ("queue".to_owned(), Some(format!("was not tried in time: {states}"))),
        (None, Reply::Refused(_, text)) => ("with its sender".to_owned(), Some(text.clone())),
        (None, Reply::Unclear(text)) => ("unknown".to_owned(), Some(text.clone())),
        (None, Reply::Accepted(_)) => unreachable!("whatever is accepted is followed"),
    };
    Line {
        title: sample.title,
        from: sample.from.map_or_else(|| "<>".to_owned(), str::to_owned),
        to: sample.to.iter().map(|to| (*to).to_owned()).collect(),
        bytes: sample.content.len(),
        decision,
        place,
        millis: sent.began.elapsed().as_millis(),
        story,
    }
}

fn mailboxes(sample: &Sample) -> String {
    match sample.to {
        [only] => format!("mailbox {}", reader_of(only)),
        more => format!("{} mailboxes", more.len()),
    }
}

fn why(facts: &WhyFacts) -> String {
    let sentence = |item: &ItemView| {
        let due = item.postponed.as_ref().map_or(item.due, |(until, _)| item.due.max(*until));
        let next = due.duration_since(SystemTime::now()).unwrap_or_default();
        report::why(&item.destination, &item.last_reply, next)
    };
    facts.items.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

fn named(index: usize, sample: &Sample, what: &str) -> String {
    format!("{} ({}): {what}", index + 1, sample.title)
}

/// What became of a sample, if it is not what must.
fn against_fate((index, (sample, passage)): (usize, (&Sample, &Passage))) -> Option<String> {
    let is_met = match (sample.fate, &passage.sent.reply, &passage.place) {
        (Fate::Delivered, _, Some(Place::Delivered)) | (Fate::Queued, _, Some(Place::Queued(_))) => true,
        (Fate::Refused(code), Reply::Refused(found, _), _) => code == *found,
        _ => false,
    };
    let what = || format!("must be {:?}, but is {}, {}", sample.fate, passage.line.decision, passage.line.place);
    (!is_met).then(|| named(index, sample, &what()))
}

fn expected<'a>(samples: &'a [Sample], passages: &[Passage]) -> Vec<Expected<'a>> {
    let mut expected = Vec::new();
    for (index, (sample, passage)) in samples.iter().zip(passages).enumerate() {
        let (Reply::Accepted(id), Some(Place::Delivered)) = (&passage.sent.reply, &passage.place) else { continue };
        expected.extend(sample.to.iter().map(|to| Expected {
            sample: index,
            user: reader_of(to),
            id: *id,
            from: sample.from.unwrap_or_default(),
            content: &sample.content,
            submitted: sample.way != Way::Mx,
        }));
    }
    expected
}

fn totals(samples: &[Sample], passages: &[Passage]) -> Totals {
    let mut totals = Totals::default();
    for (sample, passage) in samples.iter().zip(passages) {
        let recipients = sample.to.len();
        totals.sent.add(recipients);
        totals.encrypted += usize::from(passage.sent.encrypted);
        totals.logins += usize::from(sample.way != Way::Mx);
        totals.chunked += usize::from(passage.sent.chunked && passage.place.is_some());
        match (&passage.sent.reply, &passage.place) {
            (_, Some(Place::Delivered)) => totals.delivered.add(recipients),
            (_, Some(_)) => totals.queued.add(recipients),
            (Reply::Refused(..), None) => totals.refused.add(recipients),
            _ => {}
        }
    }
    totals
}
