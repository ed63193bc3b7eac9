//! CPU time, user and system. I/O: the kernel's clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time that this thread has had.
pub fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time of this thread for `work`.
pub fn of(work: impl FnOnce()) -> Duration {
    let before = thread();
    work();
    thread().saturating_sub(before)
}

/// The same for work that is done several times, of the time that took the least.
pub fn quickest_of(times: usize, mut work: impl FnMut()) -> Duration {
    (0..times).map(|_| of(&mut work)).min().unwrap_or_default()
}

/// `count` things in `took`, by the second.
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
