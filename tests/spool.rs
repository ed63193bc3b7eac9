//! The spool from outside: what is acknowledged stays, whatever happens to process, disk and power.

#[path = "support/spool_world.rs"]
mod world;

#[path = "support/spool_sim.rs"]
mod sim;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use weir::base::id::QueueId;
use weir::spool::queue::{Disposition, ItemState, MailQueue, NewMessage, Outcome};
use weir::spool::{Action, Filter, Options, Spool, meters::Meters};

use sim::{Sim, Trouble};
use world::*;

#[test]
fn accepted_mail_is_leased_finished_and_gone() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let id = accept(&spool, message(&spool, "d1", 100)).unwrap();
    let lease = lease_one(&spool, "d1");
    assert_eq!((lease.id, lease.content.len()), (id, 100));
    assert!(spool.lease("d1", SystemTime::now(), 9).is_empty(), "leased twice");
    finish(&spool, lease, delivered()).unwrap();
    assert_eq!(spool.next_due(), None);
    drop(spool);
    let spool = open(directory.path());
    assert_eq!((spool.opening().messages, spool.opening().damage.len()), (0, 0));
}

#[test]
fn what_was_not_finished_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let ids: Vec<_> = (0..50).map(|n| accept(&spool, message(&spool, "d1", 10 * n)).unwrap()).collect();
    let lease = lease_one(&spool, "d1");
    assert_eq!(lease.id, ids[0]);
    let next = SystemTime::now() + Duration::from_secs(3600);
    finish(&spool, lease, Outcome::Deferred { remote: "450 later".into(), next, delay_notified: false }).unwrap();
    drop(spool);
    let spool = open(directory.path());
    let leases = spool.lease("d1", SystemTime::now(), 100);
    assert_eq!(leases.iter().map(|l| l.id).collect::<Vec<_>>(), ids[1..]);
    assert!(leases.iter().all(is_intact));
    let late = spool.lease("d1", next + Duration::from_secs(1), 100);
    assert_eq!((late[0].id, late[0].recipients[0].attempts), (ids[0], 1));
}

// systemd was told that all is well while nothing could be kept any more.
#[test]
fn a_spool_whose_threads_have_ended_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    assert!(spool.is_running());
    spool.close();
    assert!(!spool.is_running());
}

#[test]
fn a_large_message_gets_a_segment_of_its_own_and_is_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 16, ..small() };
    let spool = Spool::open(directory.path(), options.clone(), Meters::unregistered()).unwrap();
    let id = accept(&spool, message(&spool, "d1", 3 << 20)).unwrap();
    drop(spool);
    let spool = Spool::open(directory.path(), options, Meters::unregistered()).unwrap();
    let lease = lease_one(&spool, "d1");
    assert!(lease.id == id && lease.content.is_mapped() && is_intact(&lease));
}

#[test]
fn two_processes_do_not_share_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    let second = Spool::open(directory.path(), small(), Meters::unregistered());
    assert_eq!(second.err().map(|e| e.kind()), Some(std::io::ErrorKind::WouldBlock));
}

#[test]
fn senders_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    for n in 0..20 {
        accept(&spool, message_from(&spool, "flood.example", "d1", n)).unwrap();
    }
    let late = accept(&spool, message_from(&spool, "small.example", "d1", 5)).unwrap();
    let first_two: Vec<_> = spool.lease("d1", SystemTime::now(), 2).iter().map(|l| l.id).collect();
    assert!(first_two.contains(&late));
}

/// What a history did and heard.
#[derive(Default, Debug)]
struct Known {
    sent: HashMap<QueueId, usize>,
    acknowledged: HashSet<QueueId>,
    refused: HashSet<QueueId>,
    /// Told to be delivered, whether or not that was heard to be durable.
    delivered: HashSet<QueueId>,
    surely_delivered: HashSet<QueueId>,
}

const DESTINATIONS: [&str; 3] = ["d1", "d2", "d3"];

fn sim_options() -> Options {
    Options { segment_bytes: 1 << 16, segments_ahead: 1, free_space_min: 0, ..Options::default() }
}

/// Accepts and delivers in small groups until `rounds` are over.
fn live(spool: &Spool, random: &mut fastrand::Rng, rounds: usize, known: &mut Known) {
    for _ in 0..rounds {
        let (sender, answers) = mpsc::channel();
        let count = random.usize(1..5);
        for _ in 0..count {
            let to = &DESTINATIONS[..random.usize(1..=3)];
            let bytes = if random.u8(..8) == 0 { random.usize(..90_000) } else { random.usize(..3000) };
            let message = message_with(spool.next_id(), "example.org", to, bytes);
            let (id, sender) = (message.id, sender.clone());
            known.sent.insert(id, bytes);
            spool.accept(message, Box::new(move |result| sender.send((id, result.is_ok())).unwrap_or(())));
        }
        for _ in 0..count {
            let (id, taken) = answers.recv_timeout(Duration::from_secs(60)).expect("the spool answers");
            if taken {
                known.acknowledged.insert(id)
            } else {
                known.refused.insert(id)
            };
        }
        deliver_some(spool, random, known);
    }
}

fn deliver_some(spool: &Spool, random: &mut fastrand::Rng, known: &mut Known) {
    let destination = DESTINATIONS[random.usize(..3)];
    let most = random.usize(..4);
    for lease in spool.lease(destination, SystemTime::now(), most) {
        assert!(is_intact(&lease), "a wrong body was delivered");
        let id = lease.id;
        if random.u8(..4) == 0 {
            let next = SystemTime::now();
            let remote = "450 later".to_owned();
            let _ = finish(spool, lease, Outcome::Deferred { remote, next, delay_notified: false });
            continue;
        }
        // Only whole messages are told apart below: the others end when all their destinations have.
        let open = spool.why(id).map_or(0, |why| why.items.len());
        let heard = finish(spool, lease, delivered());
        if open == 1 {
            known.delivered.insert(id);
            if heard.is_ok() {
                known.surely_delivered.insert(id);
            }
        }
    }
}

fn judge(spool: &Spool, known: &Known, story: &str) {
    let queued: HashMap<_, _> =
        spool.list(&Filter::default(), QueueId(0), usize::MAX).into_iter().map(|why| (why.id, why)).collect();
    for id in &known.acknowledged {
        let there = queued.contains_key(id);
        assert!(there || known.delivered.contains(id), "{story}: {id} was acknowledged and is lost");
        assert!(!there || !known.surely_delivered.contains(id), "{story}: {id} was finished and lives again");
    }
    for id in queued.keys() {
        let shown = spool.show(*id).expect("it can be read").expect("it is listed");
        assert_eq!(shown.content[..], content(*id, known.sent[id])[..], "{story}: {id} has a wrong body");
    }
}

fn one_history(trouble: Trouble, seed: u64) -> usize {
    let story = format!("seed {seed}, {trouble:?}");
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Sim::new(trouble, seed);
    let mut known = Known::default();
    if let Ok(spool) = Spool::open_in(Arc::new(disk.clone()), sim_options(), Meters::unregistered()) {
        live(&spool, &mut random, 12, &mut known);
    }
    let calls = disk.calls();
    let again = disk.power_cut();
    let spool = Spool::open_in(Arc::new(again.clone()), sim_options(), Meters::unregistered()).expect(&story);
    assert!(spool.opening().damage.is_empty(), "{story}: {:?}", spool.opening().damage);
    judge(&spool, &known, &story);
    if let Trouble::Once(..) = trouble {
        for id in &known.refused {
            assert!(spool.why(*id).is_none(), "{story}: {id} was refused and is there");
        }
    }
    live(&spool, &mut random, 3, &mut known);
    let report = spool.verify().expect("the journal can be read");
    assert!(report.is_clean(), "{story}: {report:?}");
    drop(spool);
    let spool = Spool::open_in(Arc::new(again.power_cut()), sim_options(), Meters::unregistered()).expect(&story);
    judge(&spool, &known, &story);
    calls
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn every_call_may_fail_once() {
    let calls = one_history(Trouble::None, 1);
    assert!(calls > 50);
    for at in 1..=calls + 5 {
        one_history(Trouble::Once(at, EIO), at as u64);
        one_history(Trouble::Once(at, ENOSPC), 1000 + at as u64);
    }
}

#[test]
fn the_power_may_go_at_every_call() {
    let calls = one_history(Trouble::None, 1);
    for at in 1..=calls + 5 {
        one_history(Trouble::Forever(at, EIO), at as u64);
    }
}

#[test]
fn seeded_histories_hold() {
    let from = std::env::var("SPOOL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(10_000);
    let rounds: u64 = std::env::var("SPOOL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    for seed in from..from + rounds {
        let at = fastrand::Rng::with_seed(seed).usize(1..120);
        println!("seed {seed}");
        one_history(Trouble::Once(at, EIO), seed);
        one_history(Trouble::Forever(at, ENOSPC), seed);
    }
}

#[test]
fn a_flipped_bit_costs_what_it_touches_and_no_more() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Sim::new(Trouble::None, seed);
        let mut known = Known::default();
        let spool = Spool::open_in(Arc::new(disk.clone()), sim_options(), Meters::unregistered()).unwrap();
        live(&spool, &mut random, 8, &mut known);
        let before: HashSet<_> = spool.list(&Filter::default(), QueueId(0), 999).iter().map(|why| why.id).collect();
        drop(spool);
        let at = disk.flip(".seg", &mut random);
        let story = format!("seed {seed}, byte {at}");
        let spool = Spool::open_in(Arc::new(disk), sim_options(), Meters::unregistered()).expect(&story);
        let after: HashSet<_> = spool.list(&Filter::default(), QueueId(0), 999).iter().map(|why| why.id).collect();
        assert!(before.difference(&after).count() <= 1, "{story}: one bit cost several messages");
        for destination in DESTINATIONS {
            let leases = spool.lease(destination, SystemTime::now() + Duration::from_secs(9), 999);
            assert!(leases.iter().all(is_intact), "{story}: a wrong body");
            leases.into_iter().for_each(|lease| spool.release(lease));
        }
        let audit = spool.audit(SystemTime::now(), SystemTime::now());
        assert!(audit.balanced, "{story}: {audit:?}");
    }
}

#[test]
fn acts_on_sets_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    for n in 0..30 {
        accept(&spool, message_from(&spool, "a.example", ["d1", "d2"][n % 2], 50)).unwrap();
    }
    let to = |destination: &str| Filter { destination: Some(destination.into()), ..Filter::default() };
    assert_eq!(spool.act(&to("d1"), &Action::Hold("looks odd".into())), Ok(15));
    assert_eq!(spool.act(&to("d2"), &Action::Drop), Ok(15));
    drop(spool);
    let spool = open(directory.path());
    assert!(spool.lease("d1", SystemTime::now(), 99).is_empty());
    let held = spool.list(&Filter { states: vec![ItemState::Held], ..Filter::default() }, QueueId(0), 99);
    assert_eq!((held.len(), held[0].items[0].reason.as_str()), (15, "looks odd"));
    assert_eq!(spool.act(&Filter { sender_domain: Some("a.example".into()), ..to("d1") }, &Action::Release), Ok(15));
    assert_eq!(spool.lease("d1", SystemTime::now(), 99).len(), 15);
    let audit = spool.audit(SystemTime::UNIX_EPOCH, SystemTime::now());
    assert_eq!((audit.accepted, audit.dropped, audit.closing, audit.balanced), (30, 15, 15, true));
    assert!(spool.verify().unwrap().is_clean());
}

#[test]
fn quarantine_hold_and_discard_are_dispositions() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let with = |disposition| NewMessage { disposition, ..message(&spool, "d1", 10) };
    let spam = accept(&spool, with(Disposition::Quarantine("score 9".into()))).unwrap();
    accept(&spool, with(Disposition::Hold("later".into()))).unwrap();
    accept(&spool, with(Disposition::Discard("unwanted".into()))).unwrap();
    assert_eq!(spool.counts(), [0, 0, 0, 1, 1]);
    drop(spool);
    let spool = open(directory.path());
    assert!(spool.opening().from_checkpoint, "a clean stop leaves an index to start from");
    assert_eq!(spool.counts(), [0, 0, 0, 1, 1]);
    let audit = spool.audit(SystemTime::UNIX_EPOCH, SystemTime::now());
    assert_eq!((audit.accepted, audit.discarded, audit.quarantined_now, audit.balanced), (3, 1, 1, true));
    let quarantined = Filter { states: vec![ItemState::Quarantined], ..Filter::default() };
    assert_eq!(spool.act(&quarantined, &Action::Release), Ok(1));
    assert_eq!(lease_one(&spool, "d1").id, spam);
}

/// The clock was a day or ten years ahead when these times were written, and is right again at the start.
#[test]
fn times_of_a_wrong_clock_hold_up_nothing() {
    const HOUR: Duration = Duration::from_secs(3600);
    let directory = tempfile::tempdir().unwrap();
    let options = || Options { delay_max: 8 * HOUR, ..small() };
    let spool = Spool::open(directory.path(), options(), Meters::unregistered()).unwrap();
    let tried = accept(&spool, message(&spool, "d1", 10)).unwrap();
    let next = SystemTime::now() + 10 * 365 * 24 * HOUR;
    let outcome = Outcome::Deferred { remote: "450 later".into(), next, delay_notified: false };
    finish(&spool, lease_one(&spool, "d1"), outcome).unwrap();
    let ahead = QueueId(tried.0 + ((24 * HOUR.as_millis() as u64) << 20));
    accept(&spool, message_with(ahead, "example.org", &["d1"], 10)).unwrap();
    drop(spool);
    let spool = Spool::open(directory.path(), options(), Meters::unregistered()).unwrap();
    let later = accept(&spool, message(&spool, "d1", 10)).unwrap();
    assert!(later > ahead, "ids go on");
    let leased = |at: SystemTime| spool.lease("d1", at, 9).into_iter().map(|lease| lease.id).collect::<HashSet<_>>();
    assert_eq!(leased(SystemTime::now()), HashSet::from([ahead, later]), "what was never tried is due");
    assert_eq!(leased(SystemTime::now() + 9 * HOUR), HashSet::from([tried]), "and what was, within its schedule");
    assert!(spool.verify().unwrap().is_clean());
}

/// Retention is looked at when the spool is opened and each minute: what is older than `quarantine_keep` goes, and only that.
#[test]
fn quarantined_mail_goes_when_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let keeping = |keep: Duration| {
        let options = Options { quarantine_keep: keep, quarantine_rest: Duration::ZERO, ..small() };
        Spool::open(directory.path(), options, Meters::unregistered()).unwrap()
    };
    let with = |spool: &Spool, disposition| NewMessage { disposition, ..message(spool, "d1", 10) };
    let spool = keeping(Duration::from_secs(3600));
    accept(&spool, with(&spool, Disposition::Quarantine("score 9".into()))).unwrap();
    accept(&spool, with(&spool, Disposition::Hold("by hand".into()))).unwrap();
    let queued = accept(&spool, message(&spool, "d1", 10)).unwrap();
    drop(spool);
    let audit = |spool: &Spool| spool.audit(SystemTime::UNIX_EPOCH, SystemTime::now());
    let spool = keeping(Duration::from_secs(3600));
    assert_eq!(audit(&spool).quarantined_now, 1);
    drop(spool);
    let spool = keeping(Duration::ZERO);
    let began = Instant::now();
    while audit(&spool).quarantined_now > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is kept for ever");
        std::thread::yield_now();
    }
    assert!(audit(&spool).balanced);
    assert_eq!(lease_one(&spool, "d1").id, queued, "other mail stays");
    let held = Filter { states: vec![ItemState::Held], ..Filter::default() };
    assert_eq!(spool.act(&held, &Action::Release), Ok(1), "what an operator holds has no time");
}

#[test]
fn a_bounce_and_the_end_of_its_message_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    accept(&spool, message(&spool, "d1", 10)).unwrap();
    let bounce = message(&spool, "back", 20);
    let (id, lease) = (bounce.id, lease_one(&spool, "d1"));
    let (sender, answer) = mpsc::channel();
    let outcome = Outcome::Bounced { remote: "550 no".into() };
    spool.finish(lease, vec![(0, outcome)], vec![bounce], Box::new(move |r| sender.send(r).unwrap()));
    assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(Ok(())));
    drop(spool);
    let spool = open(directory.path());
    assert_eq!(spool.list(&Filter::default(), QueueId(0), 9).iter().map(|why| why.id).collect::<Vec<_>>(), [id]);
}

#[test]
fn the_index_is_believed_only_if_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let ids: HashSet<_> = (0..300).map(|_| accept(&spool, message(&spool, "d1", 30)).unwrap()).collect();
    drop(spool);
    let listed = |spool: &Spool| -> HashSet<_> {
        spool.list(&Filter::default(), QueueId(0), 999).iter().map(|why| why.id).collect()
    };
    let spool = open(directory.path());
    assert!(spool.opening().from_checkpoint && listed(&spool) == ids && spool.verify().unwrap().is_clean());
    drop(spool);
    assert!(weir::spool::verify_stopped(directory.path()).unwrap().is_clean());
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    let spool = open(directory.path());
    assert!(!spool.opening().from_checkpoint && listed(&spool) == ids, "an empty index was believed");
}

/// Not a test by itself: the process that `kill_minus_nine_loses_nothing` kills. Says what was acknowledged, line by line.
#[test]
fn child_under_load() {
    let Some(directory) = std::env::var_os("SPOOL_CHILD") else { return };
    let spool = open(directory.as_ref());
    let say = |word: &str, id: QueueId| {
        // One write, behind the harness's back, so that a line is whole or absent.
        std::io::stdout().lock().write_all(format!("\n{word} {id}\n").as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
    };
    std::thread::scope(|scope| {
        for n in 0..4usize {
            let (spool, say) = (&spool, &say);
            scope.spawn(move || {
                loop {
                    say("kept", accept(spool, message(spool, DESTINATIONS[n % 3], 700 * n)).unwrap());
                    for lease in spool.lease(DESTINATIONS[n % 3], SystemTime::now(), n % 2) {
                        let id = lease.id;
                        say("trying", id);
                        finish(spool, lease, delivered()).unwrap();
                        say("over", id);
                    }
                }
            });
        }
    });
}

/// `SPOOL_KILLS=100` for the long form.
#[test]
fn kill_minus_nine_loses_nothing() {
    let rounds = std::env::var("SPOOL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8);
    let directory = tempfile::tempdir().unwrap();
    let (mut kept, mut tried, mut over) = (HashSet::new(), HashSet::new(), HashSet::new());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_under_load", "--nocapture"])
            .env("SPOOL_CHILD", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(fastrand::u64(150..500));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut killed = false;
        while output.read_line(&mut line).unwrap() > 0 {
            match line.trim().split_once(' ').map(|(word, id)| (word, id.parse::<QueueId>())) {
                Some(("kept", Ok(id))) => drop(kept.insert(id)),
                Some(("trying", Ok(id))) => drop(tried.insert(id)),
                Some(("over", Ok(id))) => drop(over.insert(id)),
                _ => {}
            }
            line.clear();
            if !killed && Instant::now() > until {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        let spool = open(directory.path());
        assert!(spool.opening().damage.is_empty(), "round {round}: {:?}", spool.opening());
        let there: HashSet<_> = spool.list(&Filter::default(), QueueId(0), usize::MAX).iter().map(|w| w.id).collect();
        let lost = kept.iter().filter(|id| !there.contains(id) && !tried.contains(id)).count();
        assert_eq!((lost, over.intersection(&there).count()), (0, 0), "round {round}: lost, alive again");
        for destination in DESTINATIONS {
            assert!(spool.lease(destination, SystemTime::now(), 50).iter().all(is_intact), "round {round}");
        }
        let report = spool.verify().unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}");
    }
    assert!(kept.len() > 100, "the child did something: {}", kept.len());
}
