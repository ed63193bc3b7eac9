//! `weir queue`: what waits, why, and what to do about it. I/O: the API of a running Weir.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;

use super::api::Api;
use super::table::{age, plain, print_json, say, tell, until};
use super::{ConfigFile, Exit, proof, table};
use crate::admin::model::{Acted, Filter, Lesson, QueueAction, QueueDetail, QueueEntry, Selection, Sentence, State};
use crate::admin::query::encode;
use crate::config::units::{duration, show_size};

/// Arguments of `weir queue`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List messages, oldest first.
    List(ListArgs),
    /// Show all that is known of a message.
    Show(OneArgs),
    /// Say what a message waits for.
    Why(OneArgs),
    /// Try messages again now.
    Retry(ActArgs),
    /// Keep messages back until they are released.
    Hold(ActArgs),
    /// Deliver messages that are held or in quarantine.
    Release(ActArgs),
    /// Throw messages away, without a bounce.
    Drop(ActArgs),
    /// Prove that the journal and what Weir knows of the queue agree; works on a stopped Weir too.
    Verify {
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Which messages.
#[derive(clap::Args, Default)]
pub(super) struct FilterArgs {
    /// Only with this destination (a domain, or a next hop's URL).
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Only from this address, @domain or login; <> for bounces.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Only to this address, or @domain.
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Only accepted longer ago than this, such as 2h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older: Option<Duration>,
    /// Only in this state.
    #[arg(long, value_parser = state)]
    state: Option<State>,
}

fn state(word: &str) -> Result<State, String> {
    let found = State::WORDS.iter().find(|(own, _)| *own == word).map(|(_, state)| *state);
    found.ok_or_else(|| format!("there is {}", State::WORDS.map(|(word, _)| word).join(", ")))
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        Filter {
            state: self.state,
            destination: self.destination.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            older_secs: self.older.map(|older| older.as_secs()),
        }
    }

    fn query(&self, limit: usize) -> String {
        let filter = self.filter();
        let mut query = format!("limit={limit}");
        let mut add = |name: &str, value: Option<String>| {
            query.extend(value.map(|value| format!("&{name}={}", encode(&value))));
        };
        add("state", filter.state.map(|state| state.as_str().to_owned()));
        add("destination", filter.destination);
        add("sender", filter.sender);
        add("recipient", filter.recipient);
        add("older_secs", filter.older_secs.map(|secs| secs.to_string()));
        query
    }
}

/// Arguments of a list.
#[derive(clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Arguments of what is about one message.
#[derive(clap::Args)]
pub(super) struct OneArgs {
    /// Its queue id.
    id: String,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    /// The message itself, as it would be delivered but for the fields in front.
    #[arg(long)]
    content: bool,
}

/// Arguments of an action.
#[derive(clap::Args)]
pub(super) struct ActArgs {
    /// Queue ids.
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every message there is.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Asks, prints.
pub fn run(args: Args) -> Result<(), Exit> {
    let api = || Api::find(&args.config);
    let act = |action, which| act(&api()?, "/v1/queue", action, which, None);
    match args.what {
        What::List(wanted) => list(&api()?, "/v1/queue", &wanted),
        What::Show(one) => show(&api()?, &one),
        What::Why(one) => why(&api()?, &one),
        What::Retry(which) => act(QueueAction::Retry, which),
        What::Hold(which) => act(QueueAction::Hold, which),
        What::Release(which) => act(QueueAction::Release, which),
        What::Drop(which) => act(QueueAction::Drop, which),
        What::Verify { json } => proof::verify(&args.config, json),
    }
}

pub(super) fn list(api: &Api, path: &str, args: &ListArgs) -> Result<(), Exit> {
    let entries: Vec<QueueEntry> = api.get(&format!("{path}?{}", args.filter.query(args.limit)))?;
    let row = |entry: &QueueEntry| {
        vec![
            entry.id.clone(),
            entry.state.as_str().to_owned(),
            age(entry.accepted),
            entry.next_attempt.map(until).unwrap_or_default(),
            show_size(entry.size),
            format!("<{}>", entry.sender),
            format!("{} to {}", entry.recipients, entry.destination),
            entry.reason.clone(),
        ]
    };
    let header = ["ID", "STATE", "AGE", "NEXT", "SIZE", "FROM", "TO", "REASON"];
    table::list(args.json, &entries, &header, row, "nothing");
    Ok(())
}

pub(super) fn show(api: &Api, args: &OneArgs) -> Result<(), Exit> {
    if args.content {
        let path = format!("/v1/queue/{}/content", encode(&args.id));
        let missing = || format!("there is no message {} in the queue, or it can't be read", plain(&args.id));
        let bytes = api.bytes(&path).ok_or_else(|| Exit::No.because(missing()))?;
        // Whoever closed the pipe has seen enough.
        let _ = std::io::stdout().write_all(&bytes);
        return Ok(());
    }
    let detail: QueueDetail = api.get(&format!("/v1/queue/{}", encode(&args.id)))?;
    if args.json {
        print_json(&detail);
        return Ok(());
    }
    let message = &detail.message;
    let login = detail.login.as_ref().map(|login| format!(", login {login}")).unwrap_or_default();
    let facts = [
        ("id", message.id.clone()),
        ("state", message.state.as_str().to_owned()),
        ("accepted", format!("{} ago by {}", age(message.accepted), detail.listener)),
        ("client", format!("{} ({}){login}", detail.client, detail.helo)),
        ("from", format!("<{}>", message.sender)),
        ("size", show_size(message.size)),
        ("verdict", detail.verdict.clone()),
        ("reason", message.reason.clone()),
    ];
    facts.iter().for_each(|(name, value)| say(&format!("{name:<10}{}", plain(value))));
    for recipient in &detail.recipients {
        let next = recipient.next_attempt.map(|next| format!(", next attempt {}", until(next))).unwrap_or_default();
        let attempts = recipient.attempts;
        let line = match recipient.destination.as_str() {
            "" => format!("<{}> {}", recipient.address, recipient.state),
            at => format!("<{}> {} at {at}, attempts {attempts}{next}", recipient.address, recipient.state),
        };
        say(&format!("{:<10}{}", "to", plain(&line)));
        if !recipient.last_reply.is_empty() {
            say(&format!("{:<10}  {}", "", plain(&recipient.last_reply)));
        }
    }
    Ok(())
}

fn why(api: &Api, args: &OneArgs) -> Result<(), Exit> {
    let sentence: Sentence = api.get(&format!("/v1/queue/{}/why", encode(&args.id)))?;
    tell(args.json, &sentence, |sentence| plain(&sentence.text));
    Ok(())
}

pub(super) fn act(
    api: &Api,
    path: &str,
    action: QueueAction,
    args: ActArgs,
    teach: Option<Lesson>,
) -> Result<(), Exit> {
    let filter = args.filter.filter();
    let filtered = filter != Filter::default();
    if args.ids.is_empty() && !filtered && !args.all {
        return Err(Exit::Usage.because("name queue ids, a filter such as --sender, or --all"));
    }
    if !args.ids.is_empty() && filtered {
        return Err(Exit::Usage.because("name either queue ids or a filter"));
    }
    let selection = Selection { filter: args.ids.is_empty().then_some(filter), ids: args.ids, teach };
    let word = QueueAction::WORDS.iter().find(|(_, own)| *own == action).map(|(word, _)| *word);
    let acted: Acted = api.post(&format!("{path}/{}", word.expect("the table names every action")), &selection)?;
    tell(args.json, &acted, |acted| {
        let taught = if teach.is_some() { format!(", {} learned", acted.taught) } else { String::new() };
        format!("{} {}{taught}", acted.count, if acted.count == 1 { "item" } else { "items" })
    });
    Exit::No.unless(acted.count > 0)
}
