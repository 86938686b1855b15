//! Nodes find each other, and each of them takes every call.

use kelda_proto::v1::{
    FetchRequest, GetTopicRequest, ListNodesRequest, ListOffsetsRequest, ProduceRequest, Record,
    cluster_service_client::ClusterServiceClient, consume_service_client::ConsumeServiceClient,
    produce_service_client::ProduceServiceClient, topic_service_client::TopicServiceClient,
};

use crate::support::{cluster::Cluster, connect};

fn record(value: String) -> Record {
    Record {
        value: Some(value.into()),
        ..Record::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_any_call_for_any_partition() {
    let cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 3, 3).await;
    cluster.create_topic("alone", 3, 1).await;
    for topic in ["orders", "alone"] {
        for partition in 0..3 {
            for (number, address) in (0..).zip(cluster.addresses()) {
                let channel = connect(address).await;
                let request = ProduceRequest {
                    topic: topic.to_owned(),
                    partition: Some(partition),
                    records: vec![record(format!("from {number}"))],
                    ..ProduceRequest::default()
                };
                let produced = ProduceServiceClient::new(channel).produce(request).await;
                let produced = produced.expect("acknowledged").into_inner();
                assert_eq!(
                    produced.partitions[0].base_offset, number,
                    "{topic} {partition}"
                );
            }
        }
        for address in cluster.addresses() {
            let channel = connect(address).await;
            for partition in 0..3 {
                let request = FetchRequest {
                    topic: topic.to_owned(),
                    partition,
                    max_wait_ms: 1000,
                    ..FetchRequest::default()
                };
                let fetched = ConsumeServiceClient::new(channel.clone())
                    .fetch(request)
                    .await;
                let fetched = fetched.expect("answered").into_inner();
                let values = fetched.records.into_iter().map(|it| {
                    let value = it.record.and_then(|record| record.value);
                    String::from_utf8(value.expect("a value").into()).expect("text")
                });
                let values: Vec<_> = values.collect();
                assert_eq!(
                    values,
                    ["from 0", "from 1", "from 2"],
                    "{topic} {partition}"
                );
            }
            let request = ListOffsetsRequest {
                topic: topic.to_owned(),
                ..ListOffsetsRequest::default()
            };
            let offsets = TopicServiceClient::new(channel).list_offsets(request).await;
            let offsets = offsets.expect("answered").into_inner().offsets;
            let ends: Vec<_> = offsets.iter().map(|offset| offset.end_offset).collect();
            assert_eq!(ends, [3, 3, 3]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_back_with_their_ids_and_a_wiped_one_is_a_new_node() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic("orders", 1, 3).await;
    for node in cluster.nodes() {
        node.kill();
    }
    for node in cluster.nodes() {
        node.start();
    }
    cluster.ready().await;
    let ids = async |cluster: &Cluster| -> Vec<u64> {
        let channel = connect(cluster.addresses()[0]).await;
        let nodes = ClusterServiceClient::new(channel)
            .list_nodes(ListNodesRequest {})
            .await;
        let nodes = nodes.expect("answered").into_inner().nodes;
        nodes.into_iter().map(|node| node.id).collect()
    };
    assert_eq!(ids(&cluster).await, [1, 2, 3]);
    cluster[2].kill();
    cluster[2].wipe();
    cluster[2].start();
    cluster[2].ready(4).await;
    assert_eq!(
        ids(&cluster).await,
        [1, 2, 3, 4],
        "ids are never given twice"
    );
    let channel = connect(cluster[2].address()).await;
    let request = GetTopicRequest {
        name: "orders".to_owned(),
    };
    let topic = TopicServiceClient::new(channel).get_topic(request).await;
    assert!(topic.is_ok(), "it has the catalog: {topic:?}");
}
