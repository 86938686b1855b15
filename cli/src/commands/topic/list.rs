//! `kelda topic list`.

use clap::Args;
use kelda_client::Client;

use super::view;
use crate::{failure::Failure, output::OutputOption};

/// List topics in the order of their names
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only names that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    #[command(flatten)]
    output: OutputOption,
}

impl List {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let topics = client.topics().list(&self.prefix).await?;
        let topics: Vec<view::Topic> = topics.into_iter().map(view::Topic::from).collect();
        self.output
            .output
            .print(&topics, |topics| view::table(topics))
    }
}
