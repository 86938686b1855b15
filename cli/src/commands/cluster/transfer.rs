//! `kelda cluster transfer`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::TransferLeadershipRequest;

use super::find;
use crate::{client::refused, commands::options::partition, failure::Failure};

/// Make another replica the leader of a partition
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Name of the topic
    topic: String,
    /// Partition
    #[arg(value_parser = partition())]
    partition: i32,
    /// Name or id of the node that is to lead
    node: String,
}

impl Transfer {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let request = TransferLeadershipRequest {
            topic: self.topic.clone(),
            partition: self.partition,
            node: find(client, &self.node).await?,
        };
        let transferred = client.cluster_service().transfer_leadership(request).await;
        transferred.map_err(refused)?;
        let done = format!(
            "node {} leads partition {} of topic {}\n",
            self.node, self.partition, self.topic
        );
        crate::output::write_stdout(done.as_bytes())
    }
}
