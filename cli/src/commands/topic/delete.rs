//! `kelda topic delete`.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use serde_json::json;

use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

/// Delete a topic and all its records; asks first when run by hand
///
/// JSON: name.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name of the topic
    name: String,
    /// Do not ask, also when standard input is a terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: OutputOption,
}

impl Delete {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        if !self.yes && io::stdin().is_terminal() && !self.confirmed()? {
            return Err(Failure::failed(format!(
                "topic {} was not deleted",
                self.name
            )));
        }
        let client = options.connect().await?;
        client.topics().delete(&self.name).await?;
        let deleted = json!({ "name": self.name });
        self.output
            .output
            .print(&deleted, |_| format!("deleted topic {}", self.name))
    }

    fn confirmed(&self) -> Result<bool, Failure> {
        eprint!("Delete topic {} and all its records? [y/N] ", self.name);
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
