//! The one entry of this room: content and facts in, a verdict out. Pure but for reading rules and model at the start.
//!
//! [`Engine::judge`] asks no network and takes no lock for longer than a copy of a pointer or one message's learning; it is
//! CPU work of 0.1 to some milliseconds and belongs on the rayon pool. Rules and model can be exchanged while it runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use super::classifier::file::{self, ModelError};
use super::classifier::{Classifier, Learned, Opinion, features};
use super::message::View;
use super::verdict::{Points, Symbol, Thresholds, Verdict};
use crate::config::settings::Filter;

/// What is known about a message beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What it said in EHLO.
    pub helo: String,
    /// Its verified host name.
    pub host: Option<String>,
    /// MAIL FROM without brackets; nothing for the null reverse-path or if unknown.
    pub reverse_path: Option<String>,
    /// All RCPT TO.
    pub recipients: Vec<String>,
    /// The client authenticated or is in a trusted network.
    pub trusted: bool,
    /// Symbols that other rooms found, such as the results of SPF, DKIM and DMARC; they join the verdict as they are.
    pub symbols: Vec<Symbol>,
}

/// Points of a limit that was exceeded: honest mail does not, but it alone does not convict.
const LIMIT_POINTS: f64 = 1.0;

/// Judges messages.
pub struct Engine {
    thresholds: ArcSwap<Thresholds>,
    model: RwLock<Classifier>,
    model_path: Option<PathBuf>,
}

impl Engine {
    /// An engine with the rules that `filter` names and the model at `model_path`, if there is one.
    /// # Errors
    /// If the model is damaged. Rules that can't be loaded are listed by [`Engine::problems`] and left out.
    pub fn open(filter: &Filter, model_path: Option<&Path>) -> Result<Self, ModelError> {
        let model = model_path.map(file::load).transpose()?.flatten().unwrap_or_default();
        Ok(Engine {
            thresholds: ArcSwap::from_pointee(Thresholds::from(filter)),
            model: RwLock::new(model),
            model_path: model_path.map(Path::to_owned),
        })
    }

    /// Takes over rules and thresholds of a new configuration.
    pub fn reload(&self, filter: &Filter) {
        self.thresholds.store(Arc::new(Thresholds::from(filter)));
    }

    /// The verdict on one message.
    pub fn judge(&self, content: &[u8], facts: &Facts) -> Verdict {
        let view = View::read(content);
        let opinion = self.model.read().judge(&features::extract(&view));
        let mut symbols = facts.symbols.clone();
        symbols.extend(classifier_symbol(&opinion));
        symbols.extend(view.budget.exceeded().map(|row| Symbol {
            name: row.symbol.to_owned(),
            points: Points::new(LIMIT_POINTS),
            description: format!("Over the limit of {}", row.default),
            evidence: None,
            shadow: false,
        }));
        Verdict::new(symbols, **self.thresholds.load(), Some(opinion.probability))
    }

    /// Teaches the classifier what a message was.
    pub fn learn(&self, content: &[u8], spam: bool) {
        let features = features::extract(&View::read(content));
        self.model.write().learn(&features, spam);
    }

    /// Messages learned.
    pub fn learned(&self) -> Learned {
        self.model.read().learned()
    }

    /// Writes the model to its file, if it has one.
    /// # Errors
    /// If that fails; the old file still stands.
    pub fn save(&self) -> Result<(), ModelError> {
        let Some(path) = &self.model_path else { return Ok(()) };
        // The copy is 12 MiB; learning must not wait for the disk.
        let copy = self.model.read().clone();
        file::save(&copy, path)
    }
}

/// The classifier's symbol; nothing if it has no opinion worth a tenth of a point.
fn classifier_symbol(opinion: &Opinion) -> Option<Symbol> {
    if opinion.score == 0.0 {
        return None;
    }
    let (name, word) = if opinion.score > 0.0 { ("CLASSIFIER_SPAM", "spam") } else { ("CLASSIFIER_HAM", "ham") };
    Some(Symbol {
        name: name.to_owned(),
        points: Points::new(f64::from(opinion.score)),
        description: format!("The classifier thinks of {word}"),
        evidence: Some(format!("probability of spam {:.4}", opinion.probability)),
        shadow: false,
    })
}
