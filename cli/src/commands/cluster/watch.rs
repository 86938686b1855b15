//! `kelda cluster watch`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{
    ClusterUpdate, PartitionPlace, Topic, WatchClusterRequest, watch_cluster_response::Event,
};
use serde::Serialize;

use super::Node;
use crate::{
    client::refused,
    failure::Failure,
    output::{Output, OutputOption, write_stdout},
};

/// Show the nodes, topics and leaders of the cluster, and then each change, until interrupted
///
/// JSON: an object a line, with event (state or change) and one of node, removed_node, topic {name, partition_count,
/// replication_factor}, removed_topic, partition {topic, partition, leader, replicas, settled}.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    output: OutputOption,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line {
    event: &'static str,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Node(Node),
    RemovedNode(u64),
    Topic {
        name: String,
        partition_count: i32,
        replication_factor: i32,
    },
    RemovedTopic(String),
    Partition {
        topic: String,
        partition: i32,
        leader: u64,
        replicas: Vec<u64>,
        settled: bool,
    },
}

impl Watch {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let mut service = client.cluster_service();
        let request = WatchClusterRequest::default();
        let stream = service.watch_cluster(request).await.map_err(refused)?;
        let mut stream = stream.into_inner();
        while let Some(message) = stream.message().await.map_err(refused)? {
            let (event, update) = match message.event {
                Some(Event::State(update)) => ("state", update),
                Some(Event::Change(update)) => ("change", update),
                Some(Event::Heartbeat(_)) | None => continue,
            };
            for what in whats(update) {
                self.print(&Line { event, what })?;
            }
        }
        Ok(())
    }

    fn print(&self, line: &Line) -> Result<(), Failure> {
        let mut text = match self.output.output {
            Output::Text => format!("{:<6}  {}", line.event, line.what.sentence()),
            Output::Json => serde_json::to_string(line)
                .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?,
        };
        text.push('\n');
        write_stdout(text.as_bytes())
    }
}

fn whats(update: ClusterUpdate) -> impl Iterator<Item = What> {
    let topic = |topic: Topic| What::Topic {
        name: topic.name,
        partition_count: topic.partition_count,
        replication_factor: topic.replication_factor,
    };
    let place = |place: PartitionPlace| What::Partition {
        topic: place.topic,
        partition: place.partition,
        leader: place.leader,
        replicas: place.replicas,
        settled: place.settled,
    };
    let nodes = update.nodes.into_iter().map(|node| What::Node(node.into()));
    nodes
        .chain(update.removed_nodes.into_iter().map(What::RemovedNode))
        .chain(update.topics.into_iter().map(topic))
        .chain(update.removed_topics.into_iter().map(What::RemovedTopic))
        .chain(update.partitions.into_iter().map(place))
}

impl What {
    fn sentence(&self) -> String {
        match self {
            Self::Node(node) => format!(
                "node {} ({}) is {}: {} replicas, leads {}",
                node.id,
                node.name,
                node.state(),
                node.replica_count,
                node.leader_count
            ),
            Self::RemovedNode(id) => format!("node {id} is removed"),
            Self::Topic {
                name,
                partition_count,
                replication_factor,
            } => format!(
                "topic {name} has {partition_count} partitions, replication factor {replication_factor}"
            ),
            Self::RemovedTopic(name) => format!("topic {name} is deleted"),
            Self::Partition {
                topic,
                partition,
                leader,
                replicas,
                settled,
            } => format!(
                "partition {partition} of topic {topic} is on nodes {replicas:?}{}, led by {}",
                if *settled {
                    ""
                } else {
                    ", not all in its group"
                },
                match leader {
                    0 => "nobody".to_owned(),
                    leader => format!("node {leader}"),
                }
            ),
        }
    }
}
