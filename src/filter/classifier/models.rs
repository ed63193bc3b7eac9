//! The models that judge: one for all mail, and one beside it for each domain that has taught its own. I/O: their files.
//!
//! A domain's model is asked beside the global one and its word counts the more, the more of both kinds it has learned: a domain
//! that taught nothing is judged as everybody. What is taught for a domain teaches the global model too. Models of
//! domains are bounded in number and size; a domain beyond that teaches the global model only.
//!
//! Judging takes a read lock for the time of some thousand additions; nothing here waits for the disk with a lock held.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::file::{self, ModelError};
use super::{Classifier, Features, Label, Learned, Opinion};
use crate::config::settings;

/// The folder of the domains' models, beside the global one's file.
const DOMAINS_FOLDER: &str = "classifier.d";
/// A domain's model is this many times smaller than the global one: it knows one house's mail.
const DOMAIN_SHRINK: usize = 4;
/// Ending of a domain's file.
const ENDING: &str = ".model";

type Domains = HashMap<String, Arc<RwLock<Classifier>>>;

/// All models.
pub struct Models {
    global: RwLock<Classifier>,
    domains: RwLock<Domains>,
    /// Where the global model is kept; nothing: nowhere.
    path: Option<PathBuf>,
    size_bytes: usize,
    /// Domains that may have a model of their own.
    domains_max: usize,
    /// What has learned since it was saved; nothing stands for the global model.
    unsaved: Mutex<BTreeSet<Option<String>>>,
}

impl Models {
    /// Reads the global model from `path` and the domains' from the folder beside it. A global one that is not there begins as the
    /// settings say, a domain's empty; without a path all are.
    /// # Errors
    /// If a file is damaged or of another version.
    pub fn open(settings: &settings::Classifier, path: Option<&Path>) -> Result<Self, ModelError> {
        let size_bytes = settings.size as usize;
        let global = match path {
            Some(path) => file::load(path)?.unwrap_or_else(|| Classifier::begin(settings)),
            None => Classifier::sized(size_bytes),
        };
        let domains_max = if settings.per_domain { settings.domains_max as usize } else { 0 };
        let domains = match path {
            Some(path) if domains_max > 0 => load_domains(&folder_of(path), domains_max)?,
            _ => Domains::new(),
        };
        Ok(Models {
            global: RwLock::new(global),
            domains: RwLock::new(domains),
            path: path.map(Path::to_owned),
            size_bytes,
            domains_max,
            unsaved: Mutex::default(),
        })
    }

    /// Judges mail for `domain`; nothing if its recipients are of several, or unknown.
    pub fn judge(&self, features: &Features, domain: Option<&str>) -> Opinion {
        let own = domain.and_then(|domain| self.domains.read().get(domain).cloned());
        let global = self.global.read();
        match own {
            Some(own) => global.judge_beside(&own.read(), features),
            None => global.judge(features),
        }
    }

    /// Teaches the global model and `domain`'s.
    pub fn learn(&self, label: Label, features: &Features, domain: Option<&str>) {
        self.global.write().learn(features, label);
        self.unsaved.lock().insert(None);
        if let Some(domain) = domain.filter(|domain| is_file_name(domain))
            && let Some(own) = self.own(domain)
        {
            own.write().learn(features, label);
            self.unsaved.lock().insert(Some(domain.to_owned()));
        }
    }

    fn own(&self, domain: &str) -> Option<Arc<RwLock<Classifier>>> {
        if let Some(own) = self.domains.read().get(domain) {
            return Some(own.clone());
        }
        let mut domains = self.domains.write();
        if domains.len() >= self.domains_max && !domains.contains_key(domain) {
            return None;
        }
        let new = || Arc::new(RwLock::new(Classifier::sized(self.size_bytes / DOMAIN_SHRINK)));
        Some(domains.entry(domain.to_owned()).or_insert_with(new).clone())
    }

    /// Messages that the global model has learned.
    pub fn learned(&self) -> Learned {
        self.global.read().learned()
    }

    /// Writes what has learned since the last time.
    /// # Errors
    /// The first file that can't be written; its old version still stands, and the next call tries again.
    pub fn save(&self) -> Result<(), ModelError> {
        let Some(path) = &self.path else { return Ok(()) };
        let unsaved = std::mem::take(&mut *self.unsaved.lock());
        let mut result = Ok(());
        for name in unsaved {
            // The copy is made under the lock, the file is not: learning must not wait for the disk.
            let saved = match &name {
                None => file::save(&self.global.read().clone(), path),
                Some(domain) => self.save_domain(&folder_of(path), domain),
            };
            if let Err(error) = saved {
                self.unsaved.lock().insert(name);
                result = result.and(Err(error));
            }
        }
        result
    }

    fn save_domain(&self, folder: &Path, domain: &str) -> Result<(), ModelError> {
        let Some(own) = self.domains.read().get(domain).cloned() else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|error| ModelError::Io(folder.to_owned(), error))?;
        let copy = own.read().clone();
        file::save(&copy, &folder.join(format!("{domain}{ENDING}")))
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.with_file_name(DOMAINS_FOLDER)
}

/// Domains become file names; what can't be one has no model of its own.
fn is_file_name(domain: &str) -> bool {
    const BYTES_MAX: usize = 200;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    (1..=BYTES_MAX).contains(&domain.len()) && !domain.starts_with('.') && domain.bytes().all(plain)
}

fn load_domains(folder: &Path, most: usize) -> Result<Domains, ModelError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Domains::new()),
        other => other.map_err(|error| ModelError::Io(folder.to_owned(), error))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(ENDING)?.to_owned())).collect();
    names.sort();
    let mut domains = Domains::new();
    for name in names.into_iter().filter(|name| is_file_name(name)).take(most) {
        if let Some(model) = file::load(&folder.join(format!("{name}{ENDING}")))? {
            domains.insert(name, Arc::new(RwLock::new(model)));
        }
    }
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::classifier::features;
    use crate::filter::message::View;

    fn settings(per_domain: bool) -> settings::Classifier {
        settings::Classifier {
            size: 1 << 20,
            seed: false,
            per_domain,
            domains_max: 1,
            junk: String::new(),
            junk_every: std::time::Duration::from_secs(60),
        }
    }

    fn features(text: &str) -> Features {
        features::extract(&View::read(format!("Subject: {text}\n\n{text}\n").as_bytes()))
    }

    fn teach(models: &Models, domain: &str, spam: &str, ham: &str) {
        for number in 0..150 {
            models.learn(Label::Spam, &features(&format!("{spam} {number}")), Some(domain));
            models.learn(Label::Ham, &features(&format!("{ham} {number}")), Some(domain));
        }
    }

    #[test]
    fn a_domain_has_a_taste_of_its_own_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classifier.model");
        let models = Models::open(&settings(true), Some(&path)).unwrap();
        teach(&models, "a.example", "cheap casino chips", "minutes of the board");
        teach(&models, "b.example", "minutes of the board", "cheap casino chips");
        let casino = features("cheap casino chips");
        let ours = models.judge(&casino, Some("a.example")).score;
        // There is place for one domain; the second one's lessons went to the global model only.
        assert_eq!(models.judge(&casino, Some("b.example")), models.judge(&casino, None));
        assert!(ours > models.judge(&casino, None).score);
        models.save().unwrap();
        let again = Models::open(&settings(true), Some(&path)).unwrap();
        assert_eq!(again.judge(&casino, Some("a.example")).score, ours);
        let global = Models::open(&settings(false), Some(&path)).unwrap();
        assert_eq!(global.judge(&casino, Some("a.example")), models.judge(&casino, None));
    }

    #[test]
    fn names_that_lead_elsewhere_get_no_file() {
        assert!(is_file_name("mx-1.example.org"));
        for name in ["", "..", ".hidden", "a/b", "A.example", "a\0b"] {
            assert!(!is_file_name(name), "{name:?}");
        }
    }
}
