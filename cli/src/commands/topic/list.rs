//! `kelda topic list`.

use clap::Args;

use super::view;
use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

/// List topics in the order of their names
///
/// JSON: an array of objects with name, id, partition_count, replication_factor, config {retention_ms, retention_bytes,
/// record_bytes_max, batch_bytes_max} with -1 for no limit, create_time.
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
