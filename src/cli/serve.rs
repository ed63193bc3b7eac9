//! `weir serve`: runs the gateway until it is told to stop. I/O: everything; signals.
//!
//! SIGTERM and SIGINT stop it, SIGHUP makes it read its configuration again, a second SIGTERM ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigFile, Exit};
use crate::base::sys;
use crate::flow::gateway::Gateway;
use crate::front::systemd::Notifier;
use crate::observe::log;

/// Arguments of `weir serve`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    let log = log::init(&config.log).map_err(|error| Exit::No.because(format!("[log]: {error}")))?;
    let notifier = Notifier::from_env();
    let gateway = Gateway::start(config, args.config.path(), Some(log.clone())).map_err(|error| {
        log.attach();
        tracing::error!(%error, "can't start");
        Exit::No.because(error)
    })?;
    if let Err(error) = sys::release_code() {
        tracing::debug!(%error, "what only the start needed stays in memory");
    }
    let served = gateway.block_on(serve(&gateway, &notifier));
    notifier.stopping();
    gateway.stop();
    log.attach();
    served.map_err(|error| {
        tracing::error!(%error, "signals can't be heard");
        Exit::No
    })
}

/// Waits for signals until one says stop; keeps systemd's watchdog content meanwhile.
async fn serve(gateway: &Gateway, notifier: &Notifier) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    notifier.ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(gateway, notifier),
            () = watchdog(notifier) => ping(gateway, notifier),
        }
    }
    tokio::spawn(end_at_once(terminate));
    Ok(())
}

fn reload(gateway: &Gateway, notifier: &Notifier) {
    notifier.reloading();
    if let Err(problems) = gateway.reload() {
        tracing::error!(%problems, "the configuration is bad; the old one stays in force");
    }
    notifier.ready();
}

/// Without a ping systemd starts the process anew, which is what a lost reactor or committer needs.
fn ping(gateway: &Gateway, notifier: &Notifier) {
    if gateway.is_whole() {
        notifier.watchdog();
    } else {
        tracing::error!("a reactor or a thread of the spool has ended; waiting for the watchdog");
    }
}

async fn watchdog(notifier: &Notifier) {
    match notifier.watchdog_every() {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
}

/// A second SIGTERM does not wait for conversations. Nothing acknowledged is lost: it is on disk.
async fn end_at_once(mut terminate: Signal) {
    terminate.recv().await;
    std::process::exit(1);
}
