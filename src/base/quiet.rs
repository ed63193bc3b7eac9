//! Code of others that may panic, called without its trace in the log. Pure.
//!
//! A parser that trips over a stranger's bytes costs that message its result and nobody else anything; a trace for each such
//! message would let strangers fill the log. Panics anywhere else are told as ever.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// What `work` gives; nothing if it panicked. What it has borrowed to write may then be half written.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                told(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_the_next_call_is_its_own() {
        assert_eq!(catch(|| [1, 2][std::hint::black_box(2)]), None);
        assert!(!QUIET.get());
        assert_eq!(catch(|| catch(|| 7)), Some(Some(7)));
    }
}
