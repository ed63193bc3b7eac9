//! HeaderEval, RelayEval: dates, names, relays, hits of other rooms. Pure.

use mail_parser::DateTime;

use super::{Context, Function, number};
use crate::filter::message::header::mailbox;
use crate::filter::rules::relays;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_all_trusted", |context, _| context.texts.facts.trusted),
    ("check_equal_from_domains", |context, _| {
        let (from, sender) = (domain_of(context, "From"), sender_domain(context));
        !from.is_empty() && !sender.is_empty() && registered(&from) != registered(&sender)
    }),
    ("check_for_fake_aol_relay_in_rcvd", |context, _| {
        context.texts.relays.iter().any(|relay| relay.helo.ends_with(".aol.com") && relay.rdns.is_empty())
    }),
    ("check_for_forged_gmail_received_headers", |context, _| {
        forged(context, "gmail.com", &["google.com", "googlemail.com"])
    }),
    ("check_for_forged_hotmail_received_headers", |context, _| {
        forged(context, "hotmail.com", &["hotmail.com", "outlook.com", "live.com", "msn.com"])
    }),
    ("check_for_no_hotmail_received_headers", |context, _| {
        forged(context, "hotmail.com", &["hotmail.com", "outlook.com", "live.com", "msn.com"])
    }),
    ("check_for_forged_juno_received_headers", |context, _| forged(context, "juno.com", &["juno.com", "untd.com"])),
    ("check_for_forged_eudoramail_received_headers", |context, _| {
        forged(context, "eudoramail.com", &["lycos.com", "eudoramail.com"])
    }),
    ("check_for_forged_yahoo_received_headers", |context, _| forged(context, "yahoo.com", &["yahoo.com", "yahoo.net"])),
    ("check_for_matching_env_and_hdr_from", |context, _| {
        let sender = context.texts.header(&crate::filter::rules::definition::FieldSpec::parse("EnvelopeFrom"));
        let (_, from) = mailbox(&context.texts.view.header.text("From"));
        sender.is_some_and(|sender| !from.is_empty() && sender.eq_ignore_ascii_case(from.as_bytes()))
    }),
    ("check_for_missing_to_header", |context, _| context.texts.view.header.first("To").is_none()),
    ("check_for_no_rdns_dotcom_helo", |context, _| {
        outside(context).is_some_and(|relay| relay.rdns.is_empty() && relay.helo.ends_with(".com"))
    }),
    ("check_for_shifted_date", check_for_shifted_date),
    ("check_for_to_in_subject", check_for_to_in_subject),
    ("check_header_count_range", |context, arguments| {
        let Some(name) = arguments.first() else { return false };
        let count = context.texts.view.header.all(name).count() as f64;
        count >= number(arguments, 1).unwrap_or(1.0) && number(arguments, 2).is_none_or(|most| count <= most)
    }),
    ("check_illegal_chars", check_illegal_chars),
    ("check_mailfrom_matches_rcvd", |context, _| {
        let sender = sender_domain(context);
        !sender.is_empty() && outside(context).is_some_and(|relay| registered(&relay.rdns) == registered(&sender))
    }),
    ("check_no_relays", |context, _| context.texts.relays.is_empty()),
    ("check_relays_unparseable", |context, _| {
        let fields = context.texts.view.header.all("Received").count();
        fields > 0 && context.texts.relays.is_empty()
    }),
    ("check_unresolved_template", |context, _| {
        let raw = context.texts.view.header.raw;
        memchr::memmem::find(raw, b"%RND").is_some() || memchr::memmem::find(raw, b"%CUSTOM").is_some()
    }),
    ("gated_through_received_hdr_remover", |context, _| {
        context.texts.view.header.first("Mailing-List").is_some() && context.texts.relays.len() <= 1
    }),
    ("helo_ip_mismatch", |context, _| {
        outside(context).is_some_and(|relay| {
            let helo = relay.helo.trim_start_matches('!');
            helo.parse::<std::net::Ipv4Addr>().is_ok_and(|helo| helo.to_string() != relay.ip)
                && !relays::is_private(helo)
        })
    }),
    ("similar_recipients", similar_recipients),
    ("sorted_recipients", sorted_recipients),
    ("subject_is_all_caps", subject_is_all_caps),
];

fn outside<'c>(context: &'c Context<'_, '_, '_>) -> Option<&'c relays::Relay> {
    relays::external(&context.texts.relays).first()
}

fn domain_of(context: &Context<'_, '_, '_>, field: &str) -> String {
    let (_, address) = mailbox(&context.texts.view.header.text(field));
    address.rsplit_once('@').map(|(_, domain)| domain.to_owned()).unwrap_or_default()
}

fn sender_domain(context: &Context<'_, '_, '_>) -> String {
    let sender = context
        .texts
        .facts
        .reverse_path
        .clone()
        .unwrap_or_else(|| context.texts.view.header.text("Return-Path").into_owned());
    sender.trim_matches(['<', '>']).rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase()).unwrap_or_default()
}

fn registered(host: &str) -> &str {
    crate::filter::message::url::registered(host)
}

/// From an address of a big provider, though no relay of theirs had it.
fn forged(context: &Context<'_, '_, '_>, from: &str, relays: &[&str]) -> bool {
    domain_of(context, "From") == from
        && !context.texts.relays.is_empty()
        && !context
            .texts
            .relays
            .iter()
            .any(|relay| relays.iter().any(|name| relay.rdns.ends_with(name) || relay.by.ends_with(name)))
}

/// Hours that Date is ahead of the newest Received; bounds are hours, `undef` is none.
fn check_for_shifted_date(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let view = context.texts.view;
    let time =
        |text: &str| DateTime::parse_rfc822(text.trim()).filter(DateTime::is_valid).map(|date| date.to_timestamp());
    let Some(sent) = view.header.first("Date").and_then(|field| time(&field.text())) else { return false };
    let received = view.header.all("Received").filter_map(|field| time(field.unfolded().rsplit_once(';')?.1));
    let Some(nearest) = received.map(|at| sent - at).min_by_key(|shift| shift.abs()) else { return false };
    let hours = nearest as f64 / 3600.0;
    number(arguments, 0).is_none_or(|low| hours >= low) && number(arguments, 1).is_none_or(|high| hours < high)
}

fn check_for_to_in_subject(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let view = context.texts.view;
    let (_, to) = mailbox(&view.header.text("To"));
    let subject = view.subject.to_ascii_lowercase();
    let user = to.split('@').next().unwrap_or_default();
    match arguments.first().map(String::as_str) {
        Some("address") => !to.is_empty() && subject.contains(&to),
        _ => {
            user.len() > 1
                && subject.strip_prefix(user).is_some_and(|rest| rest.starts_with([',', ':', ';', '!', '?', ' ']))
        }
    }
}

/// Share of 8-bit bytes in a field, and their number, that must both be reached.
fn check_illegal_chars(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let Some(name) = arguments.first() else { return false };
    let view = context.texts.view;
    let raw: Vec<u8> = if name == "ALL" {
        view.header.raw.to_vec()
    } else {
        view.header.all(name).flat_map(|field| field.raw.iter().copied()).collect()
    };
    let high = raw.iter().filter(|byte| !byte.is_ascii()).count() as f64;
    // UTF-8 in headers is legal since RFC 6532.
    high >= number(arguments, 2).unwrap_or(1.0)
        && high / raw.len() as f64 >= number(arguments, 1).unwrap_or(0.0)
        && std::str::from_utf8(&raw).is_err()
}

fn recipients(context: &Context<'_, '_, '_>) -> Vec<String> {
    let view = context.texts.view;
    let fields = view.header.all("To").chain(view.header.all("Cc"));
    fields
        .flat_map(|field| field.text().split(',').map(|one| mailbox(one).1).collect::<Vec<_>>())
        .filter(|one| one.contains('@'))
        .collect()
}

/// Recipients that are compared; each is with each.
const COMPARED_MAX: usize = 200;

/// How many pairs of recipients begin with the same two letters or are of one host, per pair.
fn similar_recipients(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let all: Vec<String> = recipients(context).into_iter().take(COMPARED_MAX).collect();
    let ends: Vec<(&str, &str)> = all.iter().filter_map(|one| one.split_once('@')).collect();
    // SpamAssassin asks for five: fewer are alike by chance.
    if ends.len() < 5 {
        return false;
    }
    let start = |user: &str| user.chars().take(2).collect::<String>();
    let (mut alike, mut pairs) = (0u32, 0u32);
    for (place, (user, host)) in ends.iter().enumerate() {
        for (other_user, other_host) in &ends[place + 1..] {
            alike += u32::from(start(user) == start(other_user)) + u32::from(host == other_host);
            pairs += 1;
        }
    }
    let share = f64::from(alike) / f64::from(pairs);
    number(arguments, 0).is_none_or(|low| share >= low) && number(arguments, 1).is_none_or(|high| share < high)
}

fn sorted_recipients(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let all = recipients(context);
    // SpamAssassin asks for seven: fewer are in order by chance.
    all.len() >= 7 && all.is_sorted()
}

fn subject_is_all_caps(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let subject = context.texts.view.subject.trim();
    let subject = subject.trim_start_matches("Re:").trim_start_matches("RE:").trim();
    let words = subject.split_whitespace().count();
    subject.len() >= 10
        && words > 1
        && subject.is_ascii()
        && subject.bytes().any(|byte| byte.is_ascii_uppercase())
        && !subject.bytes().any(|byte| byte.is_ascii_lowercase())
}
