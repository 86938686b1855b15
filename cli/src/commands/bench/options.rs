//! Options that all measurements have, and the topic they need.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::CreateTopicRequest;
use tonic::Code;

use crate::{client::refused, failure::Failure};

/// The topic to measure with.
#[derive(Clone, Debug, Args)]
pub(super) struct TopicOptions {
    /// Topic
    #[arg(long)]
    pub(super) topic: String,
    /// Create the topic if it does not exist
    #[arg(long)]
    create: bool,
    /// Partitions of the topic, if it is created
    #[arg(long, value_name = "N", default_value_t = 1, requires = "create", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
}

impl TopicOptions {
    /// Creates the topic if that was asked for.
    pub(super) async fn prepare(&self, client: &Client) -> Result<(), Failure> {
        if !self.create {
            return Ok(());
        }
        let request = CreateTopicRequest {
            name: self.topic.clone(),
            partition_count: self.partitions,
            ..Default::default()
        };
        match client.topic_service().create_topic(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(refused(status)),
            _ => Ok(()),
        }
    }
}
