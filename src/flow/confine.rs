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

/// Files that the configuration names.
fn reach(config: &Config, config_file: Option<&Path>) -> harden::Reach {
    let mut read_write = vec![config.data_dir.clone(), config.spool.directory.clone(), config.store.directory.clone()];
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
