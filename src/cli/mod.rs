//! The command line: one file per subcommand. I/O: everything, by calling the rooms.
//!
//! A subcommand is a module with `Args` and `run(Args) -> Result<(), Exit>`, one line in [`Command`] and one in [`main`]. Results go to
//! standard output, complaints to standard error. Exit codes: [`Exit`].

mod api;
mod check;
pub mod demo;
mod dkim;
mod dns;
mod eval;
mod explain;
mod learn;
mod ledger;
mod mail_files;
mod proof;
mod quarantine;
mod queue;
mod rate;
mod reload;
mod replay;
mod report;
mod rules;
mod scan;
mod serve;
mod table;
mod trace;
pub mod user;
mod verify;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Problems};

/// What a subcommand came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It said no: not found, refused, wrong.
    No = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// Not now; try again (`EX_TEMPFAIL` of sysexits.h).
    Temporary = 75,
}

impl Exit {
    /// This, once the reason is on standard error.
    fn because(self, why: impl Display) -> Self {
        eprintln!("error: {why}");
        self
    }

    /// This, unless all is `well`.
    fn unless(self, well: bool) -> Result<(), Self> {
        if well { Ok(()) } else { Err(self) }
    }
}

/// Weir: an SMTP relay and spam-filtering gateway.
#[derive(Parser)]
#[command(name = "weir", version, about, propagate_version = true)]
struct Weir {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::Args),
    /// Show the whole way of mail on sample messages, in a gateway that needs no configuration.
    Demo(demo::Args),
    /// Prove that every recipient ever accepted is accounted for.
    Audit(proof::Args),
    /// Check the configuration and show what it means.
    Check(check::Args),
    /// Look at the queue of a running Weir, and act on it.
    Queue(queue::Args),
    /// Look at the quarantine of a running Weir, and act on it.
    Quarantine(quarantine::Args),
    /// Look at what rates count, and reset them.
    Rate(rate::Args),
    /// Read reports of others (DMARC, TLS), and look at those of a running Weir.
    Report(report::Args),
    /// Make a running Weir read its configuration again.
    Reload(reload::Args),
    /// Check who sent a message: SPF, DKIM, DMARC, ARC, and what becomes of it.
    Verify(verify::Args),
    /// Make keys that sign mail.
    Dkim(dkim::Args),
    /// Look at what DNS says of a domain, and what it should say.
    Dns(dns::Args),
    /// Add, change, remove and list the users of the embedded store.
    User(user::Args),
    /// Judge a labelled stream of messages and measure the classifier.
    Eval(eval::Args),
    /// Teach the classifier.
    Learn(learn::Args),
    /// Tell the whole story of a message: envelope, checks, DNS, score sheet, decision.
    Explain(explain::Args),
    /// Find what was decided, by address, client or time.
    Trace(trace::Args),
    /// Judge recorded mail again under other rules or scores, and say what would change.
    Replay(replay::Args),
    /// Check filter rules.
    Rules(rules::Args),
    /// Judge messages and show every reason.
    Scan(scan::Args),
}

/// Which configuration a subcommand works with.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigFile {
    /// The configuration file [default: /etc/weir/weir.toml, or built-in defaults if there is none]
    #[arg(long = "config", short = 'c', value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

/// Where a packaged Weir has its configuration.
const CONFIG_FILE: &str = "/etc/weir/weir.toml";

impl ConfigFile {
    /// The file, if there is one to read.
    pub fn path(&self) -> Option<PathBuf> {
        let packaged = || Some(PathBuf::from(CONFIG_FILE)).filter(|path| path.exists());
        self.path.clone().or_else(packaged)
    }

    /// The checked configuration: of the file, or the defaults.
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(&self) -> Result<Config, Problems> {
        match self.path() {
            Some(path) => Config::load(&path),
            None => Ok(Config::default_for(&data_dir())),
        }
    }

    /// The same for a subcommand that has nothing better to do with the problems than to print them.
    /// # Errors
    /// The exit code, once all that is wrong is on standard error.
    pub fn load_or_complain(&self) -> Result<Config, Exit> {
        self.load().map_err(|problems| {
            eprintln!("{problems}");
            Exit::No
        })
    }
}

/// Where data is kept without a configuration: below the home of whoever runs it, so that trying Weir needs no root.
fn data_dir() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    state.or_else(home).unwrap_or_else(|| PathBuf::from(".")).join("weir")
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let weir = Weir::parse();
    let done = match weir.command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Audit(args) => proof::audit(&args),
        Command::Check(args) => check::run(&args),
        Command::Queue(args) => queue::run(args),
        Command::Quarantine(args) => quarantine::run(args),
        Command::Rate(args) => rate::run(args),
        Command::Report(args) => report::run(args),
        Command::Reload(args) => reload::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Dkim(args) => dkim::run(args),
        Command::Dns(args) => dns::run(args),
        Command::Eval(args) => eval::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Learn(args) => learn::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::User(args) => user::run(args),
    };
    ExitCode::from(done.err().unwrap_or(Exit::Done) as u8)
}
