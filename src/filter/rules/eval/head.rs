//! HeaderEval, RelayEval: what stands in the header and which way it came. Pure.

use super::{Context, Function, number};
use crate::filter::message::header::{Field, has_encoded_word, lossy};
use crate::filter::rules::definition::FieldSpec;
use crate::filter::rules::relays;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_all_trusted", |context, _| {
        let relays = &context.texts.relays;
        // Mail from a host of ours that nobody outside has handled, and of which no hop is unknown.
        !relays.internal().is_empty() && relays.external().is_empty() && relays.unreadable == 0
    }),
    ("check_equal_from_domains", |context, _| {
        let sender = context.texts.envelope_from().unwrap_or_default().to_ascii_lowercase();
        let from = context.texts.author_address();
        let (from, sender) = (second_level(from), second_level(&sender));
        from.is_some() && sender.is_some() && from != sender
    }),
    ("check_for_forged_gw05_received_headers", |context, _| {
        let fields = context.texts.view.header.all("Received");
        fields.map(|field| field.unfolded()).any(|text| {
            let words: Vec<&str> = text.split(' ').collect();
            matches!(words.as_slice(), ["from", _, "by", by, "with", "ESMTP;", ..] if !by.contains('.'))
        })
    }),
    ("check_for_forged_received_ip_helo", |context, _| mismatches(context).0 > 0),
    ("check_for_forged_received_trail", |context, _| mismatches(context).1 > 1),
    ("check_for_from_domain_in_received_headers", from_domain_in_received),
    ("check_for_matching_env_and_hdr_from", |context, _| {
        let sender = context.texts.envelope_from().unwrap_or_default();
        sender.eq_ignore_ascii_case(context.texts.author_address())
    }),
    ("check_for_missing_to_header", |context, _| {
        let header = &context.texts.view.header;
        ["To", "Apparently-To"].iter().all(|name| header.first(name).is_none())
    }),
    ("check_for_no_rdns_dotcom_helo", |context, _| {
        let mut outside = context.texts.relays.external().iter().filter(|relay| !relays::is_private(&relay.ip));
        outside.next_back().is_some_and(|relay| {
            let helo = relay.helo.to_ascii_lowercase();
            relay.nameless && BIG_HELOS.iter().any(|name| is_below(&helo, name))
        })
    }),
    ("check_for_sender_no_reverse", |context, _| {
        let first = context.texts.relays.external().last();
        first.is_some_and(|relay| relay.rdns.contains('.') && !relays::is_private(&relay.ip))
    }),
    ("check_header_count_range", |context, arguments| {
        let Some(name) = arguments.first() else { return false };
        let mut values: Vec<_> = context.texts.view.header.all(name).map(|field| field.unfolded()).collect();
        values.sort();
        values.dedup();
        let count = values.len() as f64;
        count >= number(arguments, 1).unwrap_or(1.0) && number(arguments, 2).is_none_or(|most| count <= most)
    }),
    ("check_illegal_chars", check_illegal_chars),
    ("check_mailfrom_matches_rcvd", |context, _| {
        let sender = context.texts.envelope_from().unwrap_or_default().to_ascii_lowercase();
        let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
        let outside = context.texts.relays.external().first();
        !domain.is_empty()
            && outside.is_some_and(|relay| registered(&relay.rdns.to_ascii_lowercase()) == registered(domain))
    }),
    ("check_messageid_not_usable", |context, _| {
        let leave = context.texts.view.header.text("List-Unsubscribe").to_ascii_lowercase();
        let received = context.texts.header(&FieldSpec::parse("Received")).unwrap_or_default();
        let through = |mark: &[u8]| memchr::memmem::find(&received, mark).is_some();
        leave.contains("<mailto:leave-")
            || leave.contains("-unsubscribe@")
            || through(b"/CWT/DCE)")
            || through(b"iPlanet Messaging Server")
    }),
    ("check_no_relays", |context, _| context.texts.relays.all.is_empty() && context.texts.relays.unreadable == 0),
    ("check_ratware_envelope_from", |context, _| {
        let (to, sender) = (context.texts.address("To"), context.texts.envelope_from().unwrap_or_default());
        let sender = sender.to_ascii_lowercase();
        let rewritten = sender.starts_with("srs0") || sender.starts_with("srs1");
        to.split_once('@').is_some_and(|(user, domain)| {
            let domain = registered(domain);
            !rewritten
                && domain.contains('.')
                && sender.match_indices(domain).any(|(at, _)| {
                    let rest =
                        sender[at + domain.len()..].chars().next().map(|c| &sender[at + domain.len() + c.len_utf8()..]);
                    rest.and_then(|rest| rest.strip_prefix(user)).is_some_and(|rest| rest.starts_with('@'))
                })
        })
    }),
    ("check_ratware_name_id", |context, _| {
        let ids = context.texts.header(&FieldSpec::parse("MESSAGEID")).unwrap_or_default();
        let (ids, from) = (lossy(&ids), context.texts.view.header.text("From"));
        let rest = ids.split('<').skip(1).find_map(|rest| {
            let (letters, address) = rest.split_once('.')?;
            let random = letters.len() == 28 && letters.bytes().all(|byte| byte.is_ascii_uppercase());
            address.split_once('>').filter(|_| random).map(|(address, _)| address)
        });
        rest.is_some_and(|address| from.contains('"') && from.contains(&format!("<{address}>")))
    }),
    ("check_relays_unparseable", |context, _| context.texts.relays.unreadable > 0),
    ("check_symbol", |context, arguments| {
        // True if another room, or the digests, found this symbol.
        let symbols = &context.texts.facts.symbols;
        arguments.first().is_some_and(|name| symbols.iter().any(|symbol| symbol.name == *name))
    }),
    ("check_unresolved_template", check_unresolved_template),
    ("helo_ip_mismatch", |context, _| {
        context.texts.relays.external().iter().any(|relay| {
            let (Ok(helo), Ok(ip)) = (relay.helo.parse::<std::net::Ipv4Addr>(), relay.ip.parse::<std::net::Ipv4Addr>())
            else {
                return false;
            };
            let private = relays::is_private(&relay.helo) || relays::is_private(&relay.ip);
            !private && helo.octets()[..3] != ip.octets()[..3]
        })
    }),
    ("subject_is_all_caps", subject_is_all_caps),
];

/// Providers whose hosts all have names.
const BIG_HELOS: [&str; 12] = [
    "lycos.com",
    "lycos.co.uk",
    "hotmail.com",
    "localhost.com",
    "excite.com",
    "caramail.com",
    "cs.com",
    "aol.com",
    "msn.com",
    "yahoo.com",
    "drizzle.com",
    "googlemail.com",
];

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

fn registered(host: &str) -> &str {
    crate::filter::message::url::registered(host)
}

/// The last two labels of an address's domain.
fn second_level(address: &str) -> Option<&str> {
    let (_, domain) = address.rsplit_once('@')?;
    let start = domain.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    Some(&domain[start..]).filter(|domain| !domain.is_empty())
}

/// Relays whose HELO is another network's address, and relays that were handed over by somebody else than they say.
fn mismatches(context: &Context<'_, '_, '_>) -> (u32, u32) {
    let relays = context.texts.relays.external();
    let (mut addresses, mut names) = (0, 0);
    for (place, relay) in relays.iter().enumerate() {
        let by = relay.by.to_ascii_lowercase();
        let by = organisation(&by);
        if !is_name(by) {
            continue;
        }
        if let (Ok(helo), Ok(ip)) = (relay.helo.parse::<std::net::Ipv4Addr>(), relay.ip.parse::<std::net::Ipv4Addr>()) {
            let other = helo.octets()[..2] != ip.octets()[..2];
            addresses += u32::from(other && !relays::is_private(&relay.helo));
        }
        // The relay above says whom it had it from; that one should be who received it here.
        let above = place.checked_sub(1).map(|place| relays[place].rdns.to_ascii_lowercase());
        let above = above.as_deref().map(organisation).unwrap_or_default();
        names += u32::from(is_name(above) && above != by && !(by == "msn.com" && above == "hotmail.com"));
    }
    (addresses, names)
}

/// The last two labels of a name, three below a short country.
fn organisation(host: &str) -> &str {
    if !host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return host;
    }
    let long = host.rsplit('.').next().is_some_and(|last| last.len() >= 3 || matches!(last, "ie" | "fr" | "de"));
    let labels = if long { 1 } else { 2 };
    host.rmatch_indices('.').nth(labels).map_or(host, |(at, _)| &host[at + 1..])
}

fn is_name(host: &str) -> bool {
    let edges = |c: char| c.is_ascii_alphanumeric() || c == '_';
    host.contains('.')
        && host.starts_with(edges)
        && host.ends_with(edges)
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// `('domain', 'true')`: From is of the domain, and a host of it handed the mail to a host of it; `'false'`: no such host did.
fn from_domain_in_received(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let (Some(domain), wanted) = (arguments.first(), arguments.get(1).is_some_and(|word| word == "true")) else {
        return false;
    };
    let domain = domain.to_ascii_lowercase();
    let seen = context.texts.relays.all.iter().any(|relay| {
        is_below(&relay.rdns.to_ascii_lowercase(), &domain) && is_below(&relay.by.to_ascii_lowercase(), &domain)
    });
    context.texts.author_address().contains(&domain) && seen == wanted
}

/// Share of bytes that no header may hold, and their number, which must both be reached. UTF-8 may be there since RFC 6532.
fn check_illegal_chars(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let Some(name) = arguments.first().map(|name| name.trim_end_matches(":raw")) else { return false };
    let view = context.texts.view;
    let raw: Vec<u8> = if name == "ALL" {
        view.header.raw.to_vec()
    } else {
        view.header.all(name).flat_map(|field| field.raw.iter().copied().chain([b'\n'])).collect()
    };
    let control = |byte: u8| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    let controls = raw.iter().filter(|byte| control(**byte)).count();
    if raw.trim_ascii().is_empty() || controls == 0 && !raw.is_ascii() && std::str::from_utf8(&raw).is_ok() {
        return false;
    }
    let mut illegal = raw.iter().filter(|byte| control(**byte) || **byte >= 0x7f).count();
    let signs = raw.iter().filter(|byte| matches!(byte, 0xa2 | 0xa3 | 0xae)).count();
    // One sign of a currency or a trade mark is a slip of an honest sender.
    if name.eq_ignore_ascii_case("subject") && illegal > 0 && signs == 1 {
        illegal -= 1;
    }
    illegal as f64 >= number(arguments, 2).unwrap_or(1.0)
        && illegal as f64 / raw.len() as f64 >= number(arguments, 1).unwrap_or(0.0)
}

/// Fields in which `%A_B` may stand for itself.
const FREE_FIELDS: [&str; 9] =
    ["X-VMS-To", "X-UIDL", "X-Face", "To", "Cc", "From", "Subject", "References", "In-Reply-To"];

/// A template's variable that nobody filled in.
fn check_unresolved_template(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let header = &context.texts.view.header;
    let is_id = |name: &str| {
        let tail = name.len().checked_sub("message-id".len()).and_then(|at| name.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case("message-id"))
    };
    // A sign that was encoded stands behind `=?`.
    let may = |raw: &[u8]| memchr::memchr(b'%', raw).is_some() || has_encoded_word(raw);
    let fields = header.fields.iter().filter(|field| {
        may(field.raw) && !is_id(field.name) && !FREE_FIELDS.iter().any(|name| field.name.eq_ignore_ascii_case(name))
    });
    fields.map(Field::text).any(|text| {
        text.as_bytes().windows(3).any(|window| {
            window[0] == b'%'
                && window[1].is_ascii_uppercase()
                && (window[2].is_ascii_uppercase() || matches!(window[2], b'_' | b'-'))
        })
    })
}

/// Words that a program puts before a subject.
const REPLIES: [&str; 10] = ["re:", "fwd:", "fw:", "aw:", "antwort:", "wg:", "sv:", "vb:", "vs:", "vl:"];
/// Charsets in which letters without case look like capitals.
const NO_CASE: [&str; 5] = ["=?koi", "=?euc", "=?big5", "=?gb", "=?iso-2022"];

fn subject_is_all_caps(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let subject = context.texts.view.header.text("Subject");
    let mut text = subject.trim();
    while let Some(rest) = REPLIES.iter().find_map(|word| {
        let head = text.get(..word.len())?;
        head.eq_ignore_ascii_case(word).then(|| text[word.len()..].trim_start())
    }) {
        text = rest;
    }
    let raw =
        context.texts.view.header.first("Subject").map(|field| field.raw.to_ascii_lowercase()).unwrap_or_default();
    let foreign = NO_CASE.iter().any(|charset| memchr::memmem::find(&raw, charset.as_bytes()).is_some());
    // Short subjects and single words are capitals by chance.
    text.contains(char::is_whitespace)
        && text.len() >= 10
        && !foreign
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && !text.bytes().any(|byte| byte.is_ascii_lowercase())
}
