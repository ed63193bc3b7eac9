//! Acts of an operator that are worth remembering: what was released or dropped, and what the classifier learns of it. I/O: the
//! spool, which is read; the trace.
//!
//! A message is read before the act, which may end it, and learned after the act, if that did something.

use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::admin::backend::AdminFault;
use crate::admin::model::{Acted, Lesson, Lessons, QueueAction, Selection, State, Taught};
use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::base::unix;
use crate::filter::classifier::{Label, Learned};
use crate::observe::trace::{Entry, Event};

use super::operate::id_of;
use super::shared::Shared;

/// Messages whose acts are remembered one by one; more at once are an operator's sweep, which says little about each.
const REMEMBERED_MAX: usize = 10_000;
/// Messages that one act may teach.
const TAUGHT_MAX: usize = 1_000;

struct Pupil {
    label: Label,
    content: Content,
    domain: Option<String>,
}

impl Shared {
    /// Does `action`, remembers it, and teaches the classifier if that is asked for.
    pub(super) fn queue_act_and_tell(
        &self,
        action: QueueAction,
        selection: &Selection,
        quarantine_only: bool,
    ) -> Result<Acted, AdminFault> {
        let what = match action {
            QueueAction::Drop => Some("dropped"),
            QueueAction::Release => Some("released"),
            QueueAction::Hold | QueueAction::Retry => None,
        };
        let ids = if what.is_some() { self.kept_back(selection)? } else { Vec::new() };
        let pupils = match selection.teach {
            Some(lesson) if ids.len() <= TAUGHT_MAX => self.pupils(&ids, lesson)?,
            Some(_) => {
                let text = format!("at most {TAUGHT_MAX} messages can be taught at once; narrow the filter");
                return Err(AdminFault::Conflict(text));
            }
            None => Vec::new(),
        };
        let count = self.queue_act(action, selection, quarantine_only)?;
        if count == 0 {
            return Ok(Acted { count, taught: 0 });
        }
        for id in what.iter().flat_map(|_| &ids) {
            self.tell(*id, what.unwrap_or_default());
        }
        let taught = self.teach(&ids, pupils);
        Ok(Acted { count, taught })
    }

    /// The messages meant that are on hold or in quarantine.
    fn kept_back(&self, selection: &Selection) -> Result<Vec<QueueId>, AdminFault> {
        if !selection.ids.is_empty() {
            return selection.ids.iter().map(|id| id_of(id)).collect();
        }
        let mut filter = selection.filter.clone().unwrap_or_default();
        let mut ids = Vec::new();
        for state in [State::Held, State::Quarantined] {
            if filter.state.is_none_or(|wanted| wanted == state) {
                let wanted = filter.state.replace(state);
                let entries = self.queue_list(&filter, REMEMBERED_MAX)?;
                ids.extend(entries.iter().filter_map(|entry| entry.id.parse::<QueueId>().ok()));
                filter.state = wanted;
            }
        }
        Ok(ids)
    }

    fn pupils(&self, ids: &[QueueId], lesson: Lesson) -> Result<Vec<Pupil>, AdminFault> {
        let label = label_of(lesson);
        let mut pupils = Vec::new();
        for id in ids {
            let shown = self.spool.show(*id);
            let shown =
                shown.map_err(|error| AdminFault::Unavailable(format!("message {id} can't be read: {error}")))?;
            pupils.extend(shown.map(|shown| {
                let mut domains = shown.envelope.recipients.iter().map(|to| to.mailbox.domain().to_lowercase());
                let first = domains.next();
                // A message to several domains is nobody's own.
                let domain = first.filter(|first| domains.all(|other| other == *first));
                Pupil { label, content: shown.content, domain }
            }));
        }
        Ok(pupils)
    }

    fn teach(&self, ids: &[QueueId], pupils: Vec<Pupil>) -> u64 {
        let word = |label| if label == Label::Ham { "taught ham" } else { "taught spam" };
        let mut taught = 0;
        for (id, Pupil { label, content, domain }) in ids.iter().zip(pupils) {
            let house = self.house.clone();
            if self.house.runtime.block_on(house.teach(label, content, domain)) {
                self.tell(*id, word(label));
                taught += 1;
            }
        }
        taught
    }

    /// Learns messages that somebody brought.
    pub(super) fn learn(&self, lessons: &Lessons) -> Result<Taught, AdminFault> {
        let decode = |text: &String| BASE64_STANDARD.decode(text);
        let messages: Result<Vec<Vec<u8>>, _> = lessons.messages.iter().map(decode).collect();
        let messages = messages.map_err(|error| AdminFault::Conflict(format!("a message is no base64: {error}")))?;
        let engine = self.house.snapshot.load().checks.engine();
        let engine = engine.ok_or_else(|| AdminFault::Conflict("no listener filters, so nothing learns".to_owned()))?;
        let count = messages.len() as u64;
        messages.iter().for_each(|message| engine.learn(label_of(lessons.kind), message, None));
        engine.save().map_err(|error| AdminFault::Unavailable(error.to_string()))?;
        let Learned { ham, spam } = engine.learned();
        Ok(Taught { count, ham, spam })
    }

    fn tell(&self, id: QueueId, what: &str) {
        let at = unix::millis(SystemTime::now());
        self.house.trace.add(Entry::Event(Event { at, id: id.to_string(), what: what.to_owned() }), None);
    }
}

fn label_of(lesson: Lesson) -> Label {
    match lesson {
        Lesson::Ham => Label::Ham,
        Lesson::Spam => Label::Spam,
    }
}
