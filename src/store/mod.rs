//! Stage 8, hold it: users, mailboxes on disk, POP3. I/O: disk, network.
//!
//! [`users`] knows who may log in and whose an address is; [`mailbox`] takes deliveries durably; [`maildrop`] is one
//! mailbox opened for reading; [`pop3`] is the conversation (pure) and [`server`] drives it.

pub mod junk;
pub mod mailbox;
pub mod maildrop;
pub mod meters;
pub mod pop3;
pub mod server;
pub mod users;
