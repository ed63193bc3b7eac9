//! Gives up what a mail server does not need. I/O: the process's own rights.
//!
//! Done once the ports are bound and before any thread is made: threads inherit it.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::harden;
use crate::config::Config;
use crate::config::scanners::ScannerPlace;
use crate::config::settings::NextHop;
use crate::front::Bound;

/// Does what `[security]` asks for. `listeners` go over to the user that we become.
/// # Errors
/// With the setting in the text.
pub fn confine(config: &Config, config_file: Option<&Path>, listeners: &Bound) -> io::Result<()> {
    let named =
        |setting: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{setting}: {error}"));
    if let Some(user) = &config.security.user {
        let done = harden::drop_privileges(user, listeners.sockets()).map_err(named("user"))?;
        tracing::info!(%done, "privileges");
        check_access(config, user).map_err(named("user"))?;
    }
    if config.security.landlock {
        let done = harden::restrict_files(&reach(config, config_file)).map_err(named("landlock"))?;
        tracing::info!(%done, "landlock");
    }
    if config.security.seccomp {
        let done = harden::restrict_calls().map_err(named("seccomp"))?;
        tracing::info!(%done, "seccomp");
    }
    Ok(())
}

/// Makes the directories that must be there before Landlock opens them, for the user that root is about to become.
/// # Errors
/// With the directory in the text.
pub fn make_folders(config: &Config) -> io::Result<()> {
    let user = config.security.user.as_deref();
    for folder in own_folders(config) {
        let made = harden::make_folder(folder, user);
        made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    }
    Ok(())
}

fn own_folders(config: &Config) -> [&Path; 3] {
    [&config.data_dir, &config.spool.directory, &config.store.directory]
}

/// What a user's rights lack is told now: a folder that root left behind, or a key that could be read at the start and
/// not once it was renewed, three months later.
fn check_access(config: &Config, user: &str) -> io::Result<()> {
    use rustix::fs::{Access, access};
    for folder in own_folders(config) {
        if access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let text = format!("`{user}` can't write {}; give it over: chown -R {user} {0}", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    for file in config.tls.pairs().flat_map(|pair| [&pair.certificate, &pair.key]) {
        if access(file, Access::READ_OK).is_err() {
            tracing::warn!(file = %file.display(), %user, "can't be read by the user: once it is renewed, only a restart will load it");
        }
    }
    Ok(())
}

/// Files that the configuration names.
fn reach(config: &Config, config_file: Option<&Path>) -> harden::Reach {
    let mut read_write: Vec<PathBuf> = own_folders(config).map(Path::to_owned).into();
    let hops = config.domains.iter().map(|domain| &domain.deliver_to).chain(&config.relay.smarthost);
    for hop in hops {
        match hop {
            NextHop::LmtpUnix(path) => read_write.push(path.clone()),
            NextHop::Maildir(template) => {
                let fixed = template.split('{').next().unwrap_or(template);
                let folder = PathBuf::from(fixed);
                // The Maildir itself may have to be made, so its parent must be writable.
                read_write.push(folder.parent().map_or(folder.clone(), Path::to_owned));
            }
            _ => {}
        }
    }
    for scanner in &config.scanners {
        if let ScannerPlace::Unix(path) = &scanner.place {
            read_write.push(path.clone());
        }
    }
    let mut read: Vec<PathBuf> = config.tls.pairs().flat_map(|pair| [&pair.certificate, &pair.key]).cloned().collect();
    read.extend(config.deliver.ca_file.clone());
    read.extend(config.filter.rules.iter().cloned());
    // Beside a file of rules stand the lists that it reads.
    read.extend(
        config.filter.rules.iter().filter(|path| path.is_file()).filter_map(|path| path.parent()).map(Path::to_owned),
    );
    read.push(config.auth.users_file.clone());
    // Their folders, so that a reload can read the keys that `weir dkim rotate` puts beside them.
    read.extend(config.dkim.iter().filter_map(|dkim| dkim.key.parent()).map(Path::to_owned));
    read.extend(config_file.and_then(Path::parent).map(Path::to_owned));
    harden::Reach { read_write, read }
}
