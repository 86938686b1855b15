//! Carries a plan out, a few partitions at a time.

use std::{collections::BTreeSet, time::Duration};

use kelda_proto::{
    internal::v1::{
        CatalogCommand,
        catalog_command::{self as command, MoveReplicas, move_replicas},
    },
    v1,
};

use super::{Overview, cluster, described, moving};
use crate::{
    broker::{Broker, Error, status::count},
    consensus::CatalogView,
    machine::{
        catalog::{Topic, TopicRange},
        placement::{self, Change, Move, Reason},
    },
    telemetry::clock,
    types::NodeId,
};

/// Partitions in movement at a time: each copies a whole log. More of them would share the same disks and networks, and
/// take from clients what they win.
const MOVING_MAX: usize = 10;
/// Leaders that change at a time: each is a short gap for its clients.
const LEADERS_MAX: usize = 50;
/// How long a leader may take to hand over before its replica is moved all the same.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// Which moves are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Those that somebody waits for.
    Urgent,
    /// All of them.
    All,
}

impl Pace {
    fn allows(self, reason: Reason) -> bool {
        let slow = matches!(reason, Reason::LeadersUnbalanced | Reason::LoadUnbalanced);
        self == Self::All || !slow
    }
}

impl Broker {
    /// Carries out what the plan begins with.
    pub async fn rebalance(&self) -> Result<v1::RebalanceResponse, Error> {
        self.check_ready()?;
        let overview = self.overview().await?;
        let moves = self.begin_moves(&overview, Pace::All).await;
        let catalog = self.shared.catalog.view();
        Ok(v1::RebalanceResponse {
            moves,
            moving_partition_count: count(moving(&catalog, &overview)),
        })
    }

    /// Whether there is nothing to move.
    pub(super) fn is_balanced(&self, overview: &Overview) -> bool {
        let catalog = self.shared.catalog.view();
        placement::plan(&cluster(&catalog, overview), 1).is_empty()
    }

    /// Begins as many moves as there is room for, at most one of each partition. What fails is planned again.
    pub(super) async fn begin_moves(
        &self,
        overview: &Overview,
        pace: Pace,
    ) -> Vec<v1::AssignmentMove> {
        let catalog = self.shared.catalog.view();
        let cluster = cluster(&catalog, overview);
        let room = MOVING_MAX.saturating_sub(moving(&catalog, overview));
        let plan = placement::plan(&cluster, MOVING_MAX + LEADERS_MAX);
        let words = described(&catalog, overview, &plan);
        let (mut replicas, mut leaders) = (0, 0);
        let mut seen = BTreeSet::new();
        let mut begun = Vec::new();
        for (made, words) in plan.iter().zip(words) {
            // The second move of a partition supposes that the first has ended.
            if !seen.insert((made.topic, made.partition)) || !pace.allows(made.reason) {
                continue;
            }
            let (done, limit) = match &made.change {
                Change::Replicas { .. } => (&mut replicas, room),
                Change::Leader { .. } => (&mut leaders, LEADERS_MAX),
            };
            // The half of an exchange would be taken back.
            let is_half = made.reason == Reason::LoadUnbalanced && limit > 0 && *done == limit;
            if *done >= limit && !is_half {
                continue;
            }
            if self.begin_move(&catalog, made).await {
                *done += 1;
                begun.push(words);
            }
        }
        begun
    }

    /// Begins a move; whether that was possible.
    async fn begin_move(&self, catalog: &CatalogView, made: &Move) -> bool {
        let mut topics = catalog.topics_from(TopicRange::default());
        let Some(topic) = topics.find(|topic| topic.id == made.topic) else {
            return false;
        };
        let number = made.partition.cast_signed();
        match &made.change {
            Change::Leader { to, .. } => self
                .transfer_leadership(&topic.name, number, *to, HAND_OVER_PATIENCE)
                .await
                .is_ok(),
            Change::Replicas {
                before,
                after,
                leader,
            } => {
                // Whoever has the log takes over without an election. If it does not, the group elects somebody.
                if let Some(next) = leader.filter(|next| before.contains(next)) {
                    let handed = self
                        .transfer_leadership(&topic.name, number, next, HAND_OVER_PATIENCE)
                        .await;
                    if let Err(error) = handed {
                        tracing::debug!(topic = topic.name, partition = number, %error, "leader is not handed over");
                    }
                }
                self.move_replicas(topic, made.partition, before, after)
                    .await
            }
        }
    }

    async fn move_replicas(
        &self,
        topic: &Topic,
        partition: u32,
        before: &[NodeId],
        after: &[NodeId],
    ) -> bool {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|id| id.0).collect();
        let moves = vec![move_replicas::Move {
            partition,
            before: ids(before),
            after: ids(after),
        }];
        let command = CatalogCommand {
            time_ms: clock::now_ms(),
            command: Some(command::Command::MoveReplicas(MoveReplicas {
                topic: topic.name.clone(),
                topic_id: topic.id,
                moves,
            })),
        };
        match self.shared.catalog.change(&command).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(topic = topic.name, partition, %error, "partition is not moved");
                false
            }
        }
    }
}
