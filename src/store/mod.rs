//! Stage 8, hold it: mailboxes on disk, POP3. I/O: disk, network.
