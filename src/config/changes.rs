//! What a reload can't put into force. Pure.

use super::Config;
use super::scanners::Service;

impl Config {
    /// Takes from the `running` configuration what the process holds and a reload can't change: other sockets than the listeners', directories, its own
    /// rights, what was opened at the start. Names what differed, for an operator; all else can be swapped while mail flows.
    pub fn keep_held(&mut self, running: &Config) -> Vec<String> {
        let mut waiting = Vec::new();
        let mut keep = |name: &str, differs: bool| {
            if differs {
                waiting.push(name.to_owned());
            }
        };
        keep("hostname", held(&mut self.hostname, &running.hostname));
        keep("data_dir", held(&mut self.data_dir, &running.data_dir));
        keep("[auth] users", held(&mut self.auth, &running.auth));
        keep("[spool]", held(&mut self.spool, &running.spool));
        keep("[trace]", held(&mut self.trace, &running.trace));
        keep("[store]", held(&mut self.store, &running.store));
        let admin = (&self.admin.address, &self.admin.hosts, self.admin.token.as_ref().map(|token| token.expose()));
        let held_admin =
            (&running.admin.address, &running.admin.hosts, running.admin.token.as_ref().map(|token| token.expose()));
        keep("[admin]", admin != held_admin);
        self.admin = running.admin.clone();
        let ports = |service: &Service| (service.milter, service.spamd, service.rspamd, service.connections);
        keep("[service]", ports(&self.service) != ports(&running.service));
        self.service = Service {
            milter: running.service.milter,
            spamd: running.service.spamd,
            rspamd: running.service.rspamd,
            connections: running.service.connections,
            ..self.service.clone()
        };
        keep("[log] json", held(&mut self.log.json, &running.log.json));
        keep("[security]", held(&mut self.security, &running.security));
        waiting
    }
}

/// Puts `running` in the place of `next`; true if they differed.
fn held<T: Clone + PartialEq>(next: &mut T, running: &T) -> bool {
    let differs = next != running;
    next.clone_from(running);
    differs
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("weir.toml"), text).unwrap()
    }

    #[test]
    fn only_what_the_process_holds_needs_a_restart() {
        let old = parse("data_dir = '/d'\n");
        let mut next = parse("data_dir = '/d'\n[retry]\nfirst = '1m'\n[limits]\nerrors = 5\n[log]\nlevel = 'debug'\n");
        assert!(next.keep_held(&old).is_empty());
        assert_eq!((next.limits.errors, &*next.log.level), (5, "debug"));
        let mut moved = parse("data_dir = '/d'\n[admin]\naddress = 'off'\n[security]\nseccomp = false\n");
        assert_eq!(moved.keep_held(&old), ["[admin]", "[security]"]);
        assert!(moved.admin.address.is_some() && moved.security.seccomp, "what runs stays what it is");
    }
}
