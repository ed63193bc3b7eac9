//! How to talk to a demo that stays: commands to copy. Pure.

use std::net::SocketAddr;
use std::path::Path;

use super::samples::{DOMAIN, PASSWORD, USERS};

/// Where everything is.
pub struct Where<'a> {
    /// Mail from strangers.
    pub mx: SocketAddr,
    /// Mail from logins.
    pub submission: SocketAddr,
    /// POP3 with STLS.
    pub pop3: SocketAddr,
    /// POP3 with TLS from the first byte.
    pub pop3s: SocketAddr,
    /// API and metrics.
    pub admin: SocketAddr,
    /// The demo's folder.
    pub folder: &'a Path,
}

/// The text.
pub fn text(at: &Where<'_>) -> String {
    let Where { mx, submission, pop3, pop3s, admin, folder } = at;
    let (user, other) = (USERS[0], USERS[1]);
    let certificate = folder.join("data/self-signed.pem");
    let settings = folder.join("weir.toml");
    format!(
        "\
The gateway stays until Ctrl-C. Users: {users}; each has the password {PASSWORD}

As a stranger, by swaks:
  swaks --server {mx} --tls --from you@shop.example --to {user}@{DOMAIN}
As {user}, by swaks and by curl:
  swaks --server {submission} --tls --auth-user {user} --auth-password {PASSWORD} --from {user}@{DOMAIN} --to {other}@{DOMAIN}
  printf 'Subject: hello\\r\\n\\r\\nby curl\\r\\n' | curl -sS -k --ssl-reqd --url smtp://{submission}/client.example \\
    --user {user}:{PASSWORD} --mail-from {user}@{DOMAIN} --mail-rcpt {other}@{DOMAIN} --upload-file -
Read {other}'s mail: the list, then the first message:
  curl -sS -k --url pop3s://{pop3s}/ --user {other}:{PASSWORD}
  curl -sS -k --url pop3s://{pop3s}/1 --user {other}:{PASSWORD}
In a mail program:
  incoming  POP3, server {pop3_ip}, port {pop3s_port} with SSL/TLS or {pop3_port} with STARTTLS, user {user}, password {PASSWORD}
  outgoing  SMTP, server {smtp_ip}, port {smtp_port} with STARTTLS, the same user and password
  the certificate is the gateway's own: accept it, or import {certificate}
Metrics, and the queue:
  curl -sS http://{admin}/metrics
  weir queue list --config {settings}
",
        users = USERS.join(", "),
        certificate = certificate.display(),
        settings = settings.display(),
        pop3_ip = pop3.ip(),
        pop3_port = pop3.port(),
        pop3s_port = pop3s.port(),
        smtp_ip = submission.ip(),
        smtp_port = submission.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_the_real_ports() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let place =
            Where { mx: at(1), submission: at(2), pop3: at(3), pop3s: at(4), admin: at(5), folder: Path::new("/f") };
        let text = text(&place);
        for wanted in [
            "swaks --server 127.0.0.1:1 --tls --from you@shop.example --to alice@weir.example\n",
            "swaks --server 127.0.0.1:2 --tls --auth-user alice --auth-password demo-password",
            "curl -sS -k --url pop3s://127.0.0.1:4/1 --user bob:demo-password\n",
            "port 4 with SSL/TLS or 3 with STARTTLS",
            "curl -sS http://127.0.0.1:5/metrics\n",
            "weir queue list --config /f/weir.toml\n",
            "import /f/data/self-signed.pem\n",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
