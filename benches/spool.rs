//! How fast the spool accepts, against a bare loop that writes the same bytes; and a restart with many queued messages.
//!
//! `cargo bench --bench spool -- [DIRECTORY] [SECONDS]`; `… -- restart DIRECTORY MESSAGES`.
#![allow(clippy::unwrap_used)] // A program for us.

#[path = "../tests/support/spool_world.rs"]
mod world;

use std::io::IoSlice;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use weir::base::content::Content;
use weir::spool::queue::{MailQueue, NewMessage};
use weir::spool::storage::{Directory, Storage, StoredFile};
use weir::spool::{Action, Filter, Options, Spool, meters::Meters};

const MESSAGE_BYTES: usize = 4096;
/// Bytes that envelope, prefix and framing add; the bare loop writes them too.
const EXTRA_BYTES: usize = 400;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|first| first == "restart") {
        return restart(Path::new(&args[1]), args[2].parse().unwrap());
    }
    let parent = args.first().map_or("target", String::as_str);
    let seconds = args.get(1).map_or(3.0, |text| text.parse().unwrap());
    for submitters in [1, 20, 100] {
        let bare = bare_rate(parent, submitters, seconds);
        let (ours, cpu) = spool_rate(parent, submitters, seconds);
        println!(
            "accept 4 KiB x {submitters}: spool {ours:.0}/s, bare loop {bare:.0}/s, ratio {:.2}, {cpu:.1} us CPU a message",
            ours / bare
        );
    }
}

fn cpu_micros() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let micros = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1e6 + t.tv_usec() as f64;
    micros(usage.user_time()) + micros(usage.system_time())
}

/// Each submitter has one message on its way; the answer, on the committer's thread, brings the next.
fn spool_rate(parent: &str, submitters: usize, seconds: f64) -> (f64, f64) {
    let directory = tempfile::tempdir_in(parent).unwrap();
    let options = Options { segments_ahead: 12, ..Options::default() };
    let spool = Arc::new(Spool::open(directory.path(), options, Meters::unregistered()).unwrap());
    std::thread::sleep(Duration::from_secs(3)); // The segments ahead are being filled.
    let sample = world::message(&spool, "d1", MESSAGE_BYTES);
    let count = AtomicU64::new(0);
    let (began, cpu) = (Instant::now(), cpu_micros());
    std::thread::scope(|scope| {
        for _ in 0..submitters {
            scope.spawn(|| {
                let answered = Arc::new((Mutex::new(false), Condvar::new()));
                while began.elapsed().as_secs_f64() < seconds {
                    let message = NewMessage { id: spool.next_id(), ..sample.clone() };
                    let answer = answered.clone();
                    spool.accept(
                        message,
                        Box::new(move |result| {
                            result.unwrap();
                            *answer.0.lock().unwrap() = true;
                            answer.1.notify_one();
                        }),
                    );
                    let mut done = answered.0.lock().unwrap();
                    while !*done {
                        done = answered.1.wait(done).unwrap();
                    }
                    *done = false;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let count = count.load(Ordering::Relaxed) as f64;
    (count / began.elapsed().as_secs_f64(), (cpu_micros() - cpu) / count)
}

struct Bare {
    waiting: usize,
    done: u64,
    stop: bool,
}

/// The same shape without a spool: one thread writes what waits into one preallocated file, syncs, and wakes all.
fn bare_rate(parent: &str, submitters: usize, seconds: f64) -> f64 {
    const FILE_BYTES: u64 = 512 * 1024 * 1024;
    let directory = tempfile::tempdir_in(parent).unwrap();
    let file = Directory::open(directory.path()).unwrap().create("bare").unwrap();
    file.preallocate(FILE_BYTES).unwrap();
    let shared = (Mutex::new(Bare { waiting: 0, done: 0, stop: false }), Condvar::new(), Condvar::new());
    let count = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| bare_writer(&*file, FILE_BYTES, &shared));
        let threads: Vec<_> = (0..submitters)
            .map(|_| {
                scope.spawn(|| {
                    while began.elapsed().as_secs_f64() < seconds {
                        let mut state = shared.0.lock().unwrap();
                        state.waiting += 1;
                        let mine = state.done + 1;
                        shared.1.notify_one();
                        while state.done < mine {
                            state = shared.2.wait(state).unwrap();
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        shared.0.lock().unwrap().stop = true;
        shared.1.notify_one();
        writer.join().unwrap();
    });
    count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn bare_writer(file: &dyn StoredFile, bytes: u64, shared: &(Mutex<Bare>, Condvar, Condvar)) {
    let message = vec![b'x'; MESSAGE_BYTES + EXTRA_BYTES];
    let mut at = 0;
    let mut state = shared.0.lock().unwrap();
    loop {
        while state.waiting == 0 && !state.stop {
            state = shared.1.wait(state).unwrap();
        }
        if state.waiting == 0 {
            return;
        }
        let batch = std::mem::take(&mut state.waiting);
        drop(state);
        let mut slices: Vec<IoSlice> = (0..batch).map(|_| IoSlice::new(&message)).collect();
        let total = (batch * message.len()) as u64;
        if at + total > bytes {
            at = 0;
        }
        file.write_at(at, &mut slices).unwrap();
        file.sync().unwrap();
        at += total;
        state = shared.0.lock().unwrap();
        state.done += 1;
        shared.2.notify_all();
    }
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// First run fills the spool; each later run measures a start.
fn restart(directory: &Path, messages: u64) {
    let began = Instant::now();
    let spool = Spool::open(directory, Options::default(), Meters::unregistered()).unwrap();
    let opening = spool.opening();
    println!(
        "open: {:.2} s, {} messages, {} records read, from checkpoint {}, RSS {} MiB",
        began.elapsed().as_secs_f64(),
        opening.messages,
        opening.records,
        opening.from_checkpoint,
        rss_mib()
    );
    if opening.messages < messages {
        fill(&spool, messages - opening.messages);
    }
    let began = Instant::now();
    let held = spool.act(&Filter::default(), &Action::Hold("bench".into())).unwrap();
    println!("hold {held}: {:.2} s, RSS {} MiB", began.elapsed().as_secs_f64(), rss_mib());
    let began = Instant::now();
    let freed = spool.act(&Filter::default(), &Action::Release).unwrap();
    println!("release {freed}: {:.2} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let leased = spool.lease("destination-7.example", SystemTime::now(), 100).len();
    println!("lease {leased}: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    if std::env::var_os("SPOOL_ABORT").is_some() {
        std::process::abort();
    }
    let began = Instant::now();
    spool.close();
    println!("close: {:.2} s, RSS {} MiB", began.elapsed().as_secs_f64(), rss_mib());
}

fn fill(spool: &Spool, messages: u64) {
    const AT_ONCE: u64 = 500;
    let began = Instant::now();
    let open = Arc::new((Mutex::new(0u64), Condvar::new()));
    for n in 0..messages {
        let destination = format!("destination-{}.example", n % 1000);
        let mut message = world::message_from(spool, &format!("sender-{}.example", n % 5000), &destination, 0);
        message.content = Content::from_bytes(*b"Subject: x\r\n\r\nsmall\r\n");
        let mut count = open.0.lock().unwrap();
        while *count >= AT_ONCE {
            count = open.1.wait(count).unwrap();
        }
        *count += 1;
        drop(count);
        let open = open.clone();
        spool.accept(
            message,
            Box::new(move |result| {
                result.unwrap();
                *open.0.lock().unwrap() -= 1;
                open.1.notify_one();
            }),
        );
    }
    println!("filled {messages}: {:.1} s, RSS {} MiB", began.elapsed().as_secs_f64(), rss_mib());
}
