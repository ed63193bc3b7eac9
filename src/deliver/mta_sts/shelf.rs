//! MTA-STS policies that were fetched, kept over restarts. I/O: one small file a domain.
//!
//! An attacker who can take record and web server away must not be able to take a policy back before its time (RFC 8461 §10.2),
//! so what was learned outlives the process. Bounded; the policy that ends first makes room. A file that can't be read is left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use parking_lot::Mutex;

use super::policy::{POLICY_BYTES_MAX, Policy};

use crate::base::unix;

/// Policies kept; more domains than publish one at all, by the surveys of 2024.
const POLICIES_MAX: usize = 20_000;
/// Lines of a policy that a report may quote.
const LINES_MAX: usize = 50;

/// A policy with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsPolicy {
    /// `id` of the record that led to it.
    pub id: String,
    /// What it says.
    pub policy: Policy,
    /// Its lines as they were served.
    pub lines: Vec<String>,
    /// When it was fetched.
    pub fetched: SystemTime,
}

impl StsPolicy {
    /// Reads a policy that was fetched at `fetched`; nothing if it is none.
    pub fn new(id: &str, text: &str, fetched: SystemTime) -> Option<Self> {
        let policy = Policy::parse(text)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).take(LINES_MAX).map(str::to_owned).collect();
        Some(StsPolicy { id: id.to_owned(), policy, lines, fetched })
    }

    /// Until when it binds.
    pub fn until(&self) -> SystemTime {
        self.fetched + self.policy.max_age
    }

    /// More than half its time is over, or the clock was set back behind its beginning.
    pub fn is_half_over(&self, now: SystemTime) -> bool {
        now.duration_since(self.fetched).map_or(true, |age| age > self.policy.max_age / 2)
    }
}

/// The policies of all domains.
pub struct Shelf {
    directory: PathBuf,
    kept: Mutex<HashMap<String, Arc<StsPolicy>>>,
}

impl Shelf {
    /// Reads what was kept and still binds at `now`; what does not is deleted.
    pub fn open(directory: &Path, now: SystemTime) -> Self {
        let mut kept = HashMap::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Some(domain) = entry.file_name().to_str().map(str::to_owned).filter(|name| is_domain(name)) else {
                continue;
            };
            match read(&entry.path()).filter(|policy| policy.until() > now) {
                Some(policy) if kept.len() < POLICIES_MAX => drop(kept.insert(domain, Arc::new(policy))),
                _ => drop(fs::remove_file(entry.path())),
            }
        }
        Shelf { directory: directory.to_owned(), kept: Mutex::new(kept) }
    }

    /// What binds at `now`.
    pub fn get(&self, domain: &str, now: SystemTime) -> Option<Arc<StsPolicy>> {
        self.kept.lock().get(domain).filter(|policy| policy.until() > now).cloned()
    }

    /// Keeps a policy, in memory first.
    /// # Errors
    /// When it can't be written; it holds until the process ends all the same.
    pub fn put(&self, domain: &str, policy: Arc<StsPolicy>, now: SystemTime) -> io::Result<()> {
        let evicted = self.insert(domain, policy.clone(), now);
        for gone in evicted {
            let _ = fs::remove_file(self.directory.join(gone));
        }
        if !is_domain(domain) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let secs = unix::secs(policy.fetched);
        let text = format!("id: {}\nfetched: {secs}\n{}\n", policy.id, policy.lines.join("\n"));
        // No name that is a domain begins with an underscore and two dots.
        let beside = self.directory.join(format!("_..{domain}"));
        fs::write(&beside, text)?;
        fs::rename(&beside, self.directory.join(domain))
    }

    /// Gives the domains that had to go.
    fn insert(&self, domain: &str, policy: Arc<StsPolicy>, now: SystemTime) -> Vec<String> {
        let mut kept = self.kept.lock();
        let mut gone = Vec::new();
        if kept.len() >= POLICIES_MAX && !kept.contains_key(domain) {
            gone.extend(kept.extract_if(|_, policy| policy.until() <= now).map(|(domain, _)| domain));
            let first = kept.iter().min_by_key(|(_, policy)| policy.until()).map(|(domain, _)| domain.clone());
            if let Some(first) = first.filter(|_| gone.is_empty()) {
                kept.remove(&first);
                gone.push(first);
            }
        }
        kept.insert(domain.to_owned(), policy);
        gone
    }
}

/// A name that may be a file's: no slash, no leading dot.
fn is_domain(name: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=253).contains(&name.len()) && !name.starts_with('.') && !name.contains("..") && name.bytes().all(ordinary)
}

fn read(path: &Path) -> Option<StsPolicy> {
    if fs::metadata(path).ok()?.len() > 2 * POLICY_BYTES_MAX as u64 {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let (id, rest) = text.strip_prefix("id: ")?.split_once('\n')?;
    let (secs, rest) = rest.strip_prefix("fetched: ")?.split_once('\n')?;
    let fetched = UNIX_EPOCH.checked_add(Duration::from_secs(secs.parse().ok()?))?;
    StsPolicy::new(id, rest, fetched)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 1000\n";

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn a_policy_outlives_the_process_until_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let policy = Arc::new(StsPolicy::new("7", TEXT, at(100)).unwrap());
        let shelf = Shelf::open(&folder.path().join("sts"), at(100));
        shelf.put("a.example", policy.clone(), at(100)).unwrap();
        let again = Shelf::open(&folder.path().join("sts"), at(1099));
        assert_eq!(again.get("a.example", at(1099)).as_deref(), Some(&*policy));
        assert_eq!(again.get("a.example", at(1100)), None, "its time is over");
        assert!(!policy.is_half_over(at(600)) && policy.is_half_over(at(601)) && policy.is_half_over(at(99)));
        let late = Shelf::open(&folder.path().join("sts"), at(1100));
        assert!(late.get("a.example", at(0)).is_none(), "what is over is not read again");
    }

    #[test]
    fn no_domain_leaves_the_folder() {
        for name in ["../x", "a/b", ".x", "a..b", "", "A.example", "a b"] {
            assert!(!is_domain(name), "{name}");
        }
        assert!(is_domain("xn--bcher-kva.example") && is_domain("_x.example"));
    }

    #[test]
    fn damage_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.example", "id: x"), ("b.example", "id: 1\nfetched: 99999999999999999999\n")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let shelf = Shelf::open(folder.path(), at(1));
        assert!(shelf.get("a.example", at(1)).is_none() && shelf.get("b.example", at(1)).is_none());
    }
}
