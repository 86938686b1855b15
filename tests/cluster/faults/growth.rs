//! Nodes that join and leave for good.

use super::Stage;
use crate::support::cluster::operator::{at_rest, drain, node_is, nodes, places, remove, settled};

/// The node that says where all is: one that stays.
const ASKED: usize = 1;
const REPLICAS: usize = 3;

/// A new node gets its share, is emptied again, and goes.
pub(super) async fn grow_and_shrink(stage: &mut Stage) {
    let name = format!("node{}", stage.cluster.nodes().len() + 1);
    stage.workload.mark();
    let new = stage.cluster.join(&name);
    stage.nodes += 1;
    stage.ready().await;
    stage.note_gap().await;
    let id = id(stage, &name).await;
    node_is(
        &stage.cluster,
        ASKED,
        id,
        "the new node has a share",
        |node| node.alive && node.replica_count > 0,
    )
    .await;
    stage.rest().await;
    assert!(has_replicas(stage, id).await, "its share was taken away");
    stage.get_on().await;

    stage.workload.mark();
    drain(&stage.cluster, id, false)
        .await
        .expect("three are enough");
    stage.note_gap().await;
    node_is(&stage.cluster, ASKED, id, "the node is empty", |node| {
        node.draining && (node.replica_count, node.leader_count) == (0, 0)
    })
    .await;
    stage.rest().await;
    assert!(!has_replicas(stage, id).await, "it got some again");
    stage.get_on().await;

    stage.workload.mark();
    assert!(
        remove(&stage.cluster, id, false)
            .await
            .expect("it is empty")
    );
    let ended = stage.cluster[new].terminate().await;
    assert!(ended.success(), "it does not stop in order: {ended}");
    stage.note_gap().await;
    stage.nodes -= 1;
}

impl Stage {
    /// Waits until all partitions have all their replicas, where they belong.
    async fn rest(&self) {
        at_rest(&self.cluster, ASKED).await;
        settled(&self.cluster, ASKED, REPLICAS).await;
    }
}

/// What the cluster calls a node that is ready.
async fn id(stage: &Stage, name: &str) -> u64 {
    let nodes = nodes(&stage.cluster, ASKED).await.expect("answered");
    let node = nodes.iter().find(|node| node.name == name);
    node.expect("it has joined").id
}

async fn has_replicas(stage: &Stage, id: u64) -> bool {
    let places = places(&stage.cluster, ASKED).await.expect("answered");
    places.iter().any(|place| place.replicas.contains(&id))
}
