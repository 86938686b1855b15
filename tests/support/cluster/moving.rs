//! Moves replicas as a node would: by a change of the catalog, proposed to its leader over the port of the nodes.

use kelda_proto::{
    internal::v1::{
        CatalogCommand, ChangeCatalogRequest,
        catalog_command::{Command, MoveReplicas, RemoveNode, move_replicas::Move},
        peer_service_client::PeerServiceClient,
    },
    v1::{
        GetStatusRequest, GetTopicRequest, ListNodesRequest, Topic,
        cluster_service_client::ClusterServiceClient, topic_service_client::TopicServiceClient,
    },
};
use tonic::Request;

use super::{Cluster, Node, workload};
use crate::support::wait::eventually;

/// What a node logs that has deleted a replica.
const DELETED: &str = "replica was moved away and is deleted";

impl Cluster {
    /// Ids of the nodes, in their order.
    pub(crate) async fn ids(&self) -> Vec<u64> {
        let channel = workload::channel(self[0].address());
        let nodes = eventually("nodes are listed", || async {
            let mut service = ClusterServiceClient::new(channel.clone());
            let nodes = service.list_nodes(ListNodesRequest {}).await.ok()?;
            Some(nodes.into_inner().nodes)
        });
        let nodes = nodes.await;
        let id = |node: &Node| {
            let address = node.address().to_string();
            let found = nodes.iter().find(|found| found.address == address);
            found.expect("it is one of them").id
        };
        self.nodes.iter().map(id).collect()
    }

    /// A topic, as a node sees it.
    pub(crate) async fn topic(&self, asked: usize, name: &str) -> Topic {
        let channel = workload::channel(self[asked].address());
        let topic = eventually("a topic is described", || async {
            let name = name.to_owned();
            let mut service = TopicServiceClient::new(channel.clone());
            let topic = service.get_topic(GetTopicRequest { name }).await.ok()?;
            topic.into_inner().topic
        });
        topic.await
    }

    /// Says where a partition is to be from now on, by places in the cluster.
    pub(crate) async fn move_partition(&self, name: &str, partition: u32, after: &[usize]) {
        let ids = self.ids().await;
        let asked = after[0];
        let after: Vec<u64> = after.iter().map(|at| ids[*at]).collect();
        let topic = self.topic(asked, name).await;
        let before = topic.partitions[partition as usize].replicas.clone();
        self.change(Command::MoveReplicas(MoveReplicas {
            topic: name.to_owned(),
            topic_id: topic.id,
            moves: vec![Move {
                partition,
                before,
                after,
            }],
        }))
        .await;
    }

    /// Takes a node out of the cluster.
    pub(crate) async fn remove_node(&self, at: usize) {
        let id = self.ids().await[at];
        self.change(Command::RemoveNode(RemoveNode {
            id,
            // Tests look for themselves whether it holds anything.
            checked_version: u64::MAX,
        }))
        .await;
    }

    async fn change(&self, command: Command) {
        let ids = self.ids().await;
        eventually("the catalog's leader carries the change out", async || {
            for (node, id) in self.nodes.iter().zip(&ids) {
                if self.change_at(node, *id, &command).await == Some(()) {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    async fn change_at(&self, node: &Node, id: u64, command: &Command) -> Option<()> {
        let status = ClusterServiceClient::new(workload::channel(node.address()))
            .get_status(GetStatusRequest {})
            .await
            .ok()?
            .into_inner();
        let mut request = Request::new(ChangeCatalogRequest {
            command: Some(CatalogCommand {
                time_ms: 0,
                command: Some(command.clone()),
            }),
        });
        let id = id.to_string();
        for (name, value) in [
            ("kelda-cluster", &status.cluster_id),
            ("kelda-from", &id),
            ("kelda-to", &id),
        ] {
            let value = value.parse().expect("text of headers");
            request.metadata_mut().insert(name, value);
        }
        let address = node.raft_address().expect("it has one");
        let mut service = PeerServiceClient::new(workload::channel(address));
        let answer = service.change_catalog(request).await.ok()?.into_inner();
        // Carried out before, by an attempt whose answer was lost, is refused now; tests make no other mistakes.
        (!answer.not_leader && !answer.indefinite).then_some(())
    }
}

impl Node {
    /// How many replicas it has deleted since it was first started.
    pub(crate) fn replicas_deleted(&self) -> usize {
        self.log().matches(DELETED).count()
    }

    /// Waits until it has deleted more replicas than `before`.
    pub(crate) async fn deletes_replica(&self, before: usize) {
        let name = format!("{} deletes a replica", self.options.name);
        eventually(&name, || {
            let deleted = self.replicas_deleted();
            std::future::ready((deleted > before).then_some(()))
        })
        .await;
    }

    /// Groups of partitions of which a node that does not run has entries of the log.
    pub(crate) async fn stored_groups(&mut self) -> Vec<u64> {
        use kelda_server::storage::{Config, Hooks, Storage};
        assert!(!self.runs(), "it has its directory to itself");
        let config = Config {
            data_dir: Some(self.directory().to_owned()),
            free_floor_bytes: 0,
            tail_bytes: 1 << 20,
            cache_bytes: 1 << 20,
        };
        let storage = Storage::open(config, Hooks::default()).expect("it opens");
        let mut held = Vec::new();
        for group in storage.groups().expect("listed") {
            let state = storage.group(group).load().await.expect("loaded");
            if state.last.is_some() {
                held.push(group.0);
            }
        }
        storage.close().await.expect("closed");
        held
    }
}
