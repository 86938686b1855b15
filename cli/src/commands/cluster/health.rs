//! `kelda cluster health`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{
    self, ClusterUpdate, ListNodesRequest, WatchClusterRequest, watch_cluster_response::Event,
};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    client::{ClientOptions, refused},
    failure::{Exit, Failure},
    output::{OutputOption, pairs},
};

/// Pause before a broker is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// Check that all nodes are alive and every partition has a leader and all its replicas; else exit with 1
///
/// JSON: healthy, silent_nodes (their names), leaderless_partition_count, unsettled_partition_count.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Wait until that is so, at most for --timeout
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: OutputOption,
}

/// The health as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct View {
    healthy: bool,
    silent_nodes: Vec<String>,
    leaderless_partition_count: usize,
    unsettled_partition_count: usize,
}

/// The cluster as it was told.
#[derive(Default)]
struct Known {
    nodes: BTreeMap<u64, v1::Node>,
    places: BTreeMap<(String, i32), v1::PartitionPlace>,
}

impl Health {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let deadline = Instant::now() + options.timeout;
        let mut last = None;
        let view = loop {
            let looked = timeout_at(deadline, self.look(options, &mut last)).await;
            match looked {
                Ok(Ok(view)) => break view,
                Ok(Err(failure)) if !self.wait => return Err(failure),
                Ok(Err(_)) if Instant::now() + AGAIN < deadline => sleep(AGAIN).await,
                Ok(Err(failure)) if last.is_none() => return Err(failure),
                Ok(Err(_)) | Err(_) => match last {
                    Some(view) => break view,
                    None => {
                        let message =
                            "no answer in time: raise --timeout or see kelda cluster status";
                        return Err(Failure::new(Exit::Unreachable, message));
                    }
                },
            }
        };
        self.output.output.print(&view, View::text)?;
        if view.healthy {
            return Ok(());
        }
        Err(Failure::failed(
            "the cluster is not healthy: see kelda cluster nodes and kelda topic describe",
        ))
    }

    /// What the cluster looks like, or with `--wait` what it looks like once it is healthy. `last` is what it looked like
    /// meanwhile.
    async fn look(
        &self,
        options: &ClientOptions,
        last: &mut Option<View>,
    ) -> Result<View, Failure> {
        let client: Client = options.connect().await?;
        let mut service = client.cluster_service();
        // Says at once whether the broker knows the others.
        service
            .list_nodes(ListNodesRequest {})
            .await
            .map_err(refused)?;
        let request = WatchClusterRequest::default();
        let stream = service.watch_cluster(request).await.map_err(refused)?;
        let mut stream = stream.into_inner();
        let mut known = Known::default();
        while let Some(message) = stream.message().await.map_err(refused)? {
            let Some(Event::State(update) | Event::Change(update)) = message.event else {
                continue;
            };
            let more = update.more;
            known.take(update);
            if more {
                continue;
            }
            let view = known.view();
            if view.healthy || !self.wait {
                return Ok(view);
            }
            *last = Some(view);
        }
        Err(Failure::failed(
            "the broker ended the stream: repeat the command",
        ))
    }
}

impl Known {
    fn take(&mut self, update: ClusterUpdate) {
        for node in update.nodes {
            self.nodes.insert(node.id, node);
        }
        for id in update.removed_nodes {
            self.nodes.remove(&id);
        }
        for topic in update.removed_topics {
            self.places.retain(|(name, _), _| *name != topic);
        }
        for place in update.partitions {
            let key = (place.topic.clone(), place.partition);
            self.places.insert(key, place);
        }
    }

    fn view(&self) -> View {
        let silent = self.nodes.values().filter(|node| !node.alive);
        let count = |is: fn(&v1::PartitionPlace) -> bool| {
            self.places.values().filter(|place| is(place)).count()
        };
        let mut view = View {
            healthy: false,
            silent_nodes: silent.map(|node| node.name.clone()).collect(),
            leaderless_partition_count: count(|place| place.leader == 0),
            unsettled_partition_count: count(|place| !place.settled),
        };
        view.healthy = view == View::default();
        view
    }
}

impl View {
    fn text(&self) -> String {
        let silent = if self.silent_nodes.is_empty() {
            "none".to_owned()
        } else {
            self.silent_nodes.join(", ")
        };
        let healthy = if self.healthy { "yes" } else { "no" };
        pairs(&[
            ("healthy", healthy.to_owned()),
            ("silent nodes", silent),
            (
                "partitions without leader",
                self.leaderless_partition_count.to_string(),
            ),
            (
                "partitions without all replicas",
                self.unsettled_partition_count.to_string(),
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_healthy_when_all_are_there() {
        let mut known = Known::default();
        let node = |alive| v1::Node {
            id: 1,
            name: "node1".to_owned(),
            alive,
            ..v1::Node::default()
        };
        let place = |leader, settled| v1::PartitionPlace {
            topic: "t".to_owned(),
            leader,
            settled,
            ..v1::PartitionPlace::default()
        };
        let update = |node, place| ClusterUpdate {
            nodes: vec![node],
            partitions: vec![place],
            ..ClusterUpdate::default()
        };
        known.take(update(node(true), place(1, true)));
        assert!(known.view().healthy);
        for bad in [
            update(node(false), place(1, true)),
            update(node(true), place(0, true)),
            update(node(true), place(1, false)),
        ] {
            known.take(bad);
            assert!(!known.view().healthy);
        }
        known.take(ClusterUpdate {
            removed_topics: vec!["t".to_owned()],
            ..ClusterUpdate::default()
        });
        assert!(known.view().healthy);
    }
}
