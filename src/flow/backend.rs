//! The gateway as the admin API sees it. I/O: through the stages.

use std::sync::Arc;

use crate::admin::backend::{AdminBackend, AdminFault, Answering};
use crate::admin::model::{Acted, Filter, QueueAction, QueueDetail, QueueEntry, RateEntry, Reloaded, Selection, Sentence, Stats};

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
