//! Whose a new file is. I/O: owners of files.
//!
//! What root makes in a folder of the server's user (a password file, a certificate, a key) the server must be able to read.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

/// Gives `new`, which is to replace what stands at `path`, to the owner of that, or else to the folder's.
/// # Errors
/// When the folder can't be looked at, or the owner is another and we are not root.
pub fn keep(path: &Path, new: &File) -> io::Result<()> {
    give(new, &fs::metadata(path).or_else(|_| fs::metadata(folder_of(path)))?)
}

/// Gives `new`, which was made at `path`, to the folder's owner.
/// # Errors
/// As [`keep`].
pub fn inherit(path: &Path, new: &File) -> io::Result<()> {
    give(new, &fs::metadata(folder_of(path))?)
}

fn give(new: &File, owner: &Metadata) -> io::Result<()> {
    let ours = new.metadata()?;
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    fchown(new, Some(owner.uid()), Some(owner.gid()))
}

/// The folder of a file; of a bare name it is the one we are in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
