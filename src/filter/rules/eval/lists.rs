//! WLBLEval, WelcomeListSubject, VBounce: addresses, hosts and subjects in lists. Pure.

use std::collections::{HashMap, HashSet};

use foldhash::fast::FixedState;

use super::brands::Brands;
use super::{Context, Function};
use crate::filter::rules::redirect::Redirectors;
use crate::filter::rules::uris;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_from_in_blocklist", |context, _| in_globs(context, &["blocklist_from", "blacklist_from"], from(context))),
    ("check_from_in_blacklist", |context, _| in_globs(context, &["blocklist_from", "blacklist_from"], from(context))),
    ("check_from_in_default_welcomelist", |context, _| {
        through(context, &["def_welcomelist_from_rcvd", "def_whitelist_from_rcvd"])
    }),
    ("check_from_in_default_whitelist", |context, _| {
        through(context, &["def_welcomelist_from_rcvd", "def_whitelist_from_rcvd"])
    }),
    ("check_from_in_list", |context, arguments| {
        arguments.first().is_some_and(|list| in_address_list(context, list, from(context)))
    }),
    ("check_from_in_welcomelist", |context, _| {
        in_globs(context, &["welcomelist_from", "whitelist_from"], from(context))
            || through(context, &["welcomelist_from_rcvd", "whitelist_from_rcvd"])
    }),
    ("check_from_in_whitelist", |context, _| {
        in_globs(context, &["welcomelist_from", "whitelist_from"], from(context))
            || through(context, &["welcomelist_from_rcvd", "whitelist_from_rcvd"])
    }),
    ("check_replyto_in_list", |context, arguments| {
        arguments.first().is_some_and(|list| in_address_list(context, list, &address(context, "Reply-To")))
    }),
    ("check_subject_in_blocklist", |context, _| subject_in(context, &["blocklist_subject", "blacklist_subject"])),
    ("check_subject_in_blacklist", |context, _| subject_in(context, &["blocklist_subject", "blacklist_subject"])),
    ("check_subject_in_welcomelist", |context, _| subject_in(context, &["welcomelist_subject", "whitelist_subject"])),
    ("check_subject_in_whitelist", |context, _| subject_in(context, &["welcomelist_subject", "whitelist_subject"])),
    ("check_to_in_all_spam", |context, _| to_in(context, &["all_spam_to"])),
    ("check_to_in_blocklist", |context, _| to_in(context, &["blocklist_to", "blacklist_to"])),
    ("check_to_in_blacklist", |context, _| to_in(context, &["blocklist_to", "blacklist_to"])),
    ("check_to_in_more_spam", |context, _| to_in(context, &["more_spam_to"])),
    ("check_to_in_welcomelist", |context, _| to_in(context, &["welcomelist_to", "whitelist_to"])),
    ("check_to_in_whitelist", |context, _| to_in(context, &["welcomelist_to", "whitelist_to"])),
    ("check_uri_host_in_blocklist", |context, _| host_in(context, "BLOCK") || host_in(context, "BLACK")),
    ("check_uri_host_in_blacklist", |context, _| host_in(context, "BLOCK") || host_in(context, "BLACK")),
    ("check_uri_host_in_welcomelist", |context, _| host_in(context, "WELCOME") || host_in(context, "WHITE")),
    ("check_uri_host_in_whitelist", |context, _| host_in(context, "WELCOME") || host_in(context, "WHITE")),
    ("check_uri_host_listed", |context, arguments| arguments.first().is_some_and(|list| host_in(context, list))),
    ("check_welcomelist_bounce_relays", |context, _| through_our_relays(context)),
    ("check_whitelist_bounce_relays", |context, _| through_our_relays(context)),
    ("have_any_bounce_relays", |context, _| context.lists.are_set(&OUR_RELAYS)),
];

/// Settings that name the relays through which our own mail leaves.
const OUR_RELAYS: [&str; 2] = ["welcomelist_bounce_relays", "whitelist_bounce_relays"];

/// True if the text quotes a Received field of mail that left through a relay of ours.
fn through_our_relays(context: &Context<'_, '_, '_>) -> bool {
    if !context.lists.are_set(&OUR_RELAYS) {
        return false;
    }
    let body = String::from_utf8_lossy(context.texts.view.body_raw());
    let mut in_field = false;
    body.lines().any(|line| {
        let plain = line.trim_start_matches(['>', ' ']);
        in_field = plain.get(..9).is_some_and(|head| head.eq_ignore_ascii_case("received:"))
            || in_field && line.starts_with([' ', '\t']);
        let words = plain.split(|c: char| c.is_whitespace() || "()[];".contains(c)).filter(|word| word.contains('.'));
        let ours = |word: &str| OUR_RELAYS.iter().any(|list| context.lists.has(list, &word.to_ascii_lowercase()));
        in_field && words.into_iter().any(ours)
    })
}

/// Words of list settings: plain ones by hash, those with `*` and `?` one by one.
#[derive(Default)]
pub struct Lists {
    words: HashMap<String, HashSet<String, FixedState>, FixedState>,
    globs: HashMap<String, Globs, FixedState>,
    pairs: HashMap<String, Vec<(String, String)>>,
    /// `brand` lines.
    pub brands: Brands,
    /// What links are unwrapped by.
    pub redirectors: Redirectors,
}

impl Lists {
    /// Lists by the name of their setting.
    pub fn new(lists: &HashMap<String, Vec<String>>, redirectors: Redirectors) -> Self {
        let mut all = Lists { redirectors, ..Lists::default() };
        for (name, words) in lists {
            if name.ends_with("_from_rcvd") {
                let pairs = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                all.pairs.insert(name.clone(), pairs.collect());
                continue;
            }
            let (globs, plain): (Vec<_>, Vec<_>) = words.iter().cloned().partition(|word| word.contains(['*', '?']));
            all.words.insert(name.clone(), plain.into_iter().collect());
            all.globs.insert(name.clone(), Globs::new(globs));
        }
        let brands = lists.iter().filter_map(|(name, words)| Some((name.strip_prefix("brand ")?, words.as_slice())));
        all.brands = Brands::new(brands, &all.words("brand_common"));
        all
    }

    /// The words of a list without globs.
    pub fn words(&self, list: &str) -> HashSet<String> {
        self.words.get(list).into_iter().flatten().cloned().collect()
    }

    /// True if the list has any word.
    pub fn is_set(&self, list: &str) -> bool {
        self.words.get(list).is_some_and(|words| !words.is_empty())
            || self.globs.get(list).is_some_and(|globs| !globs.are_none())
    }

    /// True if one of these lists has any word.
    fn are_set(&self, lists: &[&str]) -> bool {
        lists.iter().any(|list| self.is_set(list))
    }

    /// True if `word`, in lower case, is in the list.
    pub fn has(&self, list: &str, word: &str) -> bool {
        self.words.get(list).is_some_and(|words| words.contains(word))
            || self.globs.get(list).is_some_and(|globs| {
                // In a domain `*` stands for one label.
                let one_label = list == "freemail_domains";
                let labels = |text: &str| text.matches('.').count();
                globs.near(word).any(|glob| {
                    matches(glob.as_bytes(), word.as_bytes()) && (!one_label || labels(glob) == labels(word))
                })
            })
    }
}

/// Words with wildcards, by what they end with, where that is long enough.
#[derive(Default)]
struct Globs {
    by_end: HashMap<[u8; GLOB_END], Vec<String>, FixedState>,
    others: Vec<String>,
}

/// Bytes behind the last wildcard that a word is found by.
const GLOB_END: usize = 8;

impl Globs {
    fn new(globs: Vec<String>) -> Self {
        let mut all = Globs::default();
        for glob in globs {
            let end = glob.as_bytes().last_chunk().filter(|end| !end.iter().any(|byte| matches!(byte, b'*' | b'?')));
            match end.copied() {
                Some(end) => all.by_end.entry(end).or_default().push(glob),
                None => all.others.push(glob),
            }
        }
        all
    }

    fn are_none(&self) -> bool {
        self.by_end.is_empty() && self.others.is_empty()
    }

    /// Those that may match `word`.
    fn near(&self, word: &str) -> impl Iterator<Item = &String> {
        let same_end = word.as_bytes().last_chunk().and_then(|end| self.by_end.get(end));
        let last = word.as_bytes().last().copied();
        let may_end = move |glob: &&String| {
            let end = glob.as_bytes().last().copied();
            end == last || matches!(end, Some(b'*' | b'?'))
        };
        same_end.into_iter().flatten().chain(self.others.iter().filter(may_end))
    }
}

/// True if the sender is listed together with the relay that it came from.
fn through(context: &Context<'_, '_, '_>, lists: &[&str]) -> bool {
    if !lists.iter().any(|list| context.lists.pairs.contains_key(*list)) {
        return false;
    }
    let Some(relay) = context.texts.relays.external().first() else { return false };
    let (from, name) = (from(context), relay.rdns.to_ascii_lowercase());
    let of_relay = |listed: &str| {
        let bare = listed.trim_matches(['[', ']']);
        bare == relay.ip || name.strip_suffix(bare).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let pairs = lists.iter().filter_map(|list| context.lists.pairs.get(*list)).flatten();
    pairs.into_iter().any(|(glob, listed)| matches(glob.as_bytes(), from.as_bytes()) && of_relay(listed))
}

/// `*` stands for any bytes, `?` for one.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text, mut star) = (0, 0, None);
    while in_text < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => match star {
                Some((place, from)) => {
                    at = place + 1;
                    in_text = from + 1;
                    star = Some((place, from + 1));
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|&byte| byte == b'*')
}

fn address(context: &Context<'_, '_, '_>, field: &str) -> String {
    context.texts.address(field)
}

fn from<'c>(context: &'c Context<'_, '_, '_>) -> &'c str {
    context.texts.author_address()
}

fn in_globs(context: &Context<'_, '_, '_>, lists: &[&str], address: &str) -> bool {
    !address.is_empty() && lists.iter().any(|list| context.lists.has(list, address))
}

fn in_address_list(context: &Context<'_, '_, '_>, list: &str, address: &str) -> bool {
    let list = format!("enlist_addrlist {list}");
    let domain = address.rsplit_once('@').map(|(_, domain)| format!("@{domain}"));
    context.lists.has(&list, address) || domain.is_some_and(|domain| context.lists.has(&list, &domain))
}

fn to_in(context: &Context<'_, '_, '_>, lists: &[&str]) -> bool {
    if !context.lists.are_set(lists) {
        return false;
    }
    let facts = &context.texts.facts.recipients;
    let addressed =
        facts.iter().map(|one| one.to_ascii_lowercase()).chain([address(context, "To"), address(context, "Cc")]);
    addressed.into_iter().any(|one| in_globs(context, lists, &one))
}

fn subject_in(context: &Context<'_, '_, '_>, lists: &[&str]) -> bool {
    if !context.lists.are_set(lists) {
        return false;
    }
    let subject = context.texts.view.subject.to_lowercase();
    lists.iter().any(|list| context.lists.has(list, &subject))
}

/// The hosts of all links, in lower case, each once.
pub fn hosts<'c>(context: &'c Context<'_, '_, '_>) -> &'c [String] {
    context.texts.once.hosts.get_or_init(|| {
        let hosts = context.texts.uris().iter().filter_map(|uri| uris::host(uri));
        let mut hosts: Vec<String> = hosts.map(str::to_ascii_lowercase).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    })
}

fn host_in(context: &Context<'_, '_, '_>, list: &str) -> bool {
    let list = format!("enlist_uri_host {list}");
    context.lists.is_set(&list)
        && hosts(context).iter().any(|host| {
            let mut host = host.as_str();
            loop {
                if context.lists.has(&list, host) {
                    return true;
                }
                match host.split_once('.') {
                    Some((_, parent)) => host = parent,
                    None => return false,
                }
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_found_by_their_end() {
        let words = ["*@mail.bank.example", "*.bank.example", "*.gov", "news-*", "?b", "*"];
        let words = words.map(str::to_owned).to_vec();
        for word in ["me@mail.bank.example", "x.bank.example", "a@b.gov", "news-1", "ab", "", "@b.example"] {
            let all = Globs::new(words.clone());
            let mut near: Vec<&String> =
                all.near(word).filter(|glob| matches(glob.as_bytes(), word.as_bytes())).collect();
            let mut expected: Vec<&String> =
                words.iter().filter(|glob| matches(glob.as_bytes(), word.as_bytes())).collect();
            near.sort();
            expected.sort();
            assert_eq!(near, expected, "{word}");
        }
    }

    #[test]
    fn globs() {
        assert!(matches(b"*@example.org", b"a@example.org"));
        assert!(matches(b"a?c*", b"abcd") && matches(b"*", b"") && !matches(b"a*b", b"ac"));
    }
}
