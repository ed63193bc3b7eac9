//! `weir user`: the users of the embedded store. I/O: the users file, standard input and output.
//!
//! A password never stands on the command line, where `ps` and the shell's history would show it: it comes from a file,
//! from standard input (`--password-file -`), or is made here and printed once. A running server sees the change
//! within a second.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{ConfigFile, Exit};
use crate::base::secret::Secret;
use crate::store::users::file::{self, UserEntry, UsersFile, canonical};
use crate::store::users::password;
use crate::wire::address::Mailbox;

/// A line of a password file that is longer is no password.
const PASSWORD_BYTES_MAX: u64 = 512;

/// Arguments of `weir user`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Subcommand, Debug)]
enum UserCommand {
    /// Add a user.
    Add {
        /// Login and mailbox name: `alice`, or `alice@example.org` for this domain only.
        name: String,
        /// Keep the clear password too, which APOP needs.
        #[arg(long)]
        apop: bool,
        /// A further address of this user; may be repeated.
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Give a user another password.
    Passwd {
        /// The user.
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Remove a user; the mailbox stays on disk.
    Remove {
        /// The user.
        name: String,
    },
    /// List users and their addresses.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args, Debug)]
struct PasswordArgs {
    /// File whose first line is the password; `-` reads standard input; without it one is made and printed.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Why the command ends without having done its work.
enum Failure {
    Refused(String),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(why) => f.write_str(why),
            Failure::Io(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// A bad file is a refusal, which trying again won't change; a full disk may be better later.
    fn exit(&self) -> Exit {
        use io::ErrorKind::{InvalidData, InvalidInput, NotFound, PermissionDenied};
        match self {
            Failure::Refused(_) => Exit::No,
            Failure::Io(error) => match error.kind() {
                InvalidData | InvalidInput | NotFound | PermissionDenied => Exit::No,
                _ => Exit::Temporary,
            },
        }
    }
}

/// Does it on the users file of the configuration.
pub fn run(args: Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    let path = &config.auth.users_file;
    let done = match args.command {
        UserCommand::Add { name, apop, addresses, password } => add(path, &name, apop, addresses, &password),
        UserCommand::Passwd { name, password } => change_password(path, &name, &password),
        UserCommand::Remove { name } => remove(path, &name),
        UserCommand::List { json } => list(path, json),
    };
    done.map_err(|failure| failure.exit().because(format!("{}: {failure}", path.display())))
}

fn add(path: &Path, name: &str, apop: bool, addresses: Vec<String>, source: &PasswordArgs) -> Result<(), Failure> {
    let name = canonical(name);
    file::check_name(&name).map_err(|why| Failure::Refused(why.to_owned()))?;
    let password = source.read()?;
    let entry = UserEntry { addresses, ..secrets(&name, &password, apop) };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    file::edit(path, |users| {
        if users.users.contains_key(&name) {
            return Err(Failure::Refused(format!("{name} is there already (see `weir user passwd`)")));
        }
        check_addresses(users, &entry.addresses)?;
        users.users.insert(name.clone(), entry);
        Ok(())
    })?;
    source.show(&name, &password);
    Ok(())
}

fn check_addresses(users: &UsersFile, addresses: &[String]) -> Result<(), Failure> {
    for address in addresses {
        Mailbox::parse(address, true).map_err(|why| Failure::Refused(format!("{address}: {why}")))?;
        let taken = |user: &UserEntry| user.addresses.iter().any(|other| canonical(other) == canonical(address));
        if let Some((owner, _)) = users.users.iter().find(|(_, user)| taken(user)) {
            return Err(Failure::Refused(format!("{address} is {owner}'s already")));
        }
    }
    Ok(())
}

fn secrets(name: &str, password: &Secret, apop: bool) -> UserEntry {
    UserEntry {
        password: password::hash(password),
        scram: Some(password::scram_text(&password::scram_keys(name, password))),
        apop: apop.then(|| password.expose().to_owned()),
        addresses: Vec::new(),
    }
}

fn change_password(path: &Path, name: &str, source: &PasswordArgs) -> Result<(), Failure> {
    let name = canonical(name);
    let password = source.read()?;
    file::edit(path, |users| {
        let user = users.users.get_mut(&name).ok_or_else(|| unknown(&name))?;
        let addresses = std::mem::take(&mut user.addresses);
        *user = UserEntry { addresses, ..secrets(&name, &password, user.apop.is_some()) };
        Ok::<_, Failure>(())
    })?;
    source.show(&name, &password);
    Ok(())
}

fn remove(path: &Path, name: &str) -> Result<(), Failure> {
    let name = canonical(name);
    file::edit(path, |users| users.users.remove(&name).map(|_| ()).ok_or_else(|| unknown(&name)))
}

fn list(path: &Path, json: bool) -> Result<(), Failure> {
    let users = file::read(path)?.users;
    if json {
        let rows = users.iter().map(|(name, user)| {
            serde_json::json!({
                "name": name,
                "addresses": user.addresses,
                "scram": user.scram.is_some(),
                "apop": user.apop.is_some(),
            })
        });
        println!("{}", serde_json::Value::Array(rows.collect()));
        return Ok(());
    }
    for (name, user) in users {
        let apop = if user.apop.is_some() { " (apop)" } else { "" };
        println!("{name}{apop} {}", user.addresses.join(" "));
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    Failure::Refused(format!("there is no user {name}"))
}

impl PasswordArgs {
    fn read(&self) -> Result<Secret, Failure> {
        match &self.password_file {
            None => Ok(password::generate()),
            Some(path) if path == Path::new("-") => first_line(io::stdin().lock()),
            Some(path) => {
                first_line(std::fs::File::open(path).map_err(|e| Failure::Refused(format!("{}: {e}", path.display())))?)
            }
        }
    }

    /// A password that was made here is told once; one that was brought is known.
    fn show(&self, name: &str, password: &Secret) {
        match self.password_file {
            None => println!("{name} {}", password.expose()),
            Some(_) => println!("{name}"),
        }
    }
}

fn first_line(source: impl Read) -> Result<Secret, Failure> {
    let mut line = String::new();
    BufReader::new(source.take(PASSWORD_BYTES_MAX)).read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err(Failure::Refused("the first line is no password".to_owned()));
    }
    if password.len() as u64 + 1 >= PASSWORD_BYTES_MAX {
        return Err(Failure::Refused("the password is too long".to_owned()));
    }
    Ok(Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought(dir: &Path, password: &str) -> PasswordArgs {
        let file = dir.join("pw");
        std::fs::write(&file, format!("{password}\nrest\n")).unwrap();
        PasswordArgs { password_file: Some(file) }
    }

    fn refused(result: Result<(), Failure>) -> String {
        match result {
            Err(failure) if failure.exit() == Exit::No => failure.to_string(),
            Err(failure) => panic!("temporary: {failure}"),
            Ok(()) => panic!("it was done"),
        }
    }

    #[test]
    fn a_user_comes_changes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/users.toml");
        let at = |text: &str| vec![text.to_owned()];
        assert!(add(&path, "Alice", true, at("a@x.org"), &brought(dir.path(), "pw")).is_ok());
        assert!(refused(add(&path, "alice", false, vec![], &brought(dir.path(), "pw"))).contains("already"));
        assert!(refused(add(&path, "bob", false, at("A@x.org"), &brought(dir.path(), "pw"))).contains("alice's"));
        assert!(refused(add(&path, "bob", false, at("nothing"), &brought(dir.path(), "pw"))).contains("nothing"));
        assert!(refused(add(&path, "../bob", false, vec![], &brought(dir.path(), "pw"))).contains("letters"));
        assert!(refused(add(&path, "bob", false, vec![], &brought(dir.path(), ""))).contains("no password"));
        assert!(change_password(&path, "ALICE", &brought(dir.path(), "new")).is_ok());
        let user = &file::read(&path).unwrap().users["alice"];
        assert_eq!((user.apop.as_deref(), user.addresses.len()), (Some("new"), 1));
        assert!(password::verify(Some(&user.password), &Secret::new("new")));
        assert!(remove(&path, "alice").is_ok());
        assert!(refused(remove(&path, "alice")).contains("no user"));
        assert!(refused(change_password(&path, "alice", &brought(dir.path(), "x"))).contains("no user"));
    }
}
