//! `data_dir/run.json`: the process and the ports it really has, for scripts and for port 0. I/O: one small file.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::settings::Listener;

use super::shared::write_whole;

/// What runs where.
pub struct RunFile {
    path: PathBuf,
    /// Of `[[listener]]`, which a reload may change.
    listeners: Vec<(String, SocketAddr)>,
    others: Vec<(String, SocketAddr)>,
}

impl RunFile {
    /// For a gateway in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        RunFile { path: data_dir.join("run.json"), listeners: Vec::new(), others: Vec::new() }
    }

    /// The address of that name as a running gateway wrote it into `data_dir`.
    pub fn look_up(data_dir: &Path, name: &str) -> Option<SocketAddr> {
        let text = std::fs::read_to_string(RunFile::new(data_dir).path).ok()?;
        let run: serde_json::Value = serde_json::from_str(&text).ok()?;
        run["addresses"][name].as_str()?.parse().ok()
    }

    /// These are the listeners now.
    pub fn set_listeners(&mut self, listeners: &[Listener], addresses: &[SocketAddr]) {
        let names = listeners.iter().map(|listener| listener.name.to_string());
        self.listeners = names.zip(addresses.iter().copied()).collect();
    }

    /// Something else listens at `address`.
    pub fn add(&mut self, name: &str, address: SocketAddr) {
        tracing::info!(name = %name, address = %address, "listening");
        self.others.push((name.to_owned(), address));
    }

    /// All by name; a second one of the same name gets a number.
    fn addresses(&self) -> BTreeMap<String, SocketAddr> {
        let mut addresses = BTreeMap::new();
        for (name, address) in self.listeners.iter().chain(&self.others) {
            let numbered = (2..).map(|n| format!("{name}{n}"));
            let mut names = std::iter::once(name.clone()).chain(numbered);
            let free = names.find(|name| !addresses.contains_key(name)).expect("numbers do not end");
            addresses.insert(free, *address);
        }
        addresses
    }

    /// The address of that name.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.addresses().get(name).copied()
    }

    /// Writes the file.
    /// # Errors
    /// When `data_dir` can't be written.
    pub fn write(&self) -> io::Result<()> {
        let text = serde_json::json!({ "pid": std::process::id(), "addresses": self.addresses() });
        write_whole(&self.path, text.to_string().as_bytes())
    }

    /// Removes it: nothing runs any more.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, file = %self.path.display(), "can't be removed");
        }
    }
}
