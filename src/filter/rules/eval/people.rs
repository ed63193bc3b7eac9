//! HeaderEval: how many are addressed, and in what order. Pure.

use super::{Context, Function, number};
use crate::filter::message::header::mailboxes;

/// By name.
pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_to_in_subject", check_for_to_in_subject),
    ("similar_recipients", similar_recipients),
    ("sorted_recipients", sorted_recipients),
];

/// Recipients that are compared; each is with each.
const COMPARED_MAX: usize = 256;
/// Fewer are alike by chance.
const SIMILAR_MIN: usize = 5;
/// Fewer are in order by chance.
const SORTED_MIN: usize = 7;
/// First letters that are compared.
const LETTERS: usize = 2;

fn recipients<'c>(context: &'c Context<'_, '_, '_>) -> &'c [String] {
    context.texts.once.recipients.get_or_init(|| read_recipients(context))
}

fn read_recipients(context: &Context<'_, '_, '_>) -> Vec<String> {
    let header = &context.texts.view.header;
    let addresses = |names: &[&str]| -> Vec<String> {
        let fields = names.iter().flat_map(|name| header.all(name));
        fields.flat_map(|field| mailboxes(field.text()).map(|(_, address)| address).collect::<Vec<_>>()).collect()
    };
    let mut all = addresses(&["To", "Cc"]);
    if all.len() < SIMILAR_MIN {
        all.extend(addresses(&["Bcc"]));
    }
    all.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
    all.truncate(COMPARED_MAX);
    all
}

/// How many pairs of recipients begin with the same two letters, before or behind the `@`, per pair.
fn similar_recipients(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let all = recipients(context);
    let mut alike = 0u32;
    let mut pairs = 0u32;
    if all.len() >= SIMILAR_MIN {
        let start = |text: &str| text.chars().take(LETTERS).collect::<String>();
        let ends: Vec<_> = all
            .iter()
            .map(|one| {
                let host = one.rsplit_once('@').map_or("", |(_, host)| host);
                (start(one), start(host), host)
            })
            .collect();
        for (place, (user, letters, host)) in ends.iter().enumerate() {
            for (other_user, other_letters, other_host) in &ends[place + 1..] {
                alike += u32::from(user == other_user) + u32::from(letters == other_letters && host != other_host);
                pairs += 1;
            }
        }
    }
    let share = f64::from(alike) / f64::from(pairs.max(1));
    number(arguments, 0).is_none_or(|low| share >= low) && number(arguments, 1).is_none_or(|high| share < high)
}

fn sorted_recipients(context: &Context<'_, '_, '_>, _: &[String]) -> bool {
    let all = recipients(context);
    all.len() >= SORTED_MIN && all.is_sorted()
}

fn check_for_to_in_subject(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let to = context.texts.address("To");
    let subject = context.texts.view.header.text("Subject").trim().to_ascii_lowercase();
    if to.is_empty() {
        return false;
    }
    let user = to.split('@').next().unwrap_or_default();
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    match arguments.first().map(String::as_str) {
        Some("address") => subject.match_indices(&to).any(|(at, _)| {
            boundary(subject[..at].chars().next_back()) && boundary(subject[at + to.len()..].chars().next())
        }),
        Some("user") => {
            let replied = subject.strip_prefix("re:").or_else(|| subject.strip_prefix("fw:")).map(str::trim_start);
            let second = replied.map(|rest| rest.split_once(' ').map_or(rest, |(_, rest)| rest.trim_start()));
            let called = subject.strip_prefix(user).map(str::trim_start).is_some_and(|rest| {
                rest.is_empty()
                    || rest.starts_with([',', ':', ';', '!', '?', '-'])
                        && rest[1..].chars().next().is_none_or(char::is_whitespace)
            });
            called || replied == Some(user) || second == Some(user)
        }
        _ => false,
    }
}
