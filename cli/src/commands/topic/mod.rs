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
        let client = options.connect().await?;
        match self {
            Self::Create(command) => command.run(&client).await,
            Self::List(command) => command.run(&client).await,
            Self::Describe(command) => command.run(&client).await,
            Self::Alter(command) => command.run(&client).await,
            Self::Delete(command) => command.run(&client).await,
            Self::Trim(command) => command.run(&client).await,
        }
    }
}
