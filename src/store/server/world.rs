//! Answers the questions of one POP3 conversation. I/O: disk and password checks, on blocking threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use crate::base::secret::Secret;
use crate::store::maildrop::{Maildrop, OpenError};
use crate::store::pop3::ask::{Answer, Ask};

/// A piece of a message; what a conversation holds in memory of it.
const PIECE_BYTES: usize = 64 * 1024;

/// Answers the questions of one conversation.
pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    pub(super) maildrop: Option<Maildrop>,
    /// The login of the SCRAM exchange under way.
    pub(super) tried: String,
}

impl World {
    pub(super) async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Password { login, .. } | Ask::Apop { login, .. } | Ask::ScramKeys { login }
                if !self.may_try(&login) =>
            {
                self.count_login("too_many_failures");
                Answer::TooManyFailures
            }
            Ask::Password { login, password } => self.check_password(login, password).await,
            Ask::Apop { login, timestamp, digest } => {
                let user = self.shared.logins.users.verify_apop(&login, &timestamp, &digest);
                self.judge(&login, user)
            }
            Ask::ScramKeys { login } => {
                let keys = self.shared.logins.users.scram_keys(&login);
                self.tried = login;
                Answer::ScramKeys(keys)
            }
            Ask::AuthFailed => self.judge(&self.tried, None),
            Ask::Open { user } => self.open(user).await,
            Ask::Read { index, offset } => self.read(index, offset).await,
            Ask::Remove { indexes } => self.remove(indexes).await,
        }
    }

    fn may_try(&self, login: &str) -> bool {
        self.shared.logins.guard.may_try(self.peer.ip(), login)
    }

    async fn check_password(&self, login: String, password: Secret) -> Answer {
        let Ok(_turn) = self.shared.checks.acquire().await else {
            return Answer::Unavailable;
        };
        let (users, name) = (self.shared.logins.users.clone(), login.clone());
        match blocking(move || users.verify_fresh(&name, &password, Instant::now())).await {
            Some(user) => self.judge(&login, user),
            None => Answer::Unavailable,
        }
    }

    fn judge(&self, login: &str, user: Option<Arc<str>>) -> Answer {
        match user {
            Some(user) => Answer::Authenticated(user),
            None => {
                tracing::info!(peer = %self.peer, login, "POP3 login failed");
                self.count_login("failed");
                self.shared.logins.guard.failed(self.peer.ip(), login);
                Answer::Refused
            }
        }
    }

    fn count_login(&self, result: &str) {
        self.shared.meters.logins.with_label_values(&[result]).inc();
    }

    async fn open(&mut self, user: Arc<str>) -> Answer {
        let (mailboxes, name) = (self.shared.mailboxes.clone(), user.clone());
        let opened = blocking(move || Maildrop::open(&mailboxes, &name)).await;
        match opened {
            Some(Ok((maildrop, entries))) => {
                tracing::debug!(peer = %self.peer, %user, messages = entries.len(), "POP3 login");
                self.count_login("ok");
                self.maildrop = Some(maildrop);
                Answer::Opened(entries)
            }
            Some(Err(OpenError::InUse)) => {
                self.count_login("in_use");
                Answer::InUse
            }
            Some(Err(OpenError::Io(error))) => {
                tracing::error!(%user, %error, "mailbox can't be opened");
                self.count_login("unavailable");
                Answer::Unavailable
            }
            None => Answer::Unavailable,
        }
    }

    /// Lends the maildrop to a blocking thread.
    async fn with_maildrop<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Maildrop) -> T + Send + 'static,
    ) -> Option<T> {
        let mut maildrop = self.maildrop.take()?;
        let (maildrop, value) = blocking(move || {
            let value = work(&mut maildrop);
            (maildrop, value)
        })
        .await?;
        self.maildrop = Some(maildrop);
        Some(value)
    }

    async fn read(&mut self, index: usize, offset: u64) -> Answer {
        match self.with_maildrop(move |maildrop| maildrop.read(index, offset, PIECE_BYTES)).await {
            Some(Ok(bytes)) => {
                self.shared.meters.retrieved_bytes.inc_by(bytes.len() as u64);
                let last = bytes.len() < PIECE_BYTES;
                Answer::Piece { bytes, last }
            }
            Some(Err(error)) => {
                tracing::warn!(peer = %self.peer, %error, "message can't be read");
                Answer::Unavailable
            }
            None => Answer::Unavailable,
        }
    }

    async fn remove(&mut self, indexes: Vec<usize>) -> Answer {
        let wanted = indexes.len();
        let failed = self.with_maildrop(move |maildrop| maildrop.remove(&indexes)).await.unwrap_or(wanted);
        self.shared.meters.removed_messages.inc_by((wanted - failed) as u64);
        Answer::Removed { failed }
    }
}

/// Runs `work` where it may block; nothing if it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "store work failed");
            None
        }
    }
}
