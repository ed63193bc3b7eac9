//! The embedded store as delivery sees it. I/O: the store's disk.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::deliver::transport::{LocalStore, StoreFault};
use crate::policy::domains::names_of;
use crate::store::mailbox::Mailboxes;
use crate::store::users::Users;
use crate::wire::address::Mailbox;

use super::snapshot::Snapshot;

/// Who reads mail for `postmaster` and `abuse` where no user of that name is there (RFC 2142 §5): the first user.
const ROLE_NAMES: [&str; 2] = ["postmaster", "abuse"];

/// Delivers to the mailbox that an address belongs to.
pub struct LocalMailboxes {
    users: Arc<Users>,
    mailboxes: Arc<Mailboxes>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl LocalMailboxes {
    /// Delivers for `users`.
    pub fn new(users: Arc<Users>, mailboxes: Arc<Mailboxes>, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        LocalMailboxes { users, mailboxes, snapshot }
    }

    /// The owner of `recipient`: by the whole address, by its local part, by the local part without detail.
    fn owner(&self, recipient: &Mailbox) -> Option<Arc<str>> {
        let local = recipient.local_part();
        let separator = self.snapshot.load().domains.of(recipient).and_then(|domain| domain.detail_separator);
        let by_name = || names_of(local, separator).iter().find_map(|name| self.users.find(name));
        let is_role = || ROLE_NAMES.iter().any(|name| local.eq_ignore_ascii_case(name));
        let found = self.users.find(recipient.as_str()).or_else(by_name);
        found.or_else(|| if is_role() { self.users.first() } else { None })
    }
}

impl LocalStore for LocalMailboxes {
    fn deliver(&self, recipient: &Mailbox, prefix: &[u8], content: &[u8]) -> Result<(), StoreFault> {
        let user = self.users.find_fresh(|_| self.owner(recipient)).ok_or(StoreFault::NoSuchUser)?;
        self.mailboxes.deliver(&user, prefix, content).map_err(|error| match error.kind() {
            std::io::ErrorKind::QuotaExceeded => StoreFault::OverQuota,
            _ => StoreFault::Failed(error.to_string()),
        })
    }
}
