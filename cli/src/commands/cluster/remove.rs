//! `kelda cluster remove`.

use std::time::Duration;

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{RemoveNodeRequest, RemoveNodeResponse};
use tokio::time::{Instant, sleep};

use super::find;
use crate::{
    client::{ClientOptions, refused},
    failure::Failure,
};

/// Pause before another look at a node that is being emptied.
const AGAIN: Duration = Duration::from_millis(500);

/// Take an empty node out of the cluster for good
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name or id of the node
    node: String,
    /// For a node that is dead: replace its replicas first, and wait for that, at most for --timeout
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub(super) async fn run(self, client: &Client, options: &ClientOptions) -> Result<(), Failure> {
        let deadline = Instant::now() + options.timeout;
        let node = find(client, &self.node).await?;
        loop {
            let request = RemoveNodeRequest {
                node,
                force: self.force,
            };
            let answer = client.cluster_service().remove_node(request).await;
            let RemoveNodeResponse {
                removed,
                replica_count,
            } = answer.map_err(refused)?.into_inner();
            if removed {
                let done = format!("removed node {}\n", self.node);
                return crate::output::write_stdout(done.as_bytes());
            }
            if Instant::now() + AGAIN >= deadline {
                let message = format!(
                    "node {} has {replica_count} replicas left, which are being replaced: repeat the command, or raise --timeout",
                    self.node
                );
                return Err(Failure::failed(message));
            }
            sleep(AGAIN).await;
        }
    }
}
