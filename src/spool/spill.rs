//! Files for content that is too large for memory while it comes in. I/O: disk.
//!
//! They have no name: whatever happens, the kernel gives their space back.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::base::content::{Mapped, SpillFile, SpillSpace};
use crate::base::sys;

/// Makes unnamed files in the spool's directory.
pub struct SpillDirectory(PathBuf);

impl SpillDirectory {
    /// Files in `path`, which must exist.
    pub fn new(path: &Path) -> Self {
        SpillDirectory(path.to_owned())
    }
}

impl SpillSpace for SpillDirectory {
    fn create(&self) -> io::Result<Box<dyn SpillFile>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.0, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Box::new(Spilled { file: File::from(file), bytes: 0 }))
    }
}

struct Spilled {
    file: File,
    bytes: usize,
}

impl SpillFile for Spilled {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len();
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Mapped> {
        if self.bytes == 0 {
            return Ok(Arc::new(Vec::new()));
        }
        Ok(Arc::new(sys::map(&self.file, 0, self.bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_content_reads_back_and_leaves_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = SpillDirectory::new(directory.path()).create().unwrap();
        file.append(b"hello ").unwrap();
        file.append(b"world").unwrap();
        assert_eq!(&**file.finish().unwrap(), b"hello world");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
