//! Why a message is where it is, in a sentence for people. Pure; time is passed in.

use std::time::{Duration, SystemTime};

use crate::config::units::show_duration;
use crate::spool::queue::ItemState;
use crate::spool::{ItemView, WhyFacts};

/// Destinations of one message that get a clause of their own.
const CLAUSES_MAX: usize = 5;

/// What the message of `facts` waits for, what was said last, and when it is tried next; `about` is what delivery says of a
/// destination, and `paused` is true while nothing is delivered at all.
pub fn sentence(facts: &WhyFacts, paused: bool, about: &dyn Fn(&str) -> String, now: SystemTime) -> String {
    let clause = |item: &ItemView| clause(item, paused, about, now);
    let mut clauses: Vec<String> = facts.items.iter().take(CLAUSES_MAX).map(clause).collect();
    let more = facts.items.len().saturating_sub(CLAUSES_MAX);
    if more > 0 {
        clauses.push(format!("{more} more destinations wait as well"));
    }
    format!("accepted {} ago; {}", span(now, facts.accepted), clauses.join("; "))
}

fn clause(item: &ItemView, paused: bool, about: &dyn Fn(&str) -> String, now: SystemTime) -> String {
    let destination = &item.destination;
    match item.state {
        ItemState::Held => format!("on hold{}, until an operator releases it", because(&item.reason)),
        ItemState::Quarantined => format!("in quarantine{}, until it is released or too old", because(&item.reason)),
        ItemState::Leased => format!("being delivered to {destination} now{}", last(item)),
        ItemState::Ready | ItemState::Waiting if paused => {
            format!("waits for {destination}{}; next attempt when delivery, which is paused, is resumed", last(item))
        }
        ItemState::Ready | ItemState::Waiting => {
            let next = next_attempt(item).filter(|next| *next > now).map_or("now".to_owned(), |next| at(next, now));
            let about = about(destination);
            format!("waits for {destination}{}; next attempt {next}{}; {about}", last(item), tried(item))
        }
    }
}

/// When an item is tried next: not before its destination is. Nothing while it is held, in quarantine or under way.
pub fn next_attempt(item: &ItemView) -> Option<SystemTime> {
    let waits = matches!(item.state, ItemState::Ready | ItemState::Waiting);
    let postponed = item.postponed.as_ref().map(|(until, _)| *until);
    waits.then(|| postponed.map_or(item.due, |until| until.max(item.due)))
}

/// What stands in a list as the reason of an item: why it is stopped, else what was said last.
pub fn reason(item: &ItemView) -> &str {
    let postponed = item.postponed.as_ref().map_or("", |(_, why)| why);
    let said = [&*item.reason, &*item.last_reply, postponed];
    said.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn last(item: &ItemView) -> String {
    if item.last_reply.is_empty() { String::new() } else { format!(", last reply: {}", item.last_reply) }
}

fn tried(item: &ItemView) -> String {
    match item.recipients.iter().map(|recipient| recipient.attempts).max().unwrap_or(0) {
        0 => ", the first".to_owned(),
        1 => " after 1 attempt".to_owned(),
        attempts => format!(" after {attempts} attempts"),
    }
}

fn at(time: SystemTime, now: SystemTime) -> String {
    let date = jiff::Timestamp::try_from(time).map_or_else(
        |_| "at a time beyond all dates".to_owned(),
        |stamp| format!("at {}", stamp.strftime("%Y-%m-%d %H:%M:%S UTC")),
    );
    format!("{date} (in {})", span(time, now))
}

fn span(later: SystemTime, earlier: SystemTime) -> String {
    show_duration(Duration::from_secs(later.duration_since(earlier).unwrap_or_default().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::QueueId;
    use crate::spool::RecipientView;

    fn after(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn item(state: ItemState, reply: &str, reason: &str, attempts: u32) -> ItemView {
        ItemView {
            destination: "far.test".into(),
            state,
            due: after(1_300),
            postponed: None,
            last_reply: reply.into(),
            reason: reason.into(),
            recipients: vec![RecipientView { index: 0, attempts, delay_notified: false, stopped: false }],
        }
    }

    fn why(items: Vec<ItemView>, paused: bool) -> String {
        let facts = WhyFacts { id: QueueId(1), accepted: after(400), sender: String::new(), bytes: 1, items };
        sentence(&facts, paused, &|name| format!("{name} is up"), after(1_000))
    }

    #[test]
    fn each_state_says_what_is_waited_for() {
        let postponed =
            ItemView { postponed: Some((after(1_600), "refused".into())), ..item(ItemState::Ready, "refused", "", 2) };
        let table = [
            (
                item(ItemState::Waiting, "451 4.7.1 later", "", 1),
                false,
                "waits for far.test, last reply: 451 4.7.1 later; next attempt at 1970-01-01 00:21:40 UTC (in 5m) \
                 after 1 attempt; far.test is up",
            ),
            (
                postponed,
                false,
                "waits for far.test, last reply: refused; next attempt at 1970-01-01 00:26:40 UTC (in 10m) after 2 \
                 attempts; far.test is up",
            ),
            (
                ItemView { due: after(900), ..item(ItemState::Ready, "", "", 0) },
                false,
                "waits for far.test; next attempt now, the first; far.test is up",
            ),
            (
                item(ItemState::Ready, "", "", 0),
                true,
                "waits for far.test; next attempt when delivery, which is paused, is resumed",
            ),
            (item(ItemState::Leased, "", "", 0), true, "being delivered to far.test now"),
            (
                item(ItemState::Held, "451 x", "by an operator", 1),
                false,
                "on hold (by an operator), until an operator releases it",
            ),
            (
                item(ItemState::Quarantined, "", "score 9.1", 0),
                false,
                "in quarantine (score 9.1), until it is released or too old",
            ),
        ];
        for (item, paused, expected) in table {
            assert_eq!(why(vec![item], paused), format!("accepted 10m ago; {expected}"));
        }
    }

    #[test]
    fn many_destinations_do_not_make_a_book() {
        let said = why(vec![item(ItemState::Leased, "", "", 0); 8], false);
        assert!(said.ends_with("; 3 more destinations wait as well"), "{said}");
        assert_eq!(said.matches("being delivered").count(), CLAUSES_MAX);
    }
}
