//! Pieces of a gateway's configuration, as text. `DIR` becomes the gateway's folder.

/// The embedded store listens nowhere.
pub const POP3_OFF: &str = "pop3 = \"off\"\npop3s = \"off\"";
/// The embedded store listens at any port of loopback.
pub const POP3_ON: &str = "pop3 = \"127.0.0.1:0\"\npop3s = \"127.0.0.1:0\"";

/// What every gateway says first: its name, its folder, its API at any port of loopback, and no POP3.
pub fn head(hostname: &str) -> String {
    head_with_store(hostname, POP3_OFF)
}

/// The same with these lines below `[store]`.
pub fn head_with_store(hostname: &str, store: &str) -> String {
    format!(
        "hostname = \"{hostname}\"\ndata_dir = \"DIR/data\"\n[admin]\naddress = \"127.0.0.1:0\"\n[store]\n{store}\n"
    )
}

/// A listener at any port of loopback. Without TLS, and asking neither `verify` nor `filter`, unless a line of `more` says so.
pub fn listener(name: &str, role: &str, more: &str) -> String {
    let mut text = format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nrole = \"{role}\"\n{more}\n");
    for (key, value) in [("tls", "none"), ("verify", "off"), ("filter", "off")] {
        if !more.lines().any(|line| line.trim_start().starts_with(&format!("{key} ="))) {
            text.push_str(&format!("{key} = \"{value}\"\n"));
        }
    }
    text
}

/// A domain of ours: mail for anybody in it goes `to` there.
pub fn domain(name: &str, to: &str) -> String {
    format!("[[domain]]\nname = \"{name}\"\ndeliver_to = \"{to}\"\nrecipients = \"any\"\n")
}
