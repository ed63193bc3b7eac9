//! Once a day, and every few seconds what must not be lost. I/O: the clock; a blocking thread for the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::base::unix::now_secs;
use crate::config::settings::Reports as Settings;
use crate::flow::house::House;
use crate::verify::reports::DAY_SECS;

/// How often rows are written down: a crash costs at most so much.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// What could not be sent is tried again after this.
const RETRY_SECS: u64 = 15 * 60;

/// Keeps and sends until `stop` is there.
pub async fn run(house: Arc<House>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut tried_at = 0;
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(KEEP_EVERY) => {}
        }
        let keeper = house.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || keeper.reports.keep()).await {
            tracing::error!(%error, "rows of reports were not written down");
        }
        let (now, snapshot) = (now_secs(), house.snapshot.load_full());
        let waits = house.reports.dmarc.lock().is_due(now) || house.reports.tls.lock().is_due(now);
        let config = &snapshot.config;
        if waits && tried_at + RETRY_SECS <= now && is_time(now, &config.reports, &config.hostname) {
            tried_at = now;
            house.send_reports(false).await;
        }
    }
}

/// True from `daily_at` on, and from this host's and this day's share of the jitter.
fn is_time(now: u64, settings: &Settings, hostname: &str) -> bool {
    if settings.from.is_none() {
        return false;
    }
    let day = now / DAY_SECS;
    let seed = u64::from(crc32c::crc32c(format!("{hostname} {day}").as_bytes()));
    let jitter = settings.jitter.as_secs();
    let late = if jitter == 0 { 0 } else { seed % jitter };
    now % DAY_SECS >= (settings.daily_at.as_secs() + late).min(DAY_SECS - 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_hour_comes_once_a_day_and_not_for_all_at_once() {
        let mut settings = Config::default_for(Path::new("/d")).reports;
        let day = 20_000 * DAY_SECS;
        assert!(!is_time(day + DAY_SECS - 1, &settings, "a"), "nobody reports");
        settings.from = Some(crate::wire::address::Mailbox::postmaster("a.example"));
        assert!(!is_time(day + 29 * 60, &settings, "a") && is_time(day + 91 * 60, &settings, "a"));
        let second = |host: &str| (0..DAY_SECS).find(|second| is_time(day + second, &settings, host)).unwrap();
        assert_ne!(second("a"), second("b"));
        settings.jitter = Duration::ZERO;
        assert_eq!((0..DAY_SECS).find(|second| is_time(day + second, &settings, "a")), Some(30 * 60));
    }
}
