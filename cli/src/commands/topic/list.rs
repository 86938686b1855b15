//! `kelda topic list`.

use clap::Args;

use super::view;
use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

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
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        let topics = client.topics().list(&self.prefix).await?;
        let topics: Vec<view::Topic> = topics.into_iter().map(view::Topic::from).collect();
        self.output
            .output
            .print(&topics, |topics| view::table(topics))
    }
}
