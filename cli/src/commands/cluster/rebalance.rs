//! `kelda cluster rebalance`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::RebalanceRequest;

use super::moves::Plan;
use crate::{client::refused, failure::Failure, output::OutputOption};

/// Carry the plan out now; shows what was begun, the rest follows by itself
///
/// JSON: as for cluster plan.
#[derive(Debug, Args)]
pub(crate) struct Rebalance {
    #[command(flatten)]
    output: OutputOption,
}

impl Rebalance {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let begun = client
            .cluster_service()
            .rebalance(RebalanceRequest {})
            .await
            .map_err(refused)?
            .into_inner();
        let view = Plan::new(begun.moves, begun.moving_partition_count);
        let nothing = "nothing was begun";
        self.output.output.print(&view, |view| view.text(nothing))
    }
}
