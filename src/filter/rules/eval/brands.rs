//! Brands (`brand NAME DOMAIN…`): who bears a name that is not his, in a display name or in a link's host. Ours. Pure.
//!
//! A name of several words is written with `_`, which stands for a blank, a hyphen or nothing; `*` as the last label of a domain stands
//! for a country's ending and for com, net and org, because whoever owns `brand.com` owns those, and anybody buys `brand.top`. Names that
//! are words or programs too (`brand_common`) count in display names, not in hosts: `outlook.club.example` is honest.

use std::collections::HashSet;

use aho_corasick::AhoCorasick;

use super::{Context, Function, lists};
use crate::filter::message::fold::{Disguise, fold};
use crate::filter::message::url::registered;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_brand_forged", |context, _| {
        let brands = &context.lists.brands;
        let (name, address) = context.texts.view.author();
        let host = address.rsplit_once('@').map_or("", |(_, host)| host);
        brands.named(&plain(&name)).any(|brand| !brands.owns(brand, host))
    }),
    ("check_brand_uri", |context, _| hosts(context).iter().any(|host| context.lists.brands.is_abused_by(host))),
    ("check_uri_homograph", |context, _| hosts(context).iter().any(|host| is_homograph(host))),
];

/// Shorter names are found in a host as whole pieces only: they begin other words.
const PREFIX_BYTES_MIN: usize = 6;
/// Endings besides a country's in which `*` stands for the brand's own.
const ENDINGS: [&str; 3] = ["com", "net", "org"];

/// All brands; a name may have several lines, whose domains add up.
#[derive(Default)]
pub struct Brands {
    /// The domains of each.
    owned: Vec<Vec<String>>,
    /// Spellings of all names, as words of a text.
    words: Option<AhoCorasick>,
    /// The brand of each spelling.
    spelt: Vec<usize>,
    /// Names without blanks, as pieces of a host.
    pieces: Option<AhoCorasick>,
}

impl Brands {
    /// From each brand's name and domains, in lower case; `common` names are sought in no host.
    pub fn new<'l>(listed: impl Iterator<Item = (&'l str, &'l [String])>, common: &HashSet<String>) -> Self {
        let (mut brands, mut spellings, mut pieces) = (Brands::default(), Vec::new(), Vec::new());
        for (name, domains) in listed {
            let variants: &[&str] = if name.contains('_') { &[" ", "-", ""] } else { &[""] };
            for joint in variants {
                spellings.push(name.replace('_', joint));
                brands.spelt.push(brands.owned.len());
            }
            if !common.contains(name) {
                pieces.push(name.replace('_', ""));
            }
            brands.owned.push(domains.to_vec());
        }
        let automaton = |words: &[String]| AhoCorasick::new(words).ok().filter(|_| !words.is_empty());
        (brands.words, brands.pieces) = (automaton(&spellings), automaton(&pieces));
        brands
    }

    /// Brands of which a text in lower case has the name as words.
    fn named<'t>(&'t self, text: &'t str) -> impl Iterator<Item = usize> + 't {
        let found = self.words.iter().flat_map(move |words| words.find_overlapping_iter(text));
        found
            .filter(move |found| edges(text, found.start(), found.end()) == (true, true))
            .map(|found| self.spelt[found.pattern().as_usize()])
    }

    /// True if `host` is of a domain of the brand.
    fn owns(&self, brand: usize, host: &str) -> bool {
        let owned = |domain: &String| match domain.strip_suffix(".*") {
            Some(name) => {
                let own = registered(host);
                own.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_own_ending)
            }
            None => host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        self.owned[brand].iter().any(owned)
    }

    /// True if a host bears the name of a brand that it is not of.
    fn is_abused_by(&self, host: &str) -> bool {
        let Some(pieces) = &self.pieces else { return false };
        let plain = &fold_all(host);
        let is_borne = |found: aho_corasick::Match| {
            let (begins, ends) = edges(plain, found.start(), found.end());
            begins && (ends || found.len() >= PREFIX_BYTES_MIN)
        };
        // A host of one brand may bear another's name: `paypal.microsoft.com` is Microsoft's.
        pieces.find_overlapping_iter(plain).any(is_borne) && !(0..self.owned.len()).any(|brand| self.owns(brand, host))
    }
}

/// True for the rest of a domain behind a brand's name that is the brand's as a rule: `de`, `co.uk`, `com.br`, `com`.
fn is_own_ending(ending: &str) -> bool {
    let is_country = |label: &str| label.len() == 2 && label.bytes().all(|byte| byte.is_ascii_alphabetic());
    match ending.split_once('.') {
        None => is_country(ending) || ENDINGS.contains(&ending),
        Some((second, top)) => is_country(top) && second.len() <= 3,
    }
}

/// Whether no letter or digit stands before it, and none behind it.
fn edges(text: &str, start: usize, end: usize) -> (bool, bool) {
    let is_word = |c: char| c.is_alphanumeric();
    (!text[..start].chars().next_back().is_some_and(is_word), !text[end..].chars().next().is_some_and(is_word))
}

/// In lower case, without disguise.
fn plain(text: &str) -> String {
    fold(text, &mut Disguise::default()).to_lowercase()
}

/// The same where no letter needs to be plain for the others to be taken for plain ones.
fn fold_all(label: &str) -> String {
    plain(&format!("a{label}")).split_off(1)
}

/// True if a label has letters beyond ASCII and reads as if all of it were plain ones: `раураl`, not `bücher`.
fn is_homograph(host: &str) -> bool {
    let label = |label: &str| !label.is_ascii() && fold_all(label).is_ascii();
    host.split('.').any(label)
}

/// The hosts of all links, in lower case, as they are shown.
fn hosts(context: &Context<'_, '_, '_>) -> Vec<String> {
    let shown = |host: &String| if host.contains("xn--") { idna::domain_to_unicode(host).0 } else { host.clone() };
    let hosts = lists::hosts(context).iter().map(shown);
    let mut hosts: Vec<String> = hosts.filter(|host| host.contains('.')).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brands() -> Brands {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let listed = [
            ("paypal", own(&["paypal.*", "paypal-corp.com"])),
            ("bank_of_ours", own(&["bankofours.com"])),
            ("dhl", own(&["dhl.*"])),
            ("outlook", own(&["outlook.com"])),
        ];
        let common = HashSet::from(["outlook".to_owned()]);
        Brands::new(listed.iter().map(|(name, domains)| (*name, domains.as_slice())), &common)
    }

    #[test]
    fn names_are_words_and_domains_are_owned() {
        let brands = brands();
        let named = |text| brands.named(text).collect::<Vec<_>>();
        assert_eq!(named("your paypal account"), [0]);
        assert_eq!(named("bank-of-ours, bankofours"), [1, 1]);
        assert!(named("paypaler dhlx").is_empty());
        let owns = |host| brands.owns(0, host);
        assert!(owns("mail.paypal.com") && owns("paypal.co.uk") && owns("paypal.de") && owns("x.paypal-corp.com"));
        assert!(!owns("paypal.top") && !owns("paypal.com.evil.example") && !owns("xpaypal.com"));
    }

    #[test]
    fn homographs_read_as_plain_letters() {
        assert!(is_homograph("p\u{430}ypal.com") && is_homograph("www.\u{430}\u{440}\u{440}\u{4cf}\u{435}.com"));
        assert!(!is_homograph("b\u{fc}cher.example") && !is_homograph("\u{43f}\u{43e}\u{447}\u{442}\u{430}.example"));
    }

    #[test]
    fn hosts_that_bear_a_name_are_seen_through_their_disguise() {
        let brands = brands();
        for host in
            ["paypal.com.evil.example", "paypallogin.example", "dhl-track.example", "p\u{430}ypal.com", "paypal.top"]
        {
            assert!(brands.is_abused_by(host), "{host}");
        }
        for host in ["www.paypal.com", "redhl.example", "dhlx.example", "mypaypal.example", "outlook.club.example"] {
            assert!(!brands.is_abused_by(host), "{host}");
        }
    }
}
