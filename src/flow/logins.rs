//! Failed logins, counted together for SMTP and POP3 by the rates that count `auth_failures`. Pure, but for the clock.

use std::net::IpAddr;
use std::time::SystemTime;

use super::house::House;
use crate::config::settings::RateCount;
use crate::policy::decision::Decision;
use crate::policy::rates::RateFacts;
use crate::store::server::LoginGuard;

/// What rates with `key = ["listener"]` call the store's ports.
const STORE_LISTENER: &str = "store";

impl House {
    /// The refusal of a login that need not be looked at, because too many failed.
    pub(super) fn refused_for_failures(&self, facts: &RateFacts<'_>) -> Option<Decision> {
        let hit = self.rates.load().would_refuse(RateCount::AuthFailures, facts, 1, SystemTime::now());
        hit.map(|hit| hit.decision())
    }

    /// Counts a login that failed.
    pub(super) fn login_failed(&self, facts: &RateFacts<'_>) {
        self.meters.auth_failures.inc();
        self.charge(RateCount::AuthFailures, facts, 1);
    }
}

impl LoginGuard for House {
    fn may_try(&self, ip: IpAddr, login: &str) -> bool {
        self.refused_for_failures(&facts_of_store(ip, login)).is_none()
    }

    fn failed(&self, ip: IpAddr, login: &str) {
        self.login_failed(&facts_of_store(ip, login));
    }
}

fn facts_of_store(ip: IpAddr, login: &str) -> RateFacts<'_> {
    RateFacts { ip, listener: STORE_LISTENER, helo: "", login: Some(login), sender: None, recipient: None }
}
