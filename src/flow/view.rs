//! The queue's own facts as the API says them. Pure.

use crate::admin::model::{QueueDetail, QueueEntry, RecipientEntry, State};
use crate::base::unix;
use crate::spool::queue::ItemState;
use crate::spool::{Enveloped, ItemView, WhyFacts};

use super::why::{next_attempt, reason};

/// The word of the API for an item's state.
pub(super) fn state_of(state: ItemState) -> State {
    match state {
        ItemState::Held => State::Held,
        ItemState::Leased => State::Active,
        ItemState::Quarantined => State::Quarantined,
        ItemState::Ready => State::Due,
        ItemState::Waiting => State::Deferred,
    }
}

/// What is nearest to being delivered comes first.
fn urgency(state: State) -> u8 {
    match state {
        State::Active => 0,
        State::Due => 1,
        State::Deferred => 2,
        State::Held => 3,
        State::Quarantined => 4,
    }
}

/// One line of a list; `found` is missing if the message can't be read.
pub(super) fn entry(facts: &WhyFacts, found: Option<&Enveloped>) -> QueueEntry {
    let most_urgent = facts.items.iter().min_by_key(|item| urgency(state_of(item.state)));
    let sender = found
        .map_or(facts.sender.as_str(), |found| found.envelope.reverse_path.as_ref().map_or("", |path| path.as_str()));
    QueueEntry {
        id: facts.id.to_string(),
        state: most_urgent.map_or(State::Active, |item| state_of(item.state)),
        sender: sender.to_owned(),
        recipients: facts.items.iter().map(|item| item.recipients.len() as u32).sum(),
        size: found.map_or(facts.bytes, |found| found.content_bytes),
        accepted: unix::secs(facts.accepted),
        next_attempt: facts.items.iter().filter_map(next_attempt).min().map(unix::secs),
        destination: most_urgent.map_or_else(String::new, |item| item.destination.clone()),
        reason: match found {
            Some(_) => most_urgent.map_or("", reason).to_owned(),
            None => "damaged: the message can't be read".to_owned(),
        },
    }
}

/// Everything that is known of a message.
pub(super) fn detail(facts: &WhyFacts, found: &Enveloped) -> QueueDetail {
    let origin = &found.envelope.origin;
    let recipient = |(index, recipient): (usize, &crate::wire::envelope::Recipient)| {
        let item = facts.items.iter().find(|item| item.recipients.iter().any(|open| open.index as usize == index));
        recipient_entry(recipient.mailbox.as_str(), index, item)
    };
    QueueDetail {
        message: entry(facts, Some(found)),
        client: origin.ip.to_string(),
        helo: origin.helo.clone(),
        login: origin.login.as_deref().map(str::to_owned),
        listener: origin.listener.to_string(),
        verdict: found.verdict.clone(),
        recipients: found.envelope.recipients.iter().enumerate().map(recipient).collect(),
    }
}

fn recipient_entry(address: &str, index: usize, item: Option<&ItemView>) -> RecipientEntry {
    let Some(item) = item else {
        // How it ended stands in the log; the queue keeps what is open.
        return RecipientEntry {
            address: address.to_owned(),
            destination: String::new(),
            state: "done".to_owned(),
            attempts: 0,
            last_reply: String::new(),
            next_attempt: None,
        };
    };
    let open = item.recipients.iter().find(|open| open.index as usize == index);
    RecipientEntry {
        address: address.to_owned(),
        destination: item.destination.clone(),
        state: state_of(item.state).as_str().to_owned(),
        attempts: open.map_or(0, |open| open.attempts),
        last_reply: item.last_reply.clone(),
        next_attempt: next_attempt(item).map(unix::secs),
    }
}
