//! `kelda topic create`.

use clap::Args;
use kelda_proto::v1::{CreateTopicRequest, ErrorReason};

use super::{config::ConfigOptions, view};
use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

/// Create a topic
///
/// JSON: as for topic describe.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name: letters, digits, '.', '_' and '-', at most 249
    name: String,
    /// Number of partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Replicas of each partition: 1, 3 or 5 [default: 3, or 1 in a cluster of fewer nodes]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    replication_factor: Option<i32>,
    #[command(flatten)]
    config: ConfigOptions,
    /// Be content if the topic exists, whatever its configuration
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    output: OutputOption,
}

impl Create {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        let request = CreateTopicRequest {
            name: self.name.clone(),
            partition_count: self.partitions,
            replication_factor: self.replication_factor.unwrap_or(0),
            config: Some(self.config.config()),
            validate_only: false,
        };
        let (topic, verb) = match client.topics().create(request).await {
            Ok(topic) => (topic, "created"),
            Err(error)
                if self.if_not_exists && error.reason() == Some(ErrorReason::TopicExists) =>
            {
                (client.topics().get(&self.name).await?, "left as it is:")
            }
            Err(error) => return Err(error.into()),
        };
        let topic = view::Topic::from(topic);
        self.output
            .output
            .print(&topic, |topic| topic.sentence(verb))
    }
}
