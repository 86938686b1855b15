//! `kelda cluster plan`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::GetAssignmentPlanRequest;

use super::moves::Plan as View;
use crate::{client::refused, failure::Failure, output::OutputOption};

/// Show what would be moved to make the cluster even, and why
///
/// JSON: moves [{topic, partition, replicas_before, replicas_after, leader_before, leader_after, reason}],
/// moving_partition_count.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    output: OutputOption,
}

impl Plan {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let plan = client
            .cluster_service()
            .get_assignment_plan(GetAssignmentPlanRequest { moves_max: 0 })
            .await
            .map_err(refused)?
            .into_inner();
        let view = View::new(plan.moves, plan.moving_partition_count);
        let nothing = "nothing to move: the cluster is even";
        self.output.output.print(&view, |view| view.text(nothing))
    }
}
