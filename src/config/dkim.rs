//! `[[dkim]]`: keys that sign, one by one or a directory of them. I/O: lists directories, when settings are read.
//!
//! A directory holds files as `weir dkim keygen` names them, `SELECTOR.DOMAIN.pem`, so that a new domain's key needs no line in the
//! settings. The selector ends at the first dot.

use std::path::{Path, PathBuf};

use super::build::host_name;
use super::section::Section;
use super::settings::Dkim;

/// What key files are called.
const SUFFIX: &str = ".pem";

/// The keys of all sections.
pub(super) fn dkim(sections: Vec<Section<'_>>) -> Vec<Dkim> {
    let mut keys = Vec::new();
    for mut section in sections {
        match section.path("directory") {
            Some(directory) => match in_directory(&directory) {
                Ok(found) => keys.extend(found),
                Err(why) => section.fault("directory", format!("`directory`: {}: {why}", directory.display()), ""),
            },
            None => keys.extend(one(&mut section)),
        }
        section.finish();
    }
    keys
}

fn one(section: &mut Section<'_>) -> Option<Dkim> {
    let found = (section.parsed("domain", host_name), section.parsed("selector", host_name), section.path("key"));
    if let (Some(domain), Some(selector), Some(key)) = found {
        return Some(Dkim { domain, selector, key });
    }
    section.fault(
        "domain",
        "a DKIM key needs `domain`, `selector` and `key`, or a `directory` of keys",
        "domain = \"example.org\", selector = \"2026a\", key = \"2026a.pem\"",
    );
    None
}

/// Every key of a directory, in the order of the files' names.
fn in_directory(directory: &Path) -> std::io::Result<Vec<Dkim>> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    let mut keys: Vec<Dkim> = entries.into_iter().filter_map(by_name).collect();
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(keys)
}

/// The key whose domain and selector stand in its file's name; nothing for other files.
fn by_name(key: PathBuf) -> Option<Dkim> {
    let (selector, domain) = key.file_name()?.to_str()?.strip_suffix(SUFFIX)?.split_once('.')?;
    let (selector, domain) = (host_name(selector).ok()?, host_name(domain).ok()?);
    Some(Dkim { domain, selector, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_directory_name_domain_and_selector() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["r1.b.example.pem", "e1.a.example.pem", "README", "nodots.pem", ".hidden.pem"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = in_directory(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|key| (&*key.selector, &*key.domain)).collect();
        assert_eq!(names, [("e1", "a.example"), ("r1", "b.example")]);
        assert!(in_directory(&folder.path().join("none")).is_err());
    }
}
