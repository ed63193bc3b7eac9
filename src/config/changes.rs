//! What a reload can't put into force. Pure.

use super::Config;

impl Config {
    /// Tables and keys whose change waits for a restart, because they name what the process holds: sockets, directories,
    /// its own rights. Everything else of `next` can be swapped while mail flows.
    pub fn needs_restart(&self, next: &Config) -> Vec<&'static str> {
        let sockets = |config: &Config| -> Vec<_> {
            config.listeners.iter().map(|listener| (listener.address, listener.role, listener.tls)).collect()
        };
        let pop3 = |config: &Config| (config.store.pop3, config.store.pop3s, config.store.directory.clone());
        let spool = |config: &Config| {
            let spool = &config.spool;
            (spool.directory.clone(), spool.segment_bytes, spool.memory, spool.spill_at)
        };
        let rights = |config: &Config| {
            let security = &config.security;
            (security.user.clone(), security.landlock, security.seccomp)
        };
        let held = [
            ("data_dir", self.data_dir != next.data_dir),
            ("[[listener]] address, role or tls", sockets(self) != sockets(next)),
            ("[store] pop3, pop3s or directory", pop3(self) != pop3(next)),
            ("[spool] directory, segment_bytes, memory or spill_at", spool(self) != spool(next)),
            ("[admin] address", self.admin.address != next.admin.address),
            ("[log] json", self.log.json != next.log.json),
            ("[security]", rights(self) != rights(next)),
        ];
        held.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_what_the_process_holds_needs_a_restart() {
        let parse = |text: &str| Config::parse(Path::new("weir.toml"), text).unwrap();
        let old = parse("data_dir = '/d'\n");
        assert!(old.needs_restart(&parse("data_dir = '/d'\n[retry]\nfirst = '1m'\n[limits]\nerrors = 5\n")).is_empty());
        let moved = parse("data_dir = '/d'\n[admin]\naddress = 'off'\n[security]\nseccomp = false\n");
        assert_eq!(old.needs_restart(&moved), ["[admin] address", "[security]"]);
    }
}
