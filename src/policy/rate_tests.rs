//! What rates promise, from outside the module. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::rates::{RateFacts, Rates};
use crate::config::settings::{Rate, RateAction, RateCount, RateKey, RateWindow};

fn rate(key: RateKey, count: RateCount, limit: u64, action: RateAction) -> Rate {
    Rate {
        key: vec![key],
        count,
        windows: vec![RateWindow { limit, period: Duration::from_secs(3600) }],
        action,
        line: Default::default(),
    }
}

fn facts(login: &str) -> RateFacts<'_> {
    RateFacts {
        ip: "192.0.2.1".parse().unwrap(),
        listener: "sub",
        helo: "h",
        login: Some(login),
        sender: None,
        recipient: None,
    }
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn one_login_at_its_limit_waits_and_another_does_not() {
    let rates = Rates::new(&[rate(RateKey::Login, RateCount::Recipients, 3, RateAction::Defer)]);
    for _ in 0..3 {
        assert!(rates.charge(RateCount::Recipients, &facts("alice"), 1, start()).is_empty());
    }
    let hits = rates.charge(RateCount::Recipients, &facts("alice"), 1, start());
    assert_eq!(hits[0].decision().reply.unwrap().to_string().split(" Rate").next(), Some("450 4.7.1"));
    assert!(rates.charge(RateCount::Recipients, &facts("bob"), 1, start()).is_empty());
    assert!(rates.charge(RateCount::Messages, &facts("alice"), 1, start()).is_empty());
    let later = start() + hits[0].retry_after;
    assert!(rates.charge(RateCount::Recipients, &facts("alice"), 1, later).is_empty(), "{:?}", hits[0].retry_after);
}

#[test]
fn what_one_rate_refuses_no_other_counts() {
    let rates = Rates::new(&[
        rate(RateKey::Login, RateCount::Messages, 100, RateAction::Defer),
        rate(RateKey::Ip, RateCount::Messages, 1, RateAction::Reject),
    ]);
    assert!(rates.charge(RateCount::Messages, &facts("alice"), 1, start()).is_empty());
    for _ in 0..50 {
        assert_eq!(rates.charge(RateCount::Messages, &facts("alice"), 1, start())[0].action, RateAction::Reject);
    }
    let list = rates.list(Some("alice"), 10, start());
    assert_eq!((list.len(), list[0].windows[0].0), (1, 1));
}

#[test]
fn alerts_and_holds_let_mail_pass_and_go_on_counting() {
    let rates = Rates::new(&[rate(RateKey::Login, RateCount::Messages, 1, RateAction::Hold)]);
    assert!(rates.charge(RateCount::Messages, &facts("alice"), 1, start()).is_empty());
    let hits = rates.charge(RateCount::Messages, &facts("alice"), 1, start());
    assert!(!hits[0].refuses() && hits[0].decision().is_allowed());
    assert_eq!(rates.list(None, 10, start())[0].windows[0].0, 2);
}

#[test]
fn counts_survive_a_restart_and_a_reset_forgets_them() {
    let rules = [rate(RateKey::Login, RateCount::Messages, 2, RateAction::Defer)];
    let rates = Rates::new(&rules);
    rates.charge(RateCount::Messages, &facts("alice"), 2, start());
    let bytes = rates.snapshot(start());
    let other = Rates::new(&rules);
    assert_eq!(other.restore(&bytes, start()), Ok(1));
    assert_eq!(other.charge(RateCount::Messages, &facts("alice"), 1, start()).len(), 1);
    assert_eq!(other.reset("alice"), 1);
    assert!(other.charge(RateCount::Messages, &facts("alice"), 1, start()).is_empty());
    assert_eq!(other.restore(&bytes, start() + Duration::from_secs(7200)), Ok(0), "it counts no more");
    for cut in 0..bytes.len() {
        assert!(other.restore(&bytes[..cut], start()).is_err());
    }
    assert_eq!(rates.reconfigured(&rules, start()).len(), 1);
}

#[test]
fn a_flood_of_names_neither_grows_nor_frees_who_is_at_the_limit() {
    const ENTRIES: usize = 64 * 64;
    let rules = [rate(RateKey::Login, RateCount::Messages, 50, RateAction::Defer)];
    let rates = Rates::with_entries_max(&rules, ENTRIES);
    rates.charge(RateCount::Messages, &facts("alice"), 50, start());
    for number in 0..10 * ENTRIES {
        rates.charge(RateCount::Messages, &facts(&format!("n{number}")), 1, start());
    }
    assert!(rates.len() <= ENTRIES);
    assert_eq!(rates.charge(RateCount::Messages, &facts("alice"), 1, start()).len(), 1);
}
