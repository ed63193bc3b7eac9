//! The date as `Received` needs it, made once a second. Pure; time is passed in.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::base::unix;
use crate::wire::date::rfc5322;

/// Remembers the text of the current second.
pub struct DateClock(ArcSwap<(u64, Arc<str>)>);

impl Default for DateClock {
    fn default() -> Self {
        DateClock(ArcSwap::from_pointee((0, rfc5322(UNIX_EPOCH).into())))
    }
}

impl DateClock {
    /// `now` as RFC 5322 writes it.
    pub fn date(&self, now: SystemTime) -> Arc<str> {
        let second = unix::secs(now);
        let known = self.0.load();
        if known.0 == second {
            return known.1.clone();
        }
        let text: Arc<str> = rfc5322(now).into();
        self.0.store(Arc::new((second, text.clone())));
        text
    }
}
