//! `kelda topic`: creates, shows, changes and deletes topics.

mod alter;
mod config;
mod create;
mod delete;
mod describe;
mod list;
mod trim;
pub(crate) mod view;

use clap::Subcommand;

use crate::{client::ClientOptions, failure::Failure};

/// Commands about topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    Create(create::Create),
    List(list::List),
    Describe(describe::Describe),
    Alter(alter::Alter),
    Delete(delete::Delete),
    Trim(trim::Trim),
}

impl Topic {
    /// Runs the command.
    pub(crate) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(options).await,
            Self::List(command) => command.run(options).await,
            Self::Describe(command) => command.run(options).await,
            Self::Alter(command) => command.run(options).await,
            Self::Delete(command) => command.run(options).await,
            Self::Trim(command) => command.run(options).await,
        }
    }
}
