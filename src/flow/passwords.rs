//! Password checks off the reactors, with a bound. I/O: rayon threads.
//!
//! One check costs a core for tens of milliseconds and megabytes of memory (argon2), so a flood of AUTH must neither
//! fill memory nor starve the rest: above the bound the answer is a temporary refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::base::secret::Secret;
use crate::store::users::Users;

/// Checks that wait or run. With four a second and core, this is a queue of about 10 seconds on two cores.
const CHECKS_MAX: usize = 64;

/// The bounded place where passwords are checked.
pub struct Passwords {
    users: Arc<Users>,
    under_way: Arc<AtomicUsize>,
}

impl Passwords {
    /// Checks against `users`.
    pub fn new(users: Arc<Users>) -> Self {
        Passwords { users, under_way: Arc::default() }
    }

    /// Checks `password` on the rayon pool and calls `done` with the canonical login, or nothing when it is wrong.
    /// False if the bound is reached; `done` is then not called.
    pub fn check(&self, login: String, password: Secret, done: impl FnOnce(Option<Arc<str>>) + Send + 'static) -> bool {
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= CHECKS_MAX {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let (users, under_way) = (self.users.clone(), self.under_way.clone());
        rayon::spawn(move || {
            let verify = || users.verify(&login, &password, Instant::now());
            // A user made a second ago may log in; an unchanged file costs one stat.
            let verified = verify().or_else(|| users.refresh().is_ok_and(|changed| changed).then(verify)?);
            under_way.fetch_sub(1, Ordering::Relaxed);
            done(verified);
        });
        true
    }
}
