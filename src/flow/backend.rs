//! The gateway as the admin API sees it. I/O: through the stages.

use std::sync::Arc;

use crate::admin::backend::{AdminBackend, AdminFault, Answering};
use crate::admin::model::{
    Acted, Filter, QueueAction, QueueDetail, QueueEntry, RateEntry, Reloaded, Selection, Sentence, Stats,
};

use super::gateway::Shared;

/// Answers the admin API.
pub struct Backend {
    shared: Arc<Shared>,
}

impl Backend {
    /// For the gateway of `shared`.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Backend { shared }
    }
}

impl AdminBackend for Backend {
    fn not_ready(&self) -> Option<String> {
        None
    }
    fn queue_list(&self, _filter: Filter, _most: usize) -> Answering<'_, Vec<QueueEntry>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn queue_show(&self, id: String) -> Answering<'_, QueueDetail> {
        Box::pin(async { Err(AdminFault::NotFound(id)) })
    }
    fn queue_why(&self, id: String) -> Answering<'_, Sentence> {
        Box::pin(async { Err(AdminFault::NotFound(id)) })
    }
    fn queue_act(&self, _: QueueAction, _: Selection, _: bool) -> Answering<'_, Acted> {
        Box::pin(async { Ok(Acted { count: 0 }) })
    }
    fn stats(&self) -> Answering<'_, Stats> {
        Box::pin(async { Ok(Stats::new()) })
    }
    fn config_summary(&self) -> Answering<'_, Sentence> {
        Box::pin(async { Ok(Sentence { text: String::new() }) })
    }
    fn rate_list(&self, _: Option<String>, _: usize) -> Answering<'_, Vec<RateEntry>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn rate_reset(&self, _: String) -> Answering<'_, Acted> {
        Box::pin(async { Ok(Acted { count: 0 }) })
    }
    fn reload(&self) -> Answering<'_, Reloaded> {
        Box::pin(async {
            Ok(match self.shared.reload() {
                Ok(text) => Reloaded { ok: true, text },
                Err(text) => Reloaded { ok: false, text },
            })
        })
    }
    fn pause_delivery(&self, _: bool) -> Answering<'_, Sentence> {
        Box::pin(async { Ok(Sentence { text: String::new() }) })
    }
}
