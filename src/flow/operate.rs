//! What an operator does to the queue: filters, lists, actions. I/O: the spool's table and journal; blocks.
//!
//! The table knows domains; a whole address is looked for in the envelopes of the messages that the rest of the filter
//! means, at most [`ENVELOPES_MAX`] of them, and the answer says so when that was not enough.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::admin::backend::AdminFault;
use crate::admin::model::{Filter, QueueAction, QueueDetail, QueueEntry, Selection, State};
use crate::base::clock;
use crate::base::id::QueueId;
use crate::spool::queue::{ItemState, MailQueue, SpoolFault};
use crate::spool::{self, Action, Enveloped, WhyFacts};

use super::shared::Shared;
use super::view;
use super::why;

/// Messages listed or acted upon at once while envelopes are read.
const PIECE_MESSAGES: usize = 1_000;
/// Envelopes read for one filter; about a second from a warm disk.
const ENVELOPES_MAX: usize = 100_000;

/// How long `drop` waits for deliveries that are under way: most attempts end sooner, and a stuck one must not hang the operator.
const DROP_PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const DROP_PAUSE: Duration = Duration::from_millis(20);

/// A filter, as the table and the envelopes answer it.
struct Meant {
    table: spool::Filter,
    sender: Option<String>,
    recipient: Option<String>,
}

impl Meant {
    /// # Errors
    /// If a whole address is asked for that is none.
    fn new(filter: &Filter, now: SystemTime) -> Result<Self, AdminFault> {
        let mut table = spool::Filter {
            destination: filter.destination.clone(),
            accepted_before: filter.older_secs.and_then(|secs| now.checked_sub(Duration::from_secs(secs))),
            states: filter.state.map(item_state).into_iter().collect(),
            ..spool::Filter::default()
        };
        let (mut sender, mut recipient) = (None, None);
        if let Some(wanted) = &filter.sender {
            match domain_of(wanted) {
                _ if wanted == "<>" => table.sender_domain = Some(String::new()),
                Some(domain) => table.sender_domain = Some(domain),
                None => table.sender = Some(wanted.clone()),
            }
            sender = is_whole(wanted).then(|| wanted.clone());
        }
        if let Some(wanted) = &filter.recipient {
            let complaint = || AdminFault::Conflict(format!("`{wanted}` is neither an address nor @domain"));
            table.recipient_domain = Some(domain_of(wanted).ok_or_else(complaint)?);
            recipient = is_whole(wanted).then(|| wanted.clone());
        }
        Ok(Meant { table, sender, recipient })
    }

    fn asks_envelopes(&self) -> bool {
        self.sender.is_some() || self.recipient.is_some()
    }

    fn fits(&self, facts: &WhyFacts, found: &Enveloped) -> bool {
        let envelope = &found.envelope;
        let reverse_path = envelope.reverse_path.as_ref().map_or("", |path| path.as_str());
        let open = facts.items.iter().flat_map(|item| &item.recipients);
        let mut open = open.filter_map(|recipient| envelope.recipients.get(recipient.index as usize));
        self.sender.as_ref().is_none_or(|wanted| Filter::address_matches(wanted, reverse_path))
            && self
                .recipient
                .as_ref()
                .is_none_or(|wanted| open.any(|recipient| Filter::address_matches(wanted, recipient.mailbox.as_str())))
    }
}

fn is_whole(wanted: &str) -> bool {
    wanted.contains('@') && !wanted.starts_with('@')
}

fn domain_of(wanted: &str) -> Option<String> {
    wanted.rsplit_once('@').map(|(_, domain)| domain.to_lowercase())
}

fn item_state(state: State) -> ItemState {
    match state {
        State::Active => ItemState::Leased,
        State::Deferred => ItemState::Waiting,
        State::Due => ItemState::Ready,
        State::Held => ItemState::Held,
        State::Quarantined => ItemState::Quarantined,
    }
}

/// States in which an action has something to do: what is in quarantine is not put on hold, what is held is not tried.
fn states_of(action: QueueAction) -> &'static [ItemState] {
    match action {
        QueueAction::Drop => &ItemState::ALL,
        QueueAction::Hold => &[ItemState::Waiting, ItemState::Ready, ItemState::Leased],
        QueueAction::Release => &[ItemState::Held, ItemState::Quarantined],
        QueueAction::Retry => &[ItemState::Waiting, ItemState::Ready],
    }
}

pub(super) fn id_of(text: &str) -> Result<QueueId, AdminFault> {
    text.parse().map_err(|error| AdminFault::NotFound(format!("`{text}`: {error}")))
}

/// The answer for an id that is not in the queue.
fn gone(id: QueueId) -> AdminFault {
    AdminFault::NotFound(format!(
        "there is no message {id} in the queue: delivered, returned or dropped, or of another Weir"
    ))
}

fn unavailable(fault: SpoolFault) -> AdminFault {
    AdminFault::Unavailable(fault.to_string())
}

impl Shared {
    /// Why a message is where it is, in a sentence; nothing if it is not in the queue.
    pub fn why(&self, id: QueueId) -> Option<String> {
        let facts = self.spool.why(id)?;
        let about = |destination: &str| self.delivery.why(destination);
        Some(why::sentence(&facts, self.delivery.is_paused(), &about, clock::now()))
    }

    pub(super) fn queue_why(&self, id: &str) -> Result<String, AdminFault> {
        let id = id_of(id)?;
        self.why(id).ok_or_else(|| gone(id))
    }

    pub(super) fn queue_show(&self, id: &str) -> Result<QueueDetail, AdminFault> {
        let id = id_of(id)?;
        self.let_time_pass();
        let facts = self.spool.why(id).ok_or_else(|| gone(id))?;
        match self.spool.envelope(id) {
            Ok(Some(found)) => Ok(view::detail(&facts, &found)),
            Ok(None) => Err(gone(id)),
            Err(error) => Err(AdminFault::Unavailable(format!("message {id} can't be read: {error}"))),
        }
    }

    /// Messages that `filter` means, oldest first, at most `most`.
    pub(super) fn queue_list(&self, filter: &Filter, most: usize) -> Result<Vec<QueueEntry>, AdminFault> {
        let meant = Meant::new(filter, clock::now())?;
        self.let_time_pass();
        let mut entries = Vec::new();
        let mut from = QueueId(0);
        let mut read = 0;
        while entries.len() < most {
            let wanted = if meant.asks_envelopes() { PIECE_MESSAGES } else { PIECE_MESSAGES.min(most - entries.len()) };
            let piece = self.spool.list(&meant.table, from, wanted);
            let is_last = piece.len() < wanted;
            read += piece.len();
            from = piece.last().map_or(from, |facts| QueueId(facts.id.0 + 1));
            for facts in piece {
                let found = self.spool.envelope(facts.id).ok().flatten();
                if !meant.asks_envelopes() || found.as_ref().is_some_and(|found| meant.fits(&facts, found)) {
                    entries.push(view::entry(&facts, found.as_ref()));
                }
            }
            if is_last {
                break;
            }
            within_bound(&meant, read, &format!("{} found", entries.len()))?;
        }
        entries.truncate(most);
        Ok(entries)
    }

    pub(super) fn queue_content(&self, id: &str) -> Result<Vec<u8>, AdminFault> {
        let id = id_of(id)?;
        match self.spool.show(id) {
            Ok(Some(shown)) => Ok(shown.content.to_vec()),
            Ok(None) => Err(gone(id)),
            Err(error) => Err(AdminFault::Unavailable(format!("message {id} can't be read: {error}"))),
        }
    }

    /// Does `action`; gives how many items (a message at one destination) it was done to.
    pub(super) fn queue_act(
        &self,
        action: QueueAction,
        selection: &Selection,
        quarantine_only: bool,
    ) -> Result<u64, AdminFault> {
        let mut meant = Meant::new(&selection.filter.clone().unwrap_or_default(), SystemTime::now())?;
        if !selection.ids.is_empty() {
            meant.table.ids = Some(selection.ids.iter().map(|id| id_of(id)).collect::<Result<_, _>>()?);
        }
        let wanted = std::mem::take(&mut meant.table.states);
        let asked = |state: &ItemState| {
            (wanted.is_empty() || wanted.contains(state)) && (!quarantine_only || *state == ItemState::Quarantined)
        };
        meant.table.states = states_of(action).iter().copied().filter(asked).collect();
        if meant.table.states.is_empty() {
            return Ok(0);
        }
        let hurry = matches!(action, QueueAction::Release | QueueAction::Retry);
        // Asked before the act, which may end what is looked for.
        let destinations = if hurry { self.destinations_of(&meant) } else { BTreeSet::new() };
        self.let_time_pass();
        let acted = match action {
            QueueAction::Drop => self.drop_all(meant)?,
            _ => self.act(&meant, &spool_action(action))?,
        };
        tracing::info!(?action, ?selection, items = acted, "an operator acted on the queue");
        self.hurry(&destinations);
        Ok(acted)
    }

    /// What is due counts as due although nobody asks for it, as while delivery is paused.
    fn let_time_pass(&self) {
        self.spool.due(SystemTime::now(), 0);
    }

    /// Drops what is there now. What is being delivered can't be taken away; it is dropped if the attempt ends without success.
    fn drop_all(&self, mut meant: Meant) -> Result<u64, AdminFault> {
        let began = Instant::now();
        let next_millisecond = SystemTime::now() + Duration::from_millis(1);
        let before = meant.table.accepted_before.get_or_insert(next_millisecond);
        *before = (*before).min(next_millisecond);
        let mut dropped = self.act(&meant, &Action::Drop)?;
        let leased = spool::Filter { states: vec![ItemState::Leased], ..meant.table.clone() };
        while meant.table.states.contains(&ItemState::Leased)
            && !self.spool.list(&leased, QueueId(0), 1).is_empty()
            && began.elapsed() < DROP_PATIENCE
        {
            std::thread::sleep(DROP_PAUSE);
            dropped += self.act(&meant, &Action::Drop)?;
        }
        Ok(dropped)
    }

    fn act(&self, meant: &Meant, action: &Action) -> Result<u64, AdminFault> {
        if !meant.asks_envelopes() {
            return self.spool.act(&meant.table, action).map_err(unavailable);
        }
        let (mut acted, mut read, mut from) = (0, 0, QueueId(0));
        loop {
            let piece = self.spool.list(&meant.table, from, PIECE_MESSAGES);
            let is_last = piece.len() < PIECE_MESSAGES;
            read += piece.len();
            from = piece.last().map_or(from, |facts| QueueId(facts.id.0 + 1));
            let fits = |facts: &WhyFacts| {
                self.spool.envelope(facts.id).ok().flatten().is_some_and(|found| meant.fits(facts, &found))
            };
            let ids: Vec<QueueId> = piece.iter().filter(|facts| fits(facts)).map(|facts| facts.id).collect();
            if !ids.is_empty() {
                let filter = spool::Filter { ids: Some(ids), ..meant.table.clone() };
                acted += self.spool.act(&filter, action).map_err(unavailable)?;
            }
            if is_last {
                return Ok(acted);
            }
            within_bound(meant, read, &format!("{acted} acted upon"))?;
        }
    }

    /// Destinations that an action may make due; all of the queue's if it does not name them.
    fn destinations_of(&self, meant: &Meant) -> BTreeSet<Arc<str>> {
        match (&meant.table.destination, &meant.table.ids) {
            (Some(destination), _) => BTreeSet::from([destination.as_str().into()]),
            (None, Some(ids)) => {
                let facts = ids.iter().filter_map(|id| self.spool.why(*id));
                facts.flat_map(|facts| facts.items).map(|item| item.destination.into()).collect()
            }
            (None, None) => {
                self.spool.counts_by_destination().into_iter().map(|(destination, _)| destination).collect()
            }
        }
    }

    /// Tries destinations now, even those that are left alone because they were dead.
    fn hurry(&self, destinations: &BTreeSet<Arc<str>>) {
        for destination in destinations {
            self.spool.postpone(destination, SystemTime::now(), "");
            self.delivery.retry_now(Some(destination));
        }
    }
}

fn within_bound(meant: &Meant, read: usize, done: &str) -> Result<(), AdminFault> {
    if !meant.asks_envelopes() || read < ENVELOPES_MAX {
        return Ok(());
    }
    Err(AdminFault::Conflict(format!(
        "looked at {read} envelopes ({done}) and more messages fit the rest of the filter; narrow it by state, destination or age, or name @domain"
    )))
}

fn spool_action(action: QueueAction) -> Action {
    match action {
        QueueAction::Drop => Action::Drop,
        QueueAction::Hold => Action::Hold("by an operator".to_owned()),
        QueueAction::Release => Action::Release,
        QueueAction::Retry => Action::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::view::state_of;

    fn meant(sender: Option<&str>, recipient: Option<&str>) -> Meant {
        let filter =
            Filter { sender: sender.map(Into::into), recipient: recipient.map(Into::into), ..Filter::default() };
        Meant::new(&filter, SystemTime::now()).unwrap_or_else(|_| panic!("a good filter"))
    }

    #[test]
    fn domains_are_the_tables_and_whole_addresses_the_envelopes() {
        let by_domain = meant(Some("@Shop.test"), None);
        assert_eq!(by_domain.table.sender_domain.as_deref(), Some("shop.test"));
        assert!(!by_domain.asks_envelopes());
        let whole = meant(Some("a@shop.test"), Some("B@far.test"));
        assert_eq!((whole.sender.as_deref(), whole.recipient.as_deref()), (Some("a@shop.test"), Some("B@far.test")));
        assert_eq!(whole.table.recipient_domain.as_deref(), Some("far.test"));
        assert_eq!(meant(Some("<>"), None).table.sender_domain.as_deref(), Some(""));
        assert_eq!(meant(Some("alice"), None).table.sender.as_deref(), Some("alice"), "a login");
        let wrong = Filter { recipient: Some("bob".into()), ..Filter::default() };
        assert!(Meant::new(&wrong, SystemTime::now()).is_err());
    }

    #[test]
    fn every_state_has_its_item_state_and_back() {
        for (_, state) in State::WORDS {
            assert_eq!(state_of(item_state(state)), state);
        }
    }
}
