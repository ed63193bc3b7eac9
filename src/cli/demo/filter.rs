//! The filter's part of the demo: mail is taken, marked, kept back and refused, and each step is explained. I/O: everything, by the gateway.
//!
//! It runs on a listener that acts upon verdicts, after the books of the first part are closed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, Reply};
use super::report::fit;
use super::samples::{Fate, Sample, Way, text};
use super::world::World;
use crate::admin::model::{Acted, Lesson, Selection};
use crate::cli::api::Api;
use crate::cli::explain::{self, Told};
use crate::cli::table::say;
use crate::config::Config;
use crate::filter::Engine;
use crate::flow::again::{Again, Court};
use crate::observe::trace;
use crate::observe::trace::read::{Wanted, each};
use crate::policy::Domains;

const FROM: &str = "nora@shop.example";
const TO: &[&str] = &["carol@weir.example"];
/// A record is written within milliseconds; a machine under load may take longer.
const RECORD_WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What fits a terminal of today.
const COLUMNS: usize = 120;
/// The threshold of the replay: what was kept back would be refused.
const REPLAYED: (&str, &str) = ("reject", "8");

/// What must become of a message: its record's fate, and its score.
struct Wish {
    title: &'static str,
    subject: &'static str,
    body: &'static str,
    fate: &'static str,
}

/// Each has one reason more than the one before.
const WISHES: [Wish; 4] = [
    Wish { title: "wanted", subject: "Your order", body: "It has left our house.\n", fate: "accepted" },
    Wish { title: "spam, marked", subject: "free money", body: "Our cash giveaway.\n", fate: "accepted" },
    Wish {
        title: "spam, kept back",
        subject: "free money",
        body: "Our cash giveaway, with a FREE report.\n",
        fate: "quarantined",
    },
    Wish {
        title: "spam, refused",
        subject: "free money",
        body: "Our cash giveaway, with a FREE report.\nGUARANTEED, see http://192.0.2.7/ <script\n\
               This is a test: XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n",
        fate: "rejected",
    },
];

/// Sends the filter's samples, explains, releases and replays; gives all that is not as it must be.
/// # Errors
/// When it can't even begin.
pub async fn run(world: &World) -> Result<Vec<String>, String> {
    let client = Client::new(world)?.towards(world.address("filtered").port());
    let folder = world.config.data_dir.join(trace::FOLDER);
    let (mut faults, mut told) = (Vec::new(), Vec::new());
    say("The same gateway on a listener that acts upon its verdicts:");
    for wish in &WISHES {
        let found = pass(&client, &folder, wish).await?;
        say(&line(wish.title, &found));
        if found.record.fate != wish.fate {
            faults.push(format!("{}: must be {}, but is {}", wish.title, wish.fate, found.record.fate));
        }
        faults.extend(against_sum(&found));
        told.push(found);
    }
    let [_, _, kept, refused] = &told[..] else { unreachable!("one record for each wish") };
    shown(&format!("\nweir explain {}", refused.record.id), &explain::story(&refused.record, &[]));
    faults.extend(release(world, kept).await?);
    faults.extend(replay(world, &folder, &kept.record.id)?);
    Ok(faults)
}

async fn pass(client: &Client, folder: &Path, wish: &Wish) -> Result<Told, String> {
    let content = text(FROM, TO[0], wish.subject, wish.body);
    let sample = Sample { title: wish.title, way: Way::Mx, from: Some(FROM), to: TO, content, fate: Fate::Delivered };
    let reference = match client.send(&sample, false).await.reply {
        Reply::Accepted(id) => id.to_string(),
        Reply::Refused(_, said) => said.rsplit(' ').next().unwrap_or_default().to_owned(),
        Reply::Unclear(why) => return Err(format!("{}: {why}", wish.title)),
    };
    let until = Instant::now() + RECORD_WAIT_MAX;
    loop {
        let told = explain::find(folder, &reference).map_err(|error| error.to_string())?;
        if let Some(told) = told.into_iter().next() {
            return Ok(told);
        }
        if Instant::now() > until {
            return Err(format!("{}: nothing is recorded of {reference}", wish.title));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn line(title: &str, told: &Told) -> String {
    let record = &told.record;
    let parcel = record.parcels.first();
    let score = parcel.and_then(|parcel| parcel.score).unwrap_or_default();
    let action = parcel.map_or("", |parcel| parcel.action.as_str());
    let reply = if record.fate == "rejected" { record.decided.reply.as_str() } else { record.decided.setting.as_str() };
    fit(&format!("  {title:<16} score {score:>6}  {action:<10} {reply}"), COLUMNS)
}

/// The sheet that is printed must add up to the score.
fn against_sum(told: &Told) -> Option<String> {
    let record = &told.record;
    let parcel = record.parcels.first()?;
    let thousandths = |points: f64| (points * 1000.0).round() as i64;
    let counted = record.sheet(parcel).filter(|reason| !reason.shadow);
    let sum: i64 = counted.map(|reason| thousandths(reason.points)).sum();
    (sum != thousandths(parcel.score?)).then(|| format!("the sheet of {} does not add up", record.id))
}

/// Releases what was kept back, as wanted mail.
async fn release(world: &World, kept: &Told) -> Result<Option<String>, String> {
    let (config, id) = (world.config.clone(), kept.record.id.clone());
    let selection = Selection { ids: vec![id.clone()], filter: None, teach: Some(Lesson::Ham) };
    let asked = move || -> Option<Acted> { Api::running(&config)?.post("/v1/quarantine/release", &selection).ok() };
    // The API's client waits on a runtime of its own.
    let acted = tokio::task::spawn_blocking(asked).await.map_err(|error| error.to_string())?;
    let acted = acted.ok_or("the API does not answer")?;
    say(&format!("\nweir quarantine release {id} --learn\n  {} released, {} learned", acted.count, acted.taught));
    Ok(((acted.count, acted.taught) != (1, 1)).then(|| "the release did not deliver and teach one message".to_owned()))
}

/// Judges the records again with another threshold.
fn replay(world: &World, folder: &Path, kept: &str) -> Result<Option<String>, String> {
    let mut config: Config = world.config.clone();
    config.set_score(REPLAYED.0, REPLAYED.1)?;
    let config = Arc::new(config);
    let engine = Engine::open(&config.filter, None).map_err(|error| error.to_string())?;
    let domains = Domains::new(config.clone());
    let court = Court { engine: &engine, config: &config, domains: &domains };
    let mut changed: Vec<Again> = Vec::new();
    let read = each(folder, &Wanted::default(), |found| {
        if let trace::Entry::Decision(record) = &found.entry
            && record.client.listener == "filtered"
        {
            let content = found.content(record).ok().flatten();
            changed.extend(
                court.judge(record, content.as_deref()).into_iter().filter(|again| again.before.1 != again.after.1),
            );
        }
        true
    });
    read.map_err(|error| error.to_string())?;
    let rows = changed.iter().map(|again| {
        let (before, after) = (again.before, again.after);
        format!("{}: {} {} -> {} {}", again.id, before.1.as_str(), before.0, after.1.as_str(), after.0)
    });
    let rows: Vec<String> = rows.collect();
    shown(&format!("\nweir replay --set {}={}", REPLAYED.0, REPLAYED.1), &rows.join("\n"));
    let is_right = changed.len() == 1 && changed[0].id == kept && changed[0].after.1.as_str() == REPLAYED.0;
    Ok((!is_right).then(|| "the replay must change one message, the one that was kept back".to_owned()))
}

fn shown(title: &str, text: &str) {
    say(title);
    text.lines().for_each(|line| say(&fit(&format!("  {line}"), COLUMNS)));
}
