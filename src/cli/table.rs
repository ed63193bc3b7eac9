//! Text for people: columns, ages, and nothing that steers a terminal. I/O: prints, and reads the clock.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::base::unix::now_secs;
use crate::config::units::show_duration;

/// `text` with control characters escaped: most of what is shown was said by strangers.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(|c| c.is_control().then(|| c.escape_default().collect()).unwrap_or(vec![c])).collect()
}

/// Prints rows in columns as wide as their widest cell; the last column is as wide as it likes.
pub fn print(header: &[&str], rows: &[Vec<String>]) {
    let cells = |row: &Vec<String>| row.iter().map(|cell| plain(cell)).collect::<Vec<String>>();
    let rows: Vec<Vec<String>> =
        std::iter::once(header.iter().map(|cell| (*cell).to_owned()).collect()).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    for row in &rows {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(padded.collect::<Vec<String>>().join("  ").trim_end());
    }
}

/// Prints things of a kind: as JSON, or a row each; `nothing` if there are none.
pub fn list<T: Serialize>(json: bool, things: &[T], header: &[&str], row: impl Fn(&T) -> Vec<String>, nothing: &str) {
    if json {
        print_json(&things);
    } else if things.is_empty() {
        say(nothing);
    } else {
        print(header, &things.iter().map(row).collect::<Vec<_>>());
    }
}

/// Prints one thing: as JSON, or as the text that `show` makes of it.
pub fn tell<T: Serialize>(json: bool, thing: &T, show: impl FnOnce(&T) -> String) {
    if json {
        print_json(thing);
    } else {
        say(&show(thing));
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) {
    say(&serde_json::to_string_pretty(value).expect("our values have only string keys"));
}

/// Prints a line. A reader that went away (`| head`) is not an error worth a panic.
pub fn say(line: &str) {
    let _closed = writeln!(io::stdout().lock(), "{line}");
}

/// How long ago `unix_secs` was, in its two largest units.
pub fn age(unix_secs: u64) -> String {
    short(Duration::from_secs(now_secs().saturating_sub(unix_secs)))
}

/// How long until `unix_secs`.
pub fn until(unix_secs: u64) -> String {
    match unix_secs.checked_sub(now_secs()) {
        None | Some(0) => "now".to_owned(),
        Some(secs) => format!("in {}", short(Duration::from_secs(secs))),
    }
}

/// Beyond an hour nobody counts seconds, beyond a day nobody minutes.
fn short(duration: Duration) -> String {
    let unit = match duration.as_secs() {
        0..3600 => 1,
        3600..86_400 => 60,
        _ => 3600,
    };
    show_duration(Duration::from_secs(duration.as_secs() / unit * unit))
}
