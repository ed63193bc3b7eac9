//! `data_dir/run.json`: the process and the ports it really has, for scripts and for port 0. I/O: one small file.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::shared::write_whole;

/// What runs where.
pub struct RunFile {
    path: PathBuf,
    addresses: BTreeMap<String, SocketAddr>,
}

impl RunFile {
    /// For a gateway in `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        RunFile { path: data_dir.join("run.json"), addresses: BTreeMap::new() }
    }

    /// The address of that name as a running gateway wrote it into `data_dir`.
    pub fn look_up(data_dir: &Path, name: &str) -> Option<SocketAddr> {
        let text = std::fs::read_to_string(RunFile::new(data_dir).path).ok()?;
        let run: serde_json::Value = serde_json::from_str(&text).ok()?;
        run["addresses"][name].as_str()?.parse().ok()
    }

    /// A listener is at `address`. A second one of the same name gets a number.
    pub fn add(&mut self, name: &str, address: SocketAddr) {
        let free = |name: &String| !self.addresses.contains_key(name);
        let numbered = (2..).map(|n| format!("{name}{n}"));
        let name = std::iter::once(name.to_owned()).chain(numbered).find(free).expect("numbers do not end");
        tracing::info!(name = %name, address = %address, "listening");
        self.addresses.insert(name, address);
    }

    /// The address of that name.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.addresses.get(name).copied()
    }

    /// Writes the file.
    /// # Errors
    /// When `data_dir` can't be written.
    pub fn write(&self) -> io::Result<()> {
        let text = serde_json::json!({ "pid": std::process::id(), "addresses": self.addresses });
        write_whole(&self.path, text.to_string().as_bytes())
    }

    /// Removes it: nothing runs any more.
    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, file = %self.path.display(), "can't be removed");
        }
    }
}
