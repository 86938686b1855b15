//! Clusters that grow and shrink: partitions and leaders go where they belong, and nothing is lost on the way.

use std::collections::BTreeMap;

use kelda_proto::v1::{
    CreateTopicRequest, ErrorReason, FetchRequest, GetAssignmentPlanRequest, ProduceRequest,
    Record, TransferLeadershipRequest, UpdateTopicRequest, WatchClusterRequest,
    WatchClusterResponse, consume_service_client::ConsumeServiceClient,
    produce_service_client::ProduceServiceClient, topic_service_client::TopicServiceClient,
    watch_cluster_response::Event,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::support::{
    cluster::{
        Cluster,
        operator::{drain, node_is, nodes, places, remove, service, settled},
    },
    connect,
    wait::{eventually, soon},
};

async fn set_factor(cluster: &Cluster, replication_factor: i32) -> Result<(), Status> {
    let channel = connect(cluster.addresses()[0]).await;
    let request = UpdateTopicRequest {
        name: "orders".to_owned(),
        replication_factor,
        ..UpdateTopicRequest::default()
    };
    let updated = TopicServiceClient::new(channel).update_topic(request).await;
    updated.map(|_| ())
}

/// Appends a record to each partition of the topic.
async fn produce(cluster: &Cluster, partitions: i32, value: &str) {
    let channel = connect(cluster.addresses()[0]).await;
    for partition in 0..partitions {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(partition),
            records: vec![Record {
                value: Some(value.to_owned().into()),
                ..Record::default()
            }],
            ..ProduceRequest::default()
        };
        let mut service = ProduceServiceClient::new(channel.clone());
        service.produce(request).await.expect("acknowledged");
    }
}

/// All records of the topic by partition.
async fn records(cluster: &Cluster, partitions: i32) -> Vec<Vec<String>> {
    let channel = connect(cluster.addresses()[1]).await;
    let mut all = Vec::new();
    for partition in 0..partitions {
        let request = FetchRequest {
            topic: "orders".to_owned(),
            partition,
            max_wait_ms: 1000,
            ..FetchRequest::default()
        };
        let mut service = ConsumeServiceClient::new(channel.clone());
        let fetched = service.fetch(request).await.expect("answered").into_inner();
        let values = fetched.records.into_iter().map(|it| {
            let value = it.record.and_then(|record| record.value);
            String::from_utf8(value.expect("a value").into()).expect("text")
        });
        all.push(values.collect());
    }
    all
}

/// Checks code and reason.
fn assert_refused<T: std::fmt::Debug>(refused: Result<T, Status>, code: Code, reason: ErrorReason) {
    let status = refused.expect_err("refused");
    let info = status.get_details_error_info().expect("a reason");
    let named = format!("ERROR_REASON_{}", info.reason);
    assert_eq!((status.code(), &*named), (code, reason.as_str_name()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_its_share_when_it_joins_and_leaves_nothing_behind_when_it_goes() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 4, 3).await;
    produce(&cluster, 4, "before").await;
    let at = cluster.join("node4");
    assert_eq!(at, 3);
    node_is(&cluster, 1, 4, "the new node has its share", |node| {
        node.alive && node.replica_count == 3
    })
    .await;
    settled(&cluster, 1, 3).await;
    produce(&cluster, 4, "on four nodes").await;
    assert_refused(
        remove(&cluster, 4, false).await,
        Code::FailedPrecondition,
        ErrorReason::NodeInUse,
    );
    assert_refused(
        remove(&cluster, 4, true).await,
        Code::FailedPrecondition,
        ErrorReason::NodeAlive,
    );
    drain(&cluster, 4, false).await.expect("three are enough");
    node_is(&cluster, 1, 4, "the node is empty", |node| {
        node.draining && (node.replica_count, node.leader_count) == (0, 0)
    })
    .await;
    settled(&cluster, 1, 3).await;
    assert!(remove(&cluster, 4, false).await.expect("it is empty"));
    let left = nodes(&cluster, 1).await.expect("answered");
    let left: Vec<_> = left.iter().map(|node| node.id).collect();
    assert_eq!(left, [1, 2, 3]);
    cluster[3].kill();
    produce(&cluster, 4, "after").await;
    assert_eq!(
        records(&cluster, 4).await,
        vec![["before", "on four nodes", "after"]; 4]
    );
}

/// The others stop listening to a node that is removed, so it must have handed its vote over by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_the_one_that_votes_on_the_catalog_can_go() {
    let mut cluster = Cluster::start(2).await;
    cluster.create_topic("orders", 2, 1).await;
    produce(&cluster, 2, "before").await;
    drain(&cluster, 1, false).await.expect("one is enough");
    node_is(&cluster, 1, 1, "the founder is empty", |node| {
        node.draining && node.replica_count == 0
    })
    .await;
    // The catalog has another leader by now, which has to hear first who holds what.
    eventually("the founder is out", async || {
        let removed = remove(&cluster, 1, false).await;
        removed.unwrap_or(false).then_some(())
    })
    .await;
    cluster[0].kill();
    let channel = connect(cluster.addresses()[1]).await;
    let request = CreateTopicRequest {
        name: "after".to_owned(),
        ..CreateTopicRequest::default()
    };
    let mut topics = TopicServiceClient::new(channel);
    let created = topics.create_topic(request).await;
    created.expect("the catalog has a leader");
    assert_eq!(records(&cluster, 2).await, vec![["before"]; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_gets_more_replicas_and_fewer_as_it_is_told() {
    let cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 3, 1).await;
    produce(&cluster, 3, "one").await;
    set_factor(&cluster, 3)
        .await
        .expect("three nodes are enough");
    settled(&cluster, 2, 3).await;
    produce(&cluster, 3, "three").await;
    set_factor(&cluster, 1)
        .await
        .expect("fewer are always there");
    let places = settled(&cluster, 2, 1).await;
    assert!(places.iter().all(|it| it.replicas == [it.leader]));
    assert_eq!(records(&cluster, 3).await, vec![["one", "three"]; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_told_from_any_node() {
    let cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 1, 3).await;
    produce(&cluster, 1, "0").await;
    for (round, asked) in [(1, 0), (2, 1), (3, 2)] {
        settled(&cluster, asked, 3).await;
        eventually("the leader is another one", async || {
            let request = TransferLeadershipRequest {
                topic: "orders".to_owned(),
                partition: 0,
                node: round,
            };
            let mut service = service(&cluster, asked).await;
            match service.transfer_leadership(request).await {
                Ok(_) => Some(()),
                Err(status) if status.code() == Code::Unavailable => None,
                Err(status) => panic!("refused: {status:?}"),
            }
        })
        .await;
        eventually("all hear of it", async || {
            let places = places(&cluster, asked).await?;
            (places.first()?.leader == round).then_some(())
        })
        .await;
        produce(&cluster, 1, &round.to_string()).await;
    }
    assert_eq!(records(&cluster, 1).await, [["0", "1", "2", "3"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_done_is_refused_with_its_reason() {
    let cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 1, 3).await;
    cluster.create_topic("alone", 1, 1).await;
    settled_any(&cluster).await;
    let failed = Code::FailedPrecondition;
    let few = ErrorReason::TooFewNodesLeft;
    assert_refused(drain(&cluster, 1, false).await, failed, few);
    assert_refused(
        set_factor(&cluster, 5).await,
        Code::InvalidArgument,
        ErrorReason::NotEnoughNodes,
    );
    assert_refused(
        set_factor(&cluster, 2).await,
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );
    let unknown = ErrorReason::UnknownNode;
    assert_refused(drain(&cluster, 9, false).await, Code::NotFound, unknown);
    assert_refused(remove(&cluster, 9, false).await, Code::NotFound, unknown);
    let places = places(&cluster, 0).await.expect("answered");
    let alone = places.iter().find(|it| it.topic == "alone");
    let holder = alone.expect("it is there").replicas[0];
    let request = TransferLeadershipRequest {
        topic: "alone".to_owned(),
        partition: 0,
        node: holder % 3 + 1,
    };
    let transferred = service(&cluster, 0)
        .await
        .transfer_leadership(request)
        .await;
    assert_refused(transferred, failed, ErrorReason::NotAReplica);
    let nothing = nodes(&cluster, 0).await.expect("answered");
    assert!(nothing.iter().all(|node| node.alive && !node.draining));
}

/// Waits until all partitions have a leader and their replicas, however many.
async fn settled_any(cluster: &Cluster) {
    eventually("all partitions are settled", async || {
        let places = places(cluster, 0).await?;
        let settled = places.iter().all(|it| it.settled && it.leader != 0);
        (places.len() == 2 && settled).then_some(())
    })
    .await;
}

/// The next message that is not a heartbeat.
async fn next(stream: &mut Streaming<WatchClusterResponse>) -> Option<Event> {
    loop {
        let message = soon("a message", stream.message()).await.ok()??;
        match message.event? {
            Event::Heartbeat(_) => {}
            event => return Some(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_any_node_hears_of_every_change() {
    let mut cluster = Cluster::start(3).await;
    let mut service = service(&cluster, 2).await;
    let bad = WatchClusterRequest {
        heartbeat_interval_ms: 1,
    };
    let refused = service.watch_cluster(bad).await.map(|_| ());
    assert_refused(refused, Code::InvalidArgument, ErrorReason::InvalidField);
    let request = WatchClusterRequest {
        heartbeat_interval_ms: 100,
    };
    let stream = service.watch_cluster(request).await.expect("opened");
    let mut stream = stream.into_inner();
    let Some(Event::State(state)) = next(&mut stream).await else {
        panic!("the state comes first");
    };
    assert_eq!((state.nodes.len(), state.more), (3, false));
    let quiet = soon("a heartbeat", async {
        loop {
            let message = stream.message().await.expect("goes on").expect("goes on");
            if let Some(Event::Heartbeat(_)) = message.event {
                return;
            }
        }
    });
    quiet.await;
    cluster.create_topic("orders", 2, 3).await;
    let mut topics = Vec::new();
    let mut leaders = BTreeMap::new();
    while leaders.len() < 2 {
        let Some(Event::Change(change)) = next(&mut stream).await else {
            panic!("then come changes");
        };
        topics.extend(change.topics.into_iter().map(|topic| topic.name));
        for place in change.partitions {
            if place.leader != 0 && place.settled {
                leaders.insert(place.partition, place.leader);
            }
        }
    }
    assert_eq!(topics, ["orders"]);
    let plan = service.get_assignment_plan(GetAssignmentPlanRequest { moves_max: 0 });
    let plan = plan.await.expect("answered").into_inner();
    assert_eq!(plan.moving_partition_count, 0);
    cluster[2].terminate().await;
    let end = loop {
        match soon("the end", stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end has a reason"),
            Err(status) => break status,
        }
    };
    assert_refused(Err::<(), _>(end), Code::Unavailable, ErrorReason::NotReady);
}
