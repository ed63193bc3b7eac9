//! The spool from outside: what is acknowledged stays, whatever happens to process, disk and power.

#[path = "support/spool_world.rs"]
mod world;

use std::time::{Duration, SystemTime};

use weir::spool::queue::{ItemState, MailQueue, Outcome};
use weir::spool::{Options, Spool, meters::Meters};

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
    let _ = ItemState::ALL;
}
