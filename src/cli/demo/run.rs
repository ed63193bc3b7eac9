//! Sends the samples one after the other, follows each to where it stays, reads back and sums up. I/O: through client and readback.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Client, Reply, Sent};
use super::readback::{self, Expected, reader_of};
use super::report::{self, Line, Totals};
use super::samples::{self, Fate, Sample, Way};
use super::world::World;
use crate::base::id::QueueId;
use crate::cli::table::say;
use crate::flow::gateway::Gateway;
use crate::spool::ItemView;
use crate::spool::queue::ItemState;

/// A delivery on loopback takes milliseconds; a machine under load may take longer.
const DELIVERY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the queue is looked at; it is in this process, and the column of milliseconds shall mean something.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where an accepted message is.
enum Place {
    /// No longer in the queue.
    Delivered,
    /// Kept back, and why.
    Quarantined(String),
    /// Tried, and waiting for the next attempt: why.
    Queued(String),
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
    let mut samples = samples::all();
    let identity = samples.len();
    samples.extend(world.keys.samples());
    say(&report::opening(samples.len()));
    let mut passages = Vec::with_capacity(samples.len());
    for index in 0..samples.len() {
        if samples[index].way == Way::Forwarded {
            samples[index].content = forwarded(world, &samples[index - 1], &passages[index - 1]).await?;
        }
        passages.push(pass(world, &client, &samples[index], index % 2 == 0).await);
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
    let identities: Vec<_> =
        findings.identities.range(identity..).map(|(index, found)| (*index, samples[*index].title, &**found)).collect();
    let parts = [report::table(&lines), report::identities(&identities), report::stories(&lines), totals.text()];
    say(&parts.join("\n"));
    Ok(faults)
}

/// What a forwarder hands on: the sample before as its reader got it.
async fn forwarded(world: &World, before: &Sample, passage: &Passage) -> Result<Vec<u8>, String> {
    match passage.sent.reply {
        Reply::Accepted(id) => readback::stored(world, reader_of(before.to[0]), id).await,
        _ => Err(format!("{} was not accepted: {}", before.title, passage.line.decision)),
    }
}

async fn pass(world: &World, client: &Client, sample: &Sample, may_chunk: bool) -> Passage {
    let sent = client.send(sample, may_chunk).await;
    let place = match &sent.reply {
        Reply::Accepted(id) => Some(follow(&world.gateway, *id).await),
        _ => None,
    };
    let line = line(sample, &sent, place.as_ref());
    Passage { sent, place, line }
}

/// Waits until the message is delivered or has been tried.
async fn follow(gateway: &Gateway, id: QueueId) -> Place {
    let until = Instant::now() + DELIVERY_WAIT_MAX;
    loop {
        let Some(facts) = gateway.spool().why(id) else { return Place::Delivered };
        let why = || gateway.why(id).unwrap_or_default();
        if facts.items.iter().all(|item| item.state == ItemState::Quarantined) {
            return Place::Quarantined(why());
        }
        let was_tried = |item: &ItemView| item.state == ItemState::Waiting && !item.last_reply.is_empty();
        if facts.items.iter().all(was_tried) {
            return Place::Queued(why());
        }
        if Instant::now() > until {
            return Place::Nowhere(why());
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
        (Some(Place::Quarantined(why)), _) => ("quarantine".to_owned(), Some(why.clone())),
        (Some(Place::Queued(why)), _) => ("queue".to_owned(), Some(why.clone())),
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

fn named(index: usize, sample: &Sample, what: &str) -> String {
    format!("{} ({}): {what}", index + 1, sample.title)
}

/// What became of a sample, if it is not what must.
fn against_fate((index, (sample, passage)): (usize, (&Sample, &Passage))) -> Option<String> {
    let is_met = match (sample.fate, &passage.sent.reply, &passage.place) {
        (Fate::Delivered, _, Some(Place::Delivered))
        | (Fate::Quarantined, _, Some(Place::Quarantined(_)))
        | (Fate::Queued, _, Some(Place::Queued(_))) => true,
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
            submitted: matches!(sample.way, Way::Submission(_)),
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
        totals.logins += usize::from(matches!(sample.way, Way::Submission(_)));
        totals.chunked += usize::from(passage.sent.chunked && passage.place.is_some());
        match (&passage.sent.reply, &passage.place) {
            (_, Some(Place::Delivered)) => totals.delivered.add(recipients),
            (_, Some(Place::Quarantined(_))) => totals.quarantined.add(recipients),
            (_, Some(_)) => totals.queued.add(recipients),
            (Reply::Refused(..), None) => totals.refused.add(recipients),
            _ => {}
        }
    }
    totals
}
