//! Moves of a plan, as they are shown.

use kelda_proto::v1;
use serde::Serialize;

use crate::output::Table;

/// A plan, or what was begun of it, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Plan {
    moves: Vec<Move>,
    moving_partition_count: i32,
}

#[derive(Debug, Serialize)]
struct Move {
    topic: String,
    partition: i32,
    replicas_before: Vec<u64>,
    replicas_after: Vec<u64>,
    leader_before: u64,
    leader_after: u64,
    reason: String,
}

impl Plan {
    pub(super) fn new(moves: Vec<v1::AssignmentMove>, moving_partition_count: i32) -> Self {
        Self {
            moves: moves.into_iter().map(Move::from).collect(),
            moving_partition_count,
        }
    }

    /// The moves in a table, or `nothing` if there are none.
    pub(super) fn text(&self, nothing: &str) -> String {
        let moving = format!("{} partitions are moving\n", self.moving_partition_count);
        if self.moves.is_empty() {
            return format!("{nothing}\n{moving}");
        }
        let mut table = Table::new(["TOPIC", "PARTITION", "REPLICAS", "LEADER", "REASON"]);
        for made in &self.moves {
            table.row([
                made.topic.clone(),
                made.partition.to_string(),
                change(&ids(&made.replicas_before), &ids(&made.replicas_after)),
                change(
                    &made.leader_before.to_string(),
                    &made.leader_after.to_string(),
                ),
                made.reason.clone(),
            ]);
        }
        table.render() + &moving
    }
}

impl From<v1::AssignmentMove> for Move {
    fn from(made: v1::AssignmentMove) -> Self {
        let reason = made.reason().as_str_name();
        let reason = reason.strip_prefix("ASSIGNMENT_REASON_").unwrap_or(reason);
        Self {
            reason: reason.to_lowercase(),
            topic: made.topic,
            partition: made.partition,
            replicas_before: made.replicas_before,
            replicas_after: made.replicas_after,
            leader_before: made.leader_before,
            leader_after: made.leader_after,
        }
    }
}

fn change(before: &str, after: &str) -> String {
    if before == after {
        before.to_owned()
    } else {
        format!("{before} -> {after}")
    }
}

fn ids(nodes: &[u64]) -> String {
    let nodes: Vec<_> = nodes.iter().map(u64::to_string).collect();
    nodes.join(",")
}
