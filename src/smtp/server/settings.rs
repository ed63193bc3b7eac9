//! What a listener's conversations have in common, built once per listener. Pure.
//!
//! One thing comes from outside: the SCRAM nonce is drawn through a function that tests replace.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use crate::config::limits::Limits;
use crate::config::settings::{BareLf, Config, Listener, ListenerTls, Role};

/// Bytes of randomness in a SCRAM nonce; base64 makes 24 characters of them.
const NONCE_BYTES: usize = 18;

/// Settings of a listener's conversations.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Our name, in the banner and EHLO.
    pub hostname: Box<str>,
    /// The listener's name, for [`crate::wire::envelope::Origin`].
    pub listener: Arc<str>,
    /// What the listener is for.
    pub role: Role,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// AUTH is offered where it is safe.
    pub auth: bool,
    /// AUTH is offered without TLS too.
    pub auth_plaintext: bool,
    /// BINARYMIME is offered.
    pub binarymime: bool,
    /// Bare CR or LF in DATA.
    pub bare_lf: BareLf,
    /// Peers that may use XCLIENT.
    pub xclient: Vec<IpNet>,
    /// Every bound.
    pub limits: Limits,
    /// A fresh, random, printable nonce without commas.
    pub nonce: fn() -> String,
}

impl SessionSettings {
    /// The settings of `listener`.
    pub fn from_listener(config: &Config, listener: &Listener) -> Self {
        SessionSettings {
            hostname: config.hostname.as_str().into(),
            listener: listener.name.clone(),
            role: listener.role,
            starttls: listener.tls == ListenerTls::StartTls,
            auth: listener.auth,
            auth_plaintext: listener.auth_plaintext,
            binarymime: true,
            bare_lf: listener.bare_lf,
            xclient: listener.xclient.clone(),
            limits: listener.limits.clone(),
            nonce: random_nonce,
        }
    }

    /// True if AUTH may be used in a session that has TLS or not.
    pub fn auth_usable(&self, tls: bool) -> bool {
        self.auth && (tls || self.auth_plaintext)
    }

    /// True if a peer at `ip` may use XCLIENT.
    pub fn xclient_trusted(&self, ip: IpAddr) -> bool {
        self.xclient.iter().any(|net| net.contains(&ip.to_canonical()))
    }
}

fn random_nonce() -> String {
    let mut bytes = [0; NONCE_BYTES];
    rand::fill(&mut bytes).expect("the operating system has randomness");
    STANDARD.encode(bytes)
}
