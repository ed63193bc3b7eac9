//! Password checks off the reactors, with a bound. I/O: rayon threads.
//!
//! One check costs a core for tens of milliseconds and megabytes of memory (argon2), so a flood of AUTH must neither
//! fill memory nor starve the rest: above the bound the answer is a temporary refusal.

use std::sync::Arc;
use std::time::Instant;

use crate::base::secret::Secret;
use crate::observe::meters::QueueMeters;
use crate::store::users::Users;

use super::house::Places;

/// Checks that wait or run. With four a second and core, this is a queue of about 10 seconds on two cores.
const CHECKS_MAX: usize = 64;

/// The bounded place where passwords are checked.
pub struct Passwords {
    users: Arc<Users>,
    places: Places,
}

impl Passwords {
    /// Checks against `users`.
    pub fn new(users: Arc<Users>, meters: QueueMeters) -> Self {
        Passwords { users, places: Places::new(CHECKS_MAX, meters) }
    }

    /// Checks `password` on the rayon pool and calls `done` with the canonical login, or nothing when it is wrong.
    /// False if the bound is reached; `done` is then not called.
    pub fn check(&self, login: String, password: Secret, done: impl FnOnce(Option<Arc<str>>) + Send + 'static) -> bool {
        let Some(place) = self.places.enter() else { return false };
        let users = self.users.clone();
        rayon::spawn(move || {
            let verified = users.verify_fresh(&login, &password, Instant::now());
            drop(place);
            done(verified);
        });
        true
    }
}
