//! Messages that are judged together: a set of them is a word with a bit for each. Pure.
//!
//! What is known of a rule is known of all of them in one place, and what is joined by `&&` or `||` is worked out for all at once.

/// Some of the messages that are judged together.
pub type Messages = u64;

/// Messages that are judged together at most.
pub const MOST: usize = Messages::BITS as usize;

/// So many of them.
pub fn first(count: usize) -> Messages {
    Messages::MAX.checked_shr((MOST - count) as u32).unwrap_or(0)
}

/// One of them alone.
pub fn one(message: usize) -> Messages {
    1 << message
}

/// All of them if this is true, none otherwise.
pub fn all_if(holds: bool) -> Messages {
    if holds { Messages::MAX } else { 0 }
}

/// Their numbers.
pub fn each(mut messages: Messages) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let message = messages.trailing_zeros() as usize;
        messages &= messages.wrapping_sub(1);
        (message < MOST).then_some(message)
    })
}

/// Those of some for which this holds.
pub fn those(of: Messages, mut holds: impl FnMut(usize) -> bool) -> Messages {
    each(of).filter(|&message| holds(message)).fold(0, |all, message| all | one(message))
}

/// Messages of which something is certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sure {
    /// Where it is true.
    pub yes: Messages,
    /// Where it is not.
    pub no: Messages,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_messages() {
        assert_eq!(each(one(0) | one(5) | one(31)).collect::<Vec<_>>(), [0, 5, 31]);
        assert_eq!([0, 1, MOST].map(|count| each(first(count)).count()), [0, 1, MOST]);
        assert_eq!(all_if(true), first(MOST));
        assert_eq!(each(all_if(false)).next(), None);
    }
}
