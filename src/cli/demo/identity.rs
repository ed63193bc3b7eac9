//! The part of the demo that shows who sent a message: keys, zones, and mail that passes, is refused, kept back, saved, signed. Pure.
//!
//! All of it comes to a listener that enforces; the bank's and the newspaper's policies are in the demo's DNS.

use super::samples::{DOMAIN, Fate, Sample, Way, mx, submitted, text};
use crate::base::content::Content;
use crate::verify::arc::ArcResult;
use crate::verify::arc::seal::seal;
use crate::verify::dkim::keygen::{KeyKind, generate};
use crate::verify::dkim::sign::SigningKey;
use crate::verify::message::Message;

/// The list whose seals the gateway trusts.
const LIST: &str = "list.example";
/// The selectors of our own keys: RSA for everybody, Ed25519 for those who can.
const SELECTORS: [(&str, KeyKind); 2] = [("r1", KeyKind::Rsa), ("e1", KeyKind::Ed25519)];
/// What the bank and we ourselves ask of receivers.
const REJECT: &str = "_dmarc 300 IN TXT \"v=DMARC1; p=reject\"\n";
/// What the newspaper asks.
const QUARANTINE: &str = "_dmarc 300 IN TXT \"v=DMARC1; p=quarantine\"\n";
/// A zone whose mail comes from nowhere; other zones name their sender.
const NOBODY: &str = "@ 300 IN SOA mx root 1 3600 600 86400 60\n@ 300 IN TXT \"v=spf1 -all\"\n";
/// Seconds since 1970 of the samples' date, 22 November 2026.
const SEALED_AT: u64 = 1_795_341_600;
/// RFC 1035 §3.3: one string of a TXT record.
const STRING_BYTES_MAX: usize = 255;

/// Keys of the demo.
pub struct Keys {
    list: SigningKey,
    own: Vec<(&'static str, String)>,
}

impl Keys {
    /// Makes them.
    /// # Errors
    /// In words, when there is no randomness.
    pub fn make() -> Result<Self, String> {
        let list = SigningKey::from_pem(LIST, "s", &generate(KeyKind::Ed25519)?).map_err(|error| error.to_string())?;
        let own = SELECTORS.map(|(selector, kind)| generate(kind).map(|pem| (selector, pem)));
        Ok(Keys { list, own: own.into_iter().collect::<Result<_, &str>>()? })
    }

    /// Name and content of the key files.
    pub fn files(&self) -> impl Iterator<Item = (String, &str)> {
        self.own.iter().map(|(selector, pem)| (format!("{selector}.pem"), pem.as_str()))
    }

    /// Their `[[dkim]]` sections.
    pub fn sections(&self) -> String {
        let section = |(selector, _): &(&str, String)| {
            format!("[[dkim]]\ndomain = \"{DOMAIN}\"\nselector = \"{selector}\"\nkey = \"{selector}.pem\"\n\n")
        };
        self.own.iter().map(section).collect()
    }

    /// Zones as pairs of origin and records; `sends` is the zone of a domain that sends from here.
    /// # Errors
    /// In words, when a key can't be read back.
    pub fn zones(&self, sends: &str) -> Result<Vec<(String, String)>, String> {
        let mut own = format!("{sends}{REJECT}");
        for (selector, pem) in &self.own {
            let key = SigningKey::from_pem(DOMAIN, selector, pem).map_err(|error| error.to_string())?;
            own.push_str(&key_record(&key));
        }
        Ok(vec![
            ("bank.example.".to_owned(), format!("{sends}{REJECT}")),
            (format!("{LIST}."), format!("{sends}{}", key_record(&self.list))),
            ("news.example.".to_owned(), format!("{NOBODY}{QUARANTINE}")),
            (format!("{DOMAIN}."), own),
        ])
    }

    /// The mail.
    pub fn samples(&self) -> Vec<Sample> {
        let bank = |to: &str, subject: &str| {
            text("service@bank.example", to, subject, "Your statement of November is ready.\n")
        };
        let enforced = |sample: Sample| Sample { way: Way::Enforced, ..sample };
        let forged = bank("bob@weir.example", "Urgent: your account");
        let paper = text("editor@news.example", "bob@weir.example", "Breaking", "Click here.\n");
        let (signed, again) = (&["bob@weir.example"], &["carol@weir.example"]);
        let letter = text("alice@weir.example", "bob@weir.example", "Signed", "This letter is signed with two keys.\n");
        vec![
            enforced(mx(
                "a bank, as it is",
                "service@bank.example",
                &["alice@weir.example"],
                bank("alice@weir.example", "Statement"),
            )),
            Sample {
                fate: Fate::Refused(550),
                ..enforced(mx("forged in the bank's name", "crook@shop.example", &["bob@weir.example"], forged))
            },
            Sample {
                fate: Fate::Quarantined,
                ..enforced(mx("forged in the paper's name", "crook@shop.example", &["bob@weir.example"], paper))
            },
            enforced(mx(
                "the bank's, altered by a list that we trust (ARC)",
                "bounces@list.example",
                &["carol@weir.example"],
                self.sealed(&bank("club@list.example", "[club] Statement")),
            )),
            submitted("signed by us", "alice", "alice@weir.example", signed, letter),
            Sample {
                way: Way::Forwarded,
                ..mx("the same, forwarded: our signatures are verified", "bounces@list.example", again, Vec::new())
            },
        ]
    }

    /// As the list seals it: when it came there, DMARC passed.
    fn sealed(&self, content: &[u8]) -> Vec<u8> {
        let message = Message::parse(Content::from_bytes(content));
        let findings = format!("{LIST};\r\n\tdmarc=pass header.from=bank.example");
        let fields = seal(&message, &ArcResult::none(), &findings, &self.list, SEALED_AT).unwrap_or_default();
        [fields.as_bytes(), content].concat()
    }
}

fn key_record(key: &SigningKey) -> String {
    let record = key.record();
    let strings = record.as_bytes().chunks(STRING_BYTES_MAX);
    let strings: Vec<String> = strings.map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
    format!("{}._domainkey 300 IN TXT {}\n", key.selector, strings.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_published_in_strings_that_dns_can_carry() {
        let keys = Keys::make().unwrap();
        let zones = keys.zones("").unwrap();
        let own = &zones.iter().find(|(origin, _)| origin == "weir.example.").unwrap().1;
        assert!(own.contains("r1._domainkey 300 IN TXT \"v=DKIM1; k=rsa; p="), "{own}");
        assert!(own.split('"').all(|string| string.len() <= STRING_BYTES_MAX), "{own}");
        assert_eq!(keys.sections().matches("[[dkim]]").count(), 2);
    }

    #[test]
    fn the_list_seals_what_it_hands_on() {
        let samples = Keys::make().unwrap().samples();
        let sealed = samples.iter().find(|sample| sample.content.starts_with(b"ARC-Seal: i=1;")).unwrap();
        assert!(sealed.title.contains("ARC"));
    }
}
