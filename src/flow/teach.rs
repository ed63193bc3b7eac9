//! Teaching the classifier while the gateway runs: what people say of mail, and keeping it. I/O: the model's files.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::filter::classifier::Label;
use crate::store::junk::{Moved, Watch};

use super::house::House;

/// How often what was learned is written to disk; a crash loses at most that much.
const SAVED_EVERY: Duration = Duration::from_secs(60);

impl House {
    /// Teaches the classifier what `content` is; `domain` is its recipient's. False if no listener filters, so that nothing learns.
    pub async fn teach(
        &self,
        label: Label,
        content: impl Deref<Target = [u8]> + Send + 'static,
        domain: Option<String>,
    ) -> bool {
        let Some(engine) = self.snapshot.load().checks.engine() else { return false };
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
        if let Some(engine) = self.snapshot.load().checks.engine()
            && let Err(error) = engine.save()
        {
            tracing::error!(%error, "what the classifier learned is not on disk");
        }
    }
}

/// Learns what users move into and out of their Junk folders until `stop` is there.
pub async fn watch_junk(house: Arc<House>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let config = house.snapshot.load().config.clone();
    let settings = &config.filter.classifier;
    if settings.junk.is_empty() {
        return;
    }
    let mut watch = Watch::new(&config.store.directory, &settings.junk);
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let moved = watch.look(SystemTime::now());
            (watch, moved)
        });
        let Ok((again, moved)) = looked.await else { return };
        watch = again;
        match moved {
            Ok(moved) => learn_moved(&house, moved).await,
            Err(error) => tracing::warn!(%error, "the Junk folders can't be looked at"),
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(settings.junk_every) => {}
        }
    }
}

async fn learn_moved(house: &House, moved: Vec<Moved>) {
    for Moved { into_junk, user, content } in moved {
        let label = if into_junk { Label::Spam } else { Label::Ham };
        let domain = user.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        let learned = house.teach(label, content, domain).await;
        tracing::info!(user, into_junk, learned, "a message was moved");
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
