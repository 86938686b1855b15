//! Where replicas and leaders are put, and put again when an operator asks for it.

use std::collections::{BTreeMap, BTreeSet};

use kelda_proto::v1::{AssignmentReason, RebalanceRequest, TransferLeadershipRequest};
use tonic::Code;

use crate::support::{
    cluster::{
        Cluster,
        operator::{at_rest, node_is, nodes, places, service, settled},
    },
    wait::eventually,
};

const PARTITIONS: i32 = 6;

/// A node of this rack, that evens out what is not urgent each second.
fn at(rack: &str) -> [&str; 4] {
    ["--rebalance-interval", "1s", "--rack", rack]
}

/// Waits until all is where it belongs, and says in how many racks each partition is then.
async fn racks_of_each(cluster: &Cluster) -> Vec<usize> {
    at_rest(cluster, 1).await;
    let nodes = nodes(cluster, 1).await.expect("answered");
    let racks: BTreeMap<u64, String> = nodes.into_iter().map(|it| (it.id, it.rack)).collect();
    let places = settled(cluster, 1, 3).await;
    let of_one = places.iter().map(|place| {
        let racks: BTreeSet<&String> = place.replicas.iter().map(|node| &racks[node]).collect();
        racks.len()
    });
    of_one.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_in_different_racks_also_when_a_rack_comes_later() {
    let racks = ["a", "a", "b", "c"].map(at);
    let mut cluster = Cluster::start_with(&racks).await;
    cluster.create_topic("orders", PARTITIONS, 3).await;
    assert_eq!(racks_of_each(&cluster).await, [3; PARTITIONS as usize]);
    cluster.join_with("node5", &at("d"));
    node_is(&cluster, 1, 5, "the new rack has its share", |node| {
        node.rack == "d" && node.replica_count >= PARTITIONS * 3 / 5
    })
    .await;
    assert_eq!(racks_of_each(&cluster).await, [3; PARTITIONS as usize]);
}

/// Has a node lead all partitions.
async fn lead_all(cluster: &Cluster, node: u64) {
    eventually("one node leads all partitions", async || {
        let places = places(cluster, 0).await?;
        let others = places.iter().filter(|it| it.leader != node);
        let mut service = service(cluster, 0).await;
        let mut all = true;
        for place in others {
            all = false;
            let request = TransferLeadershipRequest {
                topic: place.topic.clone(),
                partition: place.partition,
                node,
            };
            match service.transfer_leadership(request).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => panic!("refused: {status:?}"),
            }
        }
        all.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_evened_out_when_an_operator_asks_for_it() {
    // By itself it would be looked at in an hour.
    let cluster = Cluster::start_with(&[&["--rebalance-interval", "1h"]; 3]).await;
    cluster.create_topic("orders", PARTITIONS, 3).await;
    settled(&cluster, 0, 3).await;
    lead_all(&cluster, 1).await;
    let mut service = service(&cluster, 2).await;
    let rebalanced = service.rebalance(RebalanceRequest {}).await;
    let begun = rebalanced.expect("taken").into_inner().moves;
    assert!(!begun.is_empty());
    for it in &begun {
        assert_eq!(it.reason(), AssignmentReason::LeadersUnbalanced);
        assert_eq!(
            (it.leader_before, &it.replicas_before),
            (1, &it.replicas_after)
        );
    }
    eventually("each node leads its share", async || {
        // What could not be moved at once is moved when it is asked for again.
        let mut service = service.clone();
        service.rebalance(RebalanceRequest {}).await.ok()?;
        let nodes = nodes(&cluster, 1).await?;
        let share = PARTITIONS / 3;
        let even = nodes.iter().all(|node| node.leader_count == share);
        even.then_some(())
    })
    .await;
}
