//! Puts a report into our own queue: signed, with the null reverse-path or the configured one. I/O: the spool; rayon.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::base::unix::now_secs;
use crate::flow::checks::on_rayon;
use crate::flow::house::House;
use crate::flow::snapshot::Snapshot;
use crate::spool::queue::{Disposition, NewMessage};
use crate::verify::Message;
use crate::wire::address::Mailbox;
use crate::wire::date::rfc5322;
use crate::wire::envelope::{Envelope, Notify, Origin, Recipient};

/// The listener's name in what a report came from.
const LISTENER: &str = "report";

impl House {
    /// Signs and queues a report for one address. It is on disk when this returns.
    /// # Errors
    /// In words: no key signs for its author, or the spool does not take it.
    pub(super) async fn mail_report(
        &self,
        snapshot: &Snapshot,
        to: &Mailbox,
        content: Vec<u8>,
        about: &str,
    ) -> Result<QueueId, String> {
        let content = Content::from_bytes(content);
        let (checks, message) = (snapshot.checks.clone(), Message::parse(content.clone()));
        let signed = on_rayon(move || checks.signer.sign(&message, now_secs())).await.unwrap_or_default();
        if signed.is_empty() {
            return Err("no [[dkim]] key signs for [reports] from".to_owned());
        }
        let id = self.spool.next_id();
        let date = rfc5322(SystemTime::now());
        let received = format!("Received: by {} (Weir) id {id};\r\n\t{date}\r\n", snapshot.config.hostname);
        let mut recipient = Recipient::plain(to.clone());
        recipient.notify = Some(Notify::NEVER);
        let reverse_path = snapshot.config.reports.reverse_path.clone();
        let envelope = Envelope::plain(Origin::local(LISTENER), reverse_path, vec![recipient]);
        let message = NewMessage {
            id,
            envelope: Arc::new(envelope),
            destinations: vec![snapshot.routes.destination(to)],
            prefix: [received, signed].concat().into_bytes().into(),
            content,
            disposition: Disposition::Deliver,
            verdict: format!("report about {about}").into(),
        };
        let (sender, durable) = oneshot::channel();
        // Whoever asked is gone only if the gateway stops.
        self.spool.accept(message, Box::new(move |result| drop(sender.send(result))));
        match durable.await {
            Ok(Ok(())) => Ok(id),
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("the spool is stopping".to_owned()),
        }
    }
}
