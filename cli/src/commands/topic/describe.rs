//! `kelda topic describe`.

use clap::Args;

use super::view;
use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

/// Show a topic's configuration and partitions
///
/// JSON: name, id, partition_count, replication_factor, config {retention_ms, retention_bytes,
/// record_bytes_max, batch_bytes_max} with -1 for no limit, create_time, partitions [{partition, leader (0: none), replicas,
/// log_start_offset, end_offset, size_bytes}].
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name of the topic
    name: String,
    #[command(flatten)]
    output: OutputOption,
}

impl Describe {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        let topic = view::Topic::from(client.topics().get(&self.name).await?);
        self.output.output.print(&topic, view::Topic::description)
    }
}
