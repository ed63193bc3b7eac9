//! `weir quarantine`: what was kept back as spam. I/O: the API of a running Weir.

use clap::Subcommand;

use super::api::Api;
use super::queue::{ActArgs, ListArgs, OneArgs, act, list, show};
use super::{ConfigFile, Exit};
use crate::admin::model::{Lesson, QueueAction};

/// Arguments of `weir quarantine`.
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
    /// Deliver messages after all.
    Release {
        #[command(flatten)]
        act: ActArgs,
        /// Teach the classifier that they are wanted.
        #[arg(long)]
        learn: bool,
    },
    /// Throw messages away.
    Drop {
        #[command(flatten)]
        act: ActArgs,
        /// Teach the classifier that they are spam.
        #[arg(long)]
        learn: bool,
    },
}

/// Asks, prints.
pub fn run(args: Args) -> Result<(), Exit> {
    let api = Api::find(&args.config)?;
    match args.what {
        What::List(list_args) => list(&api, "/v1/quarantine", &list_args),
        What::Show(one) => show(&api, &one),
        What::Release { act: args, learn } => {
            act(&api, "/v1/quarantine", QueueAction::Release, args, learn.then_some(Lesson::Ham))
        }
        What::Drop { act: args, learn } => {
            act(&api, "/v1/quarantine", QueueAction::Drop, args, learn.then_some(Lesson::Spam))
        }
    }
}
