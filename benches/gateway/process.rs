//! What the kernel says of a process: time, memory. I/O: /proc.

use std::fs;

/// Clock ticks a second in /proc (`USER_HZ`, which Linux has fixed for user space).
const TICKS: f64 = 100.0;

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces; what follows its parenthesis may not.
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// CPU seconds of `pid` alone, from the scheduler's own clock where it tells (nanoseconds, all threads), else in ticks.
fn seconds_of(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    let nanoseconds: u64 = nanoseconds.sum();
    if nanoseconds > 0 {
        return nanoseconds as f64 / 1e9;
    }
    stat(pid)
        .map_or(0.0, |fields| fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS)
}

/// CPU seconds of a server: the process, its children and those that have ended.
pub fn cpu_seconds(pid: u32) -> f64 {
    let ended =
        stat(pid).map_or(0.0, |fields| fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>());
    seconds_of(pid) + ended / TICKS + children(pid).into_iter().map(cpu_seconds).sum::<f64>()
}

fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(*child).is_some_and(|fields| fields[1] == pid.to_string())).collect()
}

/// KiB of `field` in /proc/PID/`file`.
fn kibibytes(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Resident memory.
pub fn rss_kib(pid: u32) -> u64 {
    kibibytes(pid, "status", "VmRSS:")
}

/// Resident memory that is no file's: what can't be given back without being lost.
pub fn anonymous_kib(pid: u32) -> u64 {
    kibibytes(pid, "status", "RssAnon:")
}

/// The process's share of memory.
pub fn pss_kib(pid: u32) -> u64 {
    kibibytes(pid, "smaps_rollup", "Pss:")
}
