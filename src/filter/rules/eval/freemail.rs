//! FreeMail: addresses that anybody gets for nothing. Pure.

use std::borrow::Cow;

use super::{Context, Function};
use crate::filter::message::header::{lossy, mailboxes};
use crate::filter::rules::definition::FieldSpec;
use crate::filter::rules::uris::shown_addresses;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_freemail_body", |context, _| shown_freemail(context).iter().any(|address| context.matches(address))),
    ("check_freemail_from", |context, _| {
        let wanted = |all: &[String]| all.iter().any(|one| is_freemail(context, one) && context.matches(one));
        match addresses(context, "Resent-From").first() {
            Some(resent) => wanted(std::slice::from_ref(resent)),
            None => AUTHORS.iter().any(|name| wanted(&addresses(context, name))),
        }
    }),
    ("check_freemail_header", |context, arguments| {
        let found = arguments.first().map(|name| addresses(context, name)).unwrap_or_default();
        found.iter().any(|one| is_freemail(context, one) && context.matches(one))
    }),
    ("check_freemail_replyto", check_freemail_replyto),
    // Ours: whoever answers, answers to a free address that is not the author's; the text is not asked.
    ("check_freemail_answers", |context, _| {
        let (from, reply) = (addresses(context, "From"), addresses(context, "Reply-To"));
        reply.iter().any(|one| is_freemail(context, one) && !from.contains(one))
    }),
];

/// Settings that take addresses and domains out of the free-mail domains.
const EXCEPTIONS: [&str; 2] = ["freemail_welcomelist", "freemail_whitelist"];
/// Addresses and free-mail addresses in a text from which on it is a list, as in SpamAssassin.
const SHOWN_MAX: usize = 5;
const FREE_MAX: usize = 3;
/// Addresses at free-mail providers that are nobody's.
const NOBODY: [&str; 10] = [
    "abuse@",
    "support@",
    "sales@",
    "info@",
    "helpdesk@",
    "contact@",
    "kontakt@",
    "postmaster@",
    "hostmaster@",
    "domainmaster@",
];
/// Senders of newsletters, whose answers go elsewhere as a rule.
const BULK: [&str; 14] = [
    "postmaster",
    "-bounce",
    "-request",
    "-admin",
    "-owner",
    "owner-",
    "return-",
    "bounce-",
    "bounced-",
    "sentto-",
    "noreply",
    "no-reply",
    "no_reply",
    "no.reply",
];

/// Where a sender stands that nobody sent again.
const AUTHORS: [&str; 5] = ["From", "Envelope-Sender", "Resent-Sender", "X-Envelope-From", "EnvelopeFrom"];

/// The addresses of a field, in lower case.
fn addresses<'c>(context: &'c Context<'_, '_, '_>, field: &str) -> Cow<'c, [String]> {
    let name = field.split(':').next().unwrap_or(field);
    let read = || match context.texts.header(&FieldSpec::parse(name)) {
        Some(value) => {
            let addresses = |line| mailboxes(line).map(|(_, address)| address.to_ascii_lowercase());
            lossy(&value).split('\n').flat_map(addresses).collect()
        }
        None => Vec::new(),
    };
    // Several functions ask for these.
    let once = &context.texts.once;
    match name.to_ascii_lowercase().as_str() {
        "envelopefrom" => context.texts.envelope_from().map(str::to_ascii_lowercase).into_iter().collect(),
        "from" => once.authors.get_or_init(read).into(),
        "reply-to" => once.answers.get_or_init(read).into(),
        _ => read().into(),
    }
}

fn is_freemail(context: &Context<'_, '_, '_>, address: &str) -> bool {
    address.rsplit_once('@').is_some_and(|(_, domain)| {
        context.lists.has("freemail_domains", domain)
            && !NOBODY.iter().any(|user| address.starts_with(user))
            && !EXCEPTIONS.iter().any(|list| context.lists.has(list, address) || context.lists.has(list, domain))
    })
}

/// Free-mail addresses in the text. A text with very many is a list of addresses, and says nothing.
fn shown_freemail(context: &Context<'_, '_, '_>) -> Vec<String> {
    let shown = shown_addresses(context.texts.view);
    let free: Vec<String> = shown.iter().filter(|one| is_freemail(context, one)).cloned().collect();
    if shown.len() >= SHOWN_MAX || free.len() >= FREE_MAX { Vec::new() } else { free }
}

/// The answer goes to another free-mail address than the sender's, by Reply-To or by what the text says.
fn check_freemail_replyto(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let sender = context.texts.envelope_from().unwrap_or_default().to_ascii_lowercase();
    if BULK.iter().any(|mark| sender.contains(mark)) {
        return false;
    }
    let (from, reply) = (addresses(context, "From"), addresses(context, "Reply-To"));
    let free = |all: &[String]| all.iter().any(|one| is_freemail(context, one));
    let (from_free, reply_free) = (free(&from), free(&reply));
    if from_free && reply_free && !from.iter().any(|one| reply.contains(one)) {
        return true;
    }
    let asked = match arguments.first().map(String::as_str) {
        Some("reply") => (reply.is_empty() || reply_free) && from_free,
        _ => reply_free,
    };
    let compared = if reply_free { &reply } else { &from };
    asked && shown_freemail(context).iter().any(|shown| compared.iter().any(|one| one != shown))
}
