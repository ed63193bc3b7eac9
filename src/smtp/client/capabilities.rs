//! What a server offered in its reply to EHLO or LHLO. Pure. RFC 5321 §4.1.1.1 and the extensions' own RFCs.

use super::reply::RemoteReply;

/// The extensions that Weir makes use of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// AUTH mechanisms, upper case.
    pub auth: Vec<String>,
    /// BINARYMIME (RFC 3030), counted only together with CHUNKING.
    pub binary_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// `LIMITS RCPTMAX` (RFC 9422).
    pub recipients_max: Option<usize>,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// `SIZE`, if it names one above zero (RFC 1870).
    pub size: Option<u64>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// STARTTLS (RFC 3207).
    pub start_tls: bool,
}

impl Capabilities {
    /// Reads the lines below the greeting; unknown keywords are skipped.
    pub fn parse(reply: &RemoteReply) -> Self {
        let mut found = Capabilities::default();
        for line in reply.text.split('\n').skip(1) {
            found.read_line(line);
        }
        found.binary_mime &= found.chunking;
        found
    }

    fn read_line(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        // Old servers write `AUTH=PLAIN`; the words behind the sign mean the same.
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        let (keyword, joined) = keyword.split_once('=').unwrap_or((&keyword, ""));
        match keyword {
            "8BITMIME" => self.eight_bit_mime = true,
            "AUTH" => {
                let all = std::iter::once(joined).chain(words).filter(|word| !word.is_empty());
                self.auth.extend(all.map(str::to_ascii_uppercase));
            }
            "BINARYMIME" => self.binary_mime = true,
            "CHUNKING" => self.chunking = true,
            "DSN" => self.dsn = true,
            "LIMITS" => {
                let limit = words.find_map(|word| word.strip_prefix("RCPTMAX="));
                self.recipients_max = limit.and_then(|text| text.parse().ok()).filter(|n| *n > 0);
            }
            "PIPELINING" => self.pipelining = true,
            "REQUIRETLS" => self.require_tls = true,
            "SIZE" => self.size = words.next().and_then(|text| text.parse().ok()).filter(|n| *n > 0),
            "SMTPUTF8" => self.smtputf8 = true,
            "STARTTLS" => self.start_tls = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_whatever_their_case() {
        let text = "mx.example.org hi\nSIZE 1000\npipelining\nAUTH PLAIN LOGIN\nAUTH=SCRAM-SHA-256\nBINARYMIME\nSIZE-X\nLIMITS MAILMAX=5 RCPTMAX=7";
        let found = Capabilities::parse(&RemoteReply { code: 250, enhanced: None, text: text.into() });
        assert_eq!(found.size, Some(1000));
        assert!(found.pipelining && !found.chunking);
        assert!(!found.binary_mime, "BINARYMIME means nothing without CHUNKING");
        assert_eq!(found.auth, ["PLAIN", "LOGIN", "SCRAM-SHA-256"]);
        assert_eq!(found.recipients_max, Some(7));
    }
}
