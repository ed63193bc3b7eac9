//! HeaderEval: letters from a big provider that no relay of that provider has seen. Pure.
//!
//! What a provider's own letters look like is what SpamAssassin's authors found; a letter that went through a list counts as honest.

use super::{Context, Function};
use crate::filter::message::header::{Field, lossy};
use crate::filter::rules::definition::FieldSpec;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_fake_aol_relay_in_rcvd", |context, _| {
        let received = received(context).to_ascii_lowercase();
        let relay = received.match_indices(" rly-").any(|(at, _)| {
            let name = &received.as_bytes()[at + 5..];
            name.len() > 4
                && name[..2].iter().all(u8::is_ascii_lowercase)
                && name[2..4].iter().all(u8::is_ascii_digit)
                && name[4] == b'.'
        });
        relay
            && !received.contains("/aol-")
            && !["esmtp id relay", "esmtp id mailrelay", "esmtp id mailin"].iter().any(|id| received.contains(id))
    }),
    ("check_for_forged_eudoramail_received_headers", |context, _| {
        is_from(context, "eudoramail.com")
            && !is_gated(context)
            && !(received(context).contains("whowhere.com;") && has_address(context, "X-Sender-Ip"))
    }),
    ("check_for_forged_gmail_received_headers", forged_gmail),
    ("check_for_forged_hotmail_received_headers", |context, _| hotmail(context) == Hotmail::Forged),
    ("check_for_forged_juno_received_headers", forged_juno),
    ("check_for_forged_yahoo_received_headers", forged_yahoo),
    ("check_for_no_hotmail_received_headers", |context, _| hotmail(context) == Hotmail::Missing),
    ("gated_through_received_hdr_remover", |context, _| is_gated(context)),
];

/// Received fields in one line.
fn received<'c>(context: &'c Context<'_, '_, '_>) -> &'c str {
    context.texts.once.received.get_or_init(|| {
        let fields = context.texts.header(&FieldSpec::parse("Received")).unwrap_or_default();
        let mut line = String::with_capacity(fields.len());
        for word in lossy(&fields).split_ascii_whitespace() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        line
    })
}

fn field<'c>(context: &'c Context<'_, '_, '_>, name: &str) -> &'c str {
    context.texts.view.header.text(name)
}

fn is_from(context: &Context<'_, '_, '_>, domain: &str) -> bool {
    let from = context.texts.author_address();
    from.strip_suffix(domain).is_some_and(|head| head.ends_with(|c: char| !c.is_alphanumeric() && c != '_'))
}

fn has_address(context: &Context<'_, '_, '_>, name: &str) -> bool {
    let text = field(context, name);
    text.split(|c: char| c.is_whitespace() || "[](),".contains(c)).any(|word| word.parse::<std::net::IpAddr>().is_ok())
}

/// Went through something that removes Received fields.
fn is_gated(context: &Context<'_, '_, '_>) -> bool {
    let list = field(context, "Mailing-List");
    let received = received(context);
    if list.starts_with("contact ") && list.ends_with("; run by ezmlm") {
        let mut owners = context.texts.view.header.all("Delivered-To");
        let to_list = owners.any(|field| field.text().starts_with("mailing list "));
        if to_list && received.contains("(qmail ") && received.contains(" invoked ") {
            return true;
        }
    }
    context.texts.view.header.first("Received").is_none() || received.contains("from groups.msn.com (")
}

fn forged_gmail(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    /// Both of Google's own fields are at least this long.
    const GOOGLE_FIELD_BYTES_MIN: usize = 60;
    if !is_from(context, "gmail.com") {
        return false;
    }
    let google = field(context, "X-Received");
    let inside = (google.contains("by 10.") || google.contains("by 2002:a")) && google.contains(" with SMTP id ");
    let long = |name: &str| field(context, name).len() + 1 >= GOOGLE_FIELD_BYTES_MIN;
    let stamped = long("X-Gm-Message-State") && long("X-Google-Smtp-Source");
    let seen = inside || stamped || received(context).contains("by smtp.googlemail.com with ESMTPSA id ");
    !seen
}

#[derive(PartialEq, Eq)]
enum Hotmail {
    Forged,
    Fine,
    Missing,
}

fn hotmail(context: &Context<'_, '_, '_>) -> Hotmail {
    let named = |field: &Field<'_>| memchr::memmem::find(field.raw, b"hotmail.com").is_some();
    if !context.texts.view.header.all("Received").any(named) && !is_from(context, "hotmail.com") {
        return Hotmail::Fine;
    }
    let received = received(context);
    let (ip, organisation) = (has_address(context, "X-Originating-Ip"), field(context, "X-OriginatorOrg"));
    let theirs = organisation.contains("hotmail.com") || organisation.contains("msonline-outlook");
    let through =
        |name: &str| received.split("from ").any(|hop| hop.split(" by ").next().unwrap_or(hop).contains(name));
    let honest = received.contains("from mail pickup service by hotmail.com with Microsoft SMTPSVC;")
        || is_gated(context)
        || ip
            && (through(".hotmail.com (") || through("hotmail.com ([") || received.contains(".hotmail.com with HTTP;"))
        || theirs && (through(".outbound.protection.outlook.com (") || through(".prod.outlook.com ("));
    if honest {
        return Hotmail::Fine;
    }
    let claimed = ["from ", "HELO ", "helo="].iter().any(|mark| {
        received.split(mark).skip(1).any(|rest| {
            let word = rest.split(' ').next().unwrap_or(rest);
            word.match_indices("hotmail.com")
                .any(|(at, name)| !word[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    });
    match claimed {
        true => Hotmail::Forged,
        false if is_from(context, "hotmail.com") => Hotmail::Missing,
        false => Hotmail::Fine,
    }
}

fn forged_juno(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    if !is_from(context, "juno.com") || is_gated(context) {
        return false;
    }
    let (received, mailer) = (received(context), field(context, "X-Mailer"));
    let through =
        |name: &str| received.split("from ").any(|hop| hop.split(" by ").next().unwrap_or(hop).contains(name));
    if !field(context, "X-Originating-IP").is_empty() {
        let seen = through("juno.com") || through("untd.com");
        return !seen || !mailer.contains("Juno ");
    }
    let stranger = if through("mail.com") { !mailer.contains("mail.com") } else { !through(".untd.com (webmail") };
    stranger || !has_address(context, "X-Originating-IP")
}

fn forged_yahoo(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    if !is_from(context, "yahoo.com") || is_gated(context) {
        return false;
    }
    let relays = &context.texts.relays;
    let named = |name: &str| name.ends_with(".yahoo.com");
    if relays.internal().iter().chain(relays.external().first()).any(|relay| named(&relay.rdns)) {
        return false;
    }
    let resent = !field(context, "Resent-From").is_empty() && !field(context, "Resent-To").is_empty();
    let again = field(context, "X-Received");
    let received = if resent && !again.is_empty() { again } else { received(context) };
    let mut hops = received.split("by ").skip(1);
    !hops.any(|hop| {
        let (name, rest) = hop.split_once(' ').unwrap_or((hop, ""));
        let own = ["via HTTP", "with HTTP", "with SMTP", "with NNFMP", "with ESMTP", "("];
        named(name) && own.iter().any(|how| rest.starts_with(how))
    })
}
