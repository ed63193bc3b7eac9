//! Teaching the classifier while the gateway runs: what people say of mail, and keeping it. I/O: the model's files.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::content::Content;
use crate::filter::classifier::Label;

use super::house::House;

/// How often what was learned is written to disk; a crash loses at most that much.
const SAVED_EVERY: Duration = Duration::from_secs(60);

impl House {
    /// Teaches the classifier what `content` is; `domain` is its recipient's. False if no listener filters, so that nothing learns.
    pub async fn teach(&self, label: Label, content: Content, domain: Option<String>) -> bool {
        let Some(engine) = self.snapshot.load().checks.engine.clone() else { return false };
        let domain = domain.map(|domain| domain.to_ascii_lowercase());
        let (done, learned) = oneshot::channel();
        rayon::spawn(move || {
            engine.learn(label, &content, domain.as_deref());
            // Nobody waits any more when the gateway stops.
            let _ = done.send(());
        });
        learned.await.is_ok()
    }

    /// Writes what was learned to disk.
    pub fn save_lessons(&self) {
        if let Some(engine) = self.snapshot.load().checks.engine.clone()
            && let Err(error) = engine.save()
        {
            tracing::error!(%error, "what the classifier learned is not on disk");
        }
    }
}

/// Keeps what was learned until `stop` is there.
pub async fn keep_lessons(house: Arc<House>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(SAVED_EVERY) => {}
        }
        let house = house.clone();
        // The result is logged there; a panic is a defect that the next round shows again.
        let _ = tokio::task::spawn_blocking(move || house.save_lessons()).await;
    }
}
