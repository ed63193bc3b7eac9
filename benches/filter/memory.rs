//! What two judging threads hold, in a process of their own that reads one message at a time. I/O: processes, /proc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use weir::filter::Engine;
use weir::filter::engine::TOGETHER_MAX;

use crate::ours::{self, Sets};
use crate::{Plan, corpus, process, row};

/// The word that makes this program such a process.
pub const COMMAND: &str = "hold";
/// What the project has set, in MiB.
const RESIDENT_MIB: u64 = 150;
const THREADS: usize = 2;

/// Starts the process and prints what it held.
pub fn measure(sets: &Sets, model: &Path, plan: &Plan) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(COMMAND).arg(&plan.folder).arg(plan.every.to_string()).arg(model).args(&sets.both);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let held: Vec<u64> = text.split_whitespace().map(|kib| kib.parse::<u64>().unwrap() / 1024).collect();
    let target = format!("at most {RESIDENT_MIB} ({} at the end, {} no file's, share {})", held[1], held[2], held[3]);
    row("resident memory, two threads, at most", &format!("{} MiB", held[0]), &target, held[0] <= RESIDENT_MIB);
}

fn judge(engine: &Engine, paths: &[&PathBuf]) {
    let mails: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    ours::judge_all(engine, mails.iter());
}

/// The process: judges each thread's part and prints KiB: the most, at the end, no file's, its share.
pub fn hold(words: &[String]) {
    let [folder, every, model, rules @ ..] = words else { panic!("folder, every, model, rules") };
    let rules: Vec<PathBuf> = rules.iter().map(PathBuf::from).collect();
    let engine = ours::engine(&rules, Path::new(model));
    let paths = corpus::paths(Path::new(folder), every.parse().unwrap());
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let (engine, mine) = (&engine, paths.iter().skip(first).step_by(THREADS).collect::<Vec<_>>());
            scope.spawn(move || mine.chunks(TOGETHER_MAX).for_each(|paths| judge(engine, paths)));
        }
    });
    let pid = std::process::id();
    let most = fs::read_to_string("/proc/self/status").unwrap();
    let most = most.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    println!("{most} {} {} {}", process::rss_kib(pid), process::anonymous_kib(pid), process::pss_kib(pid));
}
