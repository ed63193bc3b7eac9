//! `weir dkim`: makes keys that sign mail, and says what to publish. I/O: writes key files.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Exit;
use super::table::say;
use crate::base::owner;
use crate::verify::dkim::keygen::{KeyKind, generate};
use crate::verify::dkim::sign::SigningKey;

/// Arguments of `weir dkim`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make one key.
    Keygen {
        /// The domain that signs
        domain: String,
        /// The name of the key in DNS
        selector: String,
        /// What kind
        #[arg(long, value_enum, default_value = "rsa")]
        kind: KeyKind,
        /// Where to write the key file
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
    /// Make the next pair of keys (RSA and Ed25519), named by today's date.
    Rotate {
        /// The domain that signs
        domain: String,
        /// Where to write the key files
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
}

/// Makes what is asked for.
pub fn run(args: Args) -> Result<(), Exit> {
    let made = match args.what {
        What::Keygen { domain, selector, kind, directory } => make(&domain, &selector, kind, &directory),
        What::Rotate { domain, directory } => rotate(&domain, &directory),
    };
    made.map_err(|error| Exit::No.because(error))
}

fn make(domain: &str, selector: &str, kind: KeyKind, directory: &Path) -> Result<(), String> {
    let (file, record) = write_key(domain, selector, kind, directory)?;
    say("# publish:");
    say(&record);
    say("# then add to weir.toml, and `weir reload`:");
    say(&section(domain, selector, &file));
    Ok(())
}

fn rotate(domain: &str, directory: &Path) -> Result<(), String> {
    let today = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    let pair = [(format!("{today}r"), KeyKind::Rsa), (format!("{today}e"), KeyKind::Ed25519)];
    let mut sections = Vec::new();
    say("# 1. publish, and wait until `weir dns` finds them:");
    for (selector, kind) in pair {
        let (file, record) = write_key(domain, &selector, kind, directory)?;
        say(&record);
        sections.push(section(domain, &selector, &file));
    }
    say(&format!("# 2. put these in place of the sections of {domain} in weir.toml, and `weir reload`:"));
    sections.iter().for_each(|section| say(section));
    say("# 3. a week later, when no mail signed by the old keys is on its way, empty their p= in DNS.");
    Ok(())
}

/// Writes the key file, never over another; gives its path and the record in zone-file form.
fn write_key(domain: &str, selector: &str, kind: KeyKind, directory: &Path) -> Result<(PathBuf, String), String> {
    for name in [domain, selector] {
        crate::wire::address::check_domain(name).map_err(|error| format!("{name}: {error}"))?;
    }
    let pem = generate(kind)?;
    let key = SigningKey::from_pem(domain, selector, &pem).map_err(|error| error.to_string())?;
    let directory = std::path::absolute(directory).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let file = directory.join(format!("{selector}.{domain}.pem"));
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let written = opened.and_then(|mut open| {
        open.write_all(pem.as_bytes())?;
        owner::inherit(&file, &open)?;
        open.sync_all()
    });
    written.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((file, txt_record(&format!("{selector}._domainkey.{domain}"), &key.record())))
}

/// A TXT record in zone-file form, cut into strings that DNS can carry.
pub fn txt_record(name: &str, text: &str) -> String {
    let strings: Vec<String> = text.as_bytes().chunks(STRING_BYTES_MAX).map(quoted).collect();
    format!("{name}. IN TXT ( {} )", strings.join(" "))
}

/// RFC 1035 §3.3: one string of a TXT record.
const STRING_BYTES_MAX: usize = 255;

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(bytes))
}

fn section(domain: &str, selector: &str, file: &Path) -> String {
    format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey = \"{}\"", file.display())
}
