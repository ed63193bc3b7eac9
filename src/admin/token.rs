//! The bearer token of the API. I/O: one file, readable by its owner only.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::base::secret::Secret;
use crate::config::Config;

/// Random bytes of a token: 256 bits, out of reach of guessing.
const TOKEN_BYTES: usize = 32;
const OWNER_ONLY: u32 = 0o600;

/// Where the token is kept when the configuration sets none.
pub fn path_of(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

/// The token: of the configuration, of the file, or a new one, which is then in the file.
/// # Errors
/// If the file can't be read or made, or others may read it.
pub fn load_or_make(config: &Config) -> io::Result<Secret> {
    match load(config) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path_of(&config.data_dir)),
        other => other,
    }
}

/// The token: of the configuration or of the file.
/// # Errors
/// If there is none, or others may read it.
pub fn load(config: &Config) -> io::Result<Secret> {
    if let Some(token) = &config.admin.token {
        return Ok(token.clone());
    }
    let path = path_of(&config.data_dir);
    let mut file = std::fs::File::open(&path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        let text = format!("{} can be read by others; chmod 600 it", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is empty", path.display()))),
        token => Ok(Secret::new(token)),
    }
}

fn make(path: &Path) -> io::Result<Secret> {
    let mut bytes = [0; TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default_for(dir.path());
        assert_eq!(load(&config).unwrap_err().kind(), io::ErrorKind::NotFound);
        let token = load_or_make(&config).unwrap();
        assert_eq!(token.expose().len(), 2 * TOKEN_BYTES);
        assert_eq!(load_or_make(&config).unwrap(), token);
        let path = path_of(dir.path());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(&config).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
