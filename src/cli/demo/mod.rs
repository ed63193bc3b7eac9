//! `weir demo`: the main job on embedded defaults, watched by the one who runs it. I/O: everything, by starting a gateway.
//!
//! Real DNS, SMTP with TLS and AUTH, spool, delivery, store and POP3, on loopback ports that the system picks and in a
//! folder that is removed at the end. Exit code 0 only if every message came to what it must and every sum adds up.

mod client;
pub mod dns;
mod filter;
mod identity;
mod pop3;
mod readback;
mod report;
mod run;
pub mod samples;
mod stay;
mod world;

use tokio::signal::unix::{SignalKind, signal};

use self::world::World;
use super::Exit;
use super::table::say;
use crate::config::settings::Log;
use crate::observe::log;

/// Arguments of `weir demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Leave the gateway running until Ctrl-C, and show how to talk to it.
    #[arg(long)]
    stay: bool,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Exit> {
    // Errors only: what happens is told by the table.
    let _started = log::init(&Log { level: "error".to_owned(), json: false });
    let faults = started(args).map_err(|why| Exit::No.because(why))?;
    Exit::No.unless(faults.is_empty())
}

/// Gives what is not as it must be.
fn started(args: &Args) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let (world, watched) = runtime.block_on(async {
        // Listened for from the beginning, so that the folder goes whenever it ends.
        let stopped = stop_asked().map_err(|error| error.to_string())?;
        let world = World::start().await?;
        let watched = watch(&world, args.stay, stopped).await;
        Ok::<_, String>((world, watched))
    })?;
    world.stop();
    watched
}

/// From the first message to the wish to stop.
async fn watch(world: &World, stay: bool, stopped: impl Future<Output = ()>) -> Result<Vec<String>, String> {
    tokio::pin!(stopped);
    let faults = tokio::select! {
        faults = both(world) => faults?,
        () = &mut stopped => return Err("interrupted".to_owned()),
    };
    tell(&faults);
    if stay {
        say(&format!("\n{}", stay::text(&place(world))));
        stopped.await;
    }
    Ok(faults)
}

/// The mail's whole way, then what the filter does with it.
async fn both(world: &World) -> Result<Vec<String>, String> {
    let mut faults = run::run(world).await?;
    faults.extend(filter::run(world).await?);
    say("");
    Ok(faults)
}

/// Done when SIGINT or SIGTERM comes.
fn stop_asked() -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn tell(faults: &[String]) {
    if faults.is_empty() {
        say("Everything is as it must be.");
    }
    for fault in faults {
        eprintln!("wrong: {}", super::table::plain(fault));
    }
}

fn place(world: &World) -> stay::Where<'_> {
    stay::Where {
        mx: world.address("mx"),
        submission: world.address("submission"),
        pop3: world.address("pop3"),
        pop3s: world.address("pop3s"),
        admin: world.address("admin"),
        folder: world.folder(),
    }
}
