//! WLBLEval, FreeMail: addresses and hosts in lists. Pure.

use std::collections::{HashMap, HashSet};

use super::{Context, Function};
use crate::filter::message::header::mailbox;
use crate::filter::rules::definition::FieldSpec;
use crate::filter::rules::relays;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_freemail_from", |context, _| is_freemail(context, &from(context))),
    ("check_freemail_header", |context, arguments| {
        let value = |name: &String| context.texts.header(&FieldSpec::parse(name));
        let value = arguments.first().and_then(value).unwrap_or_default();
        is_freemail(context, &mailbox(&String::from_utf8_lossy(&value)).1)
    }),
    ("check_freemail_replyto", |context, arguments| {
        let (from, reply) = (from(context), address(context, "Reply-To"));
        let differs = is_freemail(context, &reply) && reply != from;
        match arguments.first().map(String::as_str) {
            Some("reply") => differs && is_freemail(context, &from),
            _ => differs,
        }
    }),
    ("check_from_in_blocklist", |context, _| in_globs(context, &["blocklist_from", "blacklist_from"], &from(context))),
    ("check_from_in_default_welcomelist", |context, _| {
        through(context, &["def_welcomelist_from_rcvd", "def_whitelist_from_rcvd"])
    }),
    ("check_from_in_list", |context, arguments| {
        arguments.first().is_some_and(|list| in_address_list(context, list, &from(context)))
    }),
    ("check_from_in_welcomelist", |context, _| {
        in_globs(context, &["welcomelist_from", "whitelist_from"], &from(context))
            || through(context, &["welcomelist_from_rcvd", "whitelist_from_rcvd"])
    }),
    ("check_replyto_in_list", |context, arguments| {
        arguments.first().is_some_and(|list| in_address_list(context, list, &address(context, "Reply-To")))
    }),
    ("check_subject_in_blocklist", |context, _| subject_in(context, &["blocklist_subject", "blacklist_subject"])),
    ("check_subject_in_welcomelist", |context, _| subject_in(context, &["welcomelist_subject", "whitelist_subject"])),
    ("check_to_in_all_spam", |context, _| to_in(context, &["all_spam_to"])),
    ("check_to_in_blocklist", |context, _| to_in(context, &["blocklist_to", "blacklist_to"])),
    ("check_to_in_more_spam", |context, _| to_in(context, &["more_spam_to"])),
    ("check_to_in_welcomelist", |context, _| to_in(context, &["welcomelist_to", "whitelist_to"])),
    ("check_uri_host_in_blocklist", |context, _| host_in(context, "BLOCK") || host_in(context, "BLACK")),
    ("check_uri_host_in_welcomelist", |context, _| host_in(context, "WELCOME") || host_in(context, "WHITE")),
    ("check_uri_host_listed", |context, arguments| arguments.first().is_some_and(|list| host_in(context, list))),
];

/// Words of list settings: plain ones by hash, those with `*` and `?` one by one.
#[derive(Default)]
pub struct Lists {
    words: HashMap<String, HashSet<String>>,
    globs: HashMap<String, Vec<String>>,
    pairs: HashMap<String, Vec<(String, String)>>,
}

impl Lists {
    /// Lists by the name of their setting.
    pub fn new(lists: &HashMap<String, Vec<String>>) -> Self {
        let mut all = Lists::default();
        for (name, words) in lists {
            if name.ends_with("_from_rcvd") {
                let pairs = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                all.pairs.insert(name.clone(), pairs.collect());
                continue;
            }
            let (globs, plain): (Vec<_>, Vec<_>) = words.iter().cloned().partition(|word| word.contains(['*', '?']));
            all.words.insert(name.clone(), plain.into_iter().collect());
            all.globs.insert(name.clone(), globs);
        }
        all
    }

    /// True if `word`, in lower case, is in the list.
    pub fn has(&self, list: &str, word: &str) -> bool {
        self.words.get(list).is_some_and(|words| words.contains(word))
            || self
                .globs
                .get(list)
                .is_some_and(|globs| globs.iter().any(|glob| matches(glob.as_bytes(), word.as_bytes())))
    }
}

/// True if the sender is listed together with the relay that it came from.
fn through(context: &Context<'_, '_, '_>, lists: &[&str]) -> bool {
    let Some(relay) = relays::external(&context.texts.relays).first() else { return false };
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
    mailbox(&context.texts.view.header.text(field)).1
}

fn from(context: &Context<'_, '_, '_>) -> String {
    address(context, "From")
}

/// Settings that take addresses and domains out of the free-mail domains.
const FREEMAIL_EXCEPTIONS: [&str; 2] = ["freemail_welcomelist", "freemail_whitelist"];

fn is_freemail(context: &Context<'_, '_, '_>, address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(_, domain)| {
        context.lists.has("freemail_domains", domain)
            && !FREEMAIL_EXCEPTIONS
                .iter()
                .any(|list| context.lists.has(list, address) || context.lists.has(list, domain))
    })
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
    let facts = &context.texts.facts.recipients;
    let addressed =
        facts.iter().map(|one| one.to_ascii_lowercase()).chain([address(context, "To"), address(context, "Cc")]);
    addressed.into_iter().any(|one| in_globs(context, lists, &one))
}

fn subject_in(context: &Context<'_, '_, '_>, lists: &[&str]) -> bool {
    let subject = context.texts.view.subject.to_lowercase();
    lists.iter().any(|list| context.lists.has(list, &subject))
}

fn host_in(context: &Context<'_, '_, '_>, list: &str) -> bool {
    let list = format!("enlist_uri_host {list}");
    context.texts.view.urls.iter().any(|url| {
        let mut host = url.host.as_str();
        loop {
            if context.lists.has(&list, host) {
                return true;
            }
            match host.split_once('.') {
                Some((_, parent)) if parent.contains('.') => host = parent,
                _ => return false,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(matches(b"*@example.org", b"a@example.org"));
        assert!(matches(b"a?c*", b"abcd") && matches(b"*", b"") && !matches(b"a*b", b"ac"));
    }
}
