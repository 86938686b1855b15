//! Replicas that move under load: nothing that was acknowledged is lost, and what was left behind is deleted.

use kelda_proto::v1::{
    DeleteRecordsRequest, FetchRequest, PartitionTrim, ProduceRequest,
    consume_service_client::ConsumeServiceClient, produce_service_client::ProduceServiceClient,
    topic_service_client::TopicServiceClient,
};

use crate::support::{
    cluster::{Cluster, Settings, Workload},
    connect,
    reader::{Reader, follow},
    record,
    wait::eventually,
};

const TOPIC: &str = "orders";
/// Records between two moves.
const BETWEEN: u64 = 200;
/// Offset below which records are purged.
const PURGED: i64 = 120;

/// Where a partition has its replicas, by places in the cluster.
async fn replicas(cluster: &Cluster, asked: usize, partition: usize) -> Vec<usize> {
    let ids = cluster.ids().await;
    let topic = cluster.topic(asked, TOPIC).await;
    let replicas = topic.partitions[partition].replicas.iter();
    let place = |id: &u64| ids.iter().position(|known| known == id);
    let places = replicas.map(|id| place(id).expect("a known node"));
    places.collect()
}

/// Where a partition is led, as a replica of it says.
async fn leader(cluster: &Cluster, asked: usize, partition: usize) -> usize {
    let ids = cluster.ids().await;
    eventually("the partition is led", async || {
        let topic = cluster.topic(asked, TOPIC).await;
        let leader = topic.partitions[partition].leader;
        ids.iter().position(|id| *id == leader)
    })
    .await
}

/// Stops all nodes and asserts which of them have something of how many groups of partitions.
async fn assert_stored(cluster: &mut Cluster, expected: &[usize]) {
    for node in cluster.nodes() {
        if node.runs() {
            node.terminate().await;
        }
    }
    for (at, expected) in expected.iter().enumerate() {
        let groups = cluster[at].stored_groups().await;
        // The catalog's group is 0.
        let partitions = groups.iter().filter(|group| **group != 0).count();
        assert_eq!(partitions, *expected, "node {at} has {groups:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_with_one_replica_moves_around_and_back_under_load() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 1).await;
    let first = replicas(&cluster, 0, 0).await[0];
    let workload = Workload::start(Settings::new(TOPIC, 1), cluster.addresses());
    let mut at = first;
    for step in 1..=4 {
        workload.progress(BETWEEN).await;
        let next = (first + step) % 3;
        let before = cluster[at].replicas_deleted();
        cluster.move_partition(TOPIC, 0, &[next]).await;
        cluster[at].deletes_replica(before).await;
        at = next;
    }
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
    let mut expected = [0; 3];
    expected[at] = 1;
    assert_stored(&mut cluster, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_to_a_fourth_node_and_back_under_load() {
    let mut cluster = Cluster::start(4).await;
    cluster.create_topic(TOPIC, 2, 3).await;
    let workload = Workload::start(Settings::new(TOPIC, 2), cluster.addresses());
    for _ in 0..2 {
        for partition in 0..2 {
            workload.progress(BETWEEN).await;
            let here = replicas(&cluster, 0, partition).await;
            let leaves = leader(&cluster, here[0], partition).await;
            let comes = (0..4)
                .find(|place| !here.contains(place))
                .expect("a fourth");
            let stay = here.iter().copied().filter(|place| *place != leaves);
            let after: Vec<usize> = [comes].into_iter().chain(stay).collect();
            let before = cluster[leaves].replicas_deleted();
            let number = u32::try_from(partition).expect("small");
            cluster.move_partition(TOPIC, number, &after).await;
            cluster[leaves].deletes_replica(before).await;
        }
    }
    workload.progress(BETWEEN).await;
    let mut expected = [0; 4];
    for partition in 0..2 {
        for place in replicas(&cluster, 0, partition).await {
            expected[place] += 1;
        }
    }
    workload.finish().await.assert_valid();
    assert_stored(&mut cluster, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_go_on_after_the_newcomer_or_the_leader_was_killed() {
    let mut cluster = Cluster::start(4).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    let workload = Workload::start(Settings::new(TOPIC, 1), cluster.addresses());
    for kills_newcomer in [true, false, false] {
        workload.progress(BETWEEN).await;
        let here = replicas(&cluster, 0, 0).await;
        let leaves = leader(&cluster, here[0], 0).await;
        let comes = (0..4)
            .find(|place| !here.contains(place))
            .expect("a fourth");
        let stay = here.iter().copied().filter(|place| *place != leaves);
        let after: Vec<usize> = stay.chain([comes]).collect();
        let before = cluster[leaves].replicas_deleted();
        cluster.move_partition(TOPIC, 0, &after).await;
        let killed = if kills_newcomer { comes } else { leaves };
        cluster[killed].kill();
        // The others get on without it.
        workload.progress(BETWEEN).await;
        cluster[killed].start();
        cluster[leaves].deletes_replica(before).await;
        cluster.ready().await;
    }
    workload.progress(BETWEEN).await;
    let mut expected = [0; 4];
    for place in replicas(&cluster, 0, 0).await {
        expected[place] = 1;
    }
    workload.finish().await.assert_valid();
    assert_stored(&mut cluster, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_the_move_deletes_what_it_has_when_it_comes_back() {
    let mut cluster = Cluster::start(4).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    let workload = Workload::start(Settings::new(TOPIC, 1), cluster.addresses());
    workload.progress(BETWEEN).await;
    let here = replicas(&cluster, 0, 0).await;
    let comes = (0..4)
        .find(|place| !here.contains(place))
        .expect("a fourth");
    // Any but the first, which tests ask for the nodes.
    let leaves = *here.iter().find(|place| **place != 0).expect("another one");
    cluster[leaves].kill();
    workload.progress(BETWEEN).await;
    let stay = here.iter().copied().filter(|place| *place != leaves);
    let after: Vec<usize> = stay.chain([comes]).collect();
    cluster.move_partition(TOPIC, 0, &after).await;
    workload.progress(BETWEEN).await;
    cluster[leaves].start();
    cluster[leaves].deletes_replica(0).await;
    cluster.ready().await;
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
    let mut expected = [1; 4];
    expected[leaves] = 0;
    assert_stored(&mut cluster, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_after_a_purge_takes_every_retained_record_along_and_readers_go_on() {
    const COUNT: i64 = 300;
    let cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 1).await;
    let here = replicas(&cluster, 0, 0).await[0];
    let channel = connect(cluster.addresses()[here]).await;
    let mut stream = Reader::open(&channel, follow(TOPIC))
        .await
        .expect("a stream");
    for number in 0..COUNT {
        produce(&cluster, here, number).await;
    }
    let mut next = 0;
    while next < COUNT {
        next = stream.records().await.next_offset;
    }
    let trimmed = TopicServiceClient::new(channel)
        .delete_records(DeleteRecordsRequest {
            topic: TOPIC.to_owned(),
            partitions: vec![PartitionTrim {
                partition: 0,
                before_offset: PURGED,
            }],
        })
        .await;
    trimmed.expect("trimmed");
    let mut at = here;
    for step in 1..=3 {
        let next = (here + step) % 3;
        let before = cluster[at].replicas_deleted();
        cluster.move_partition(TOPIC, 0, &[next]).await;
        cluster[at].deletes_replica(before).await;
        at = next;
        for asked in 0..3 {
            let expected: Vec<String> = (PURGED..COUNT).map(|it| it.to_string()).collect();
            assert_eq!(retained(&cluster, asked).await, expected, "step {step}");
        }
    }
    produce(&cluster, at, COUNT).await;
    // The stream began at a replica that was moved away twice since.
    let records = stream.records().await;
    assert_eq!((records.records.len(), records.next_offset), (1, COUNT + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_says_so_and_the_others_go_on_without_it() {
    let mut cluster = Cluster::start(4).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    let here = replicas(&cluster, 0, 0).await;
    let removed = (0..4)
        .find(|place| !here.contains(place))
        .expect("a fourth");
    cluster.remove_node(removed).await;
    let says_so = "was removed from the cluster";
    eventually("the removed node says so", || {
        let said = cluster[removed].log().contains(says_so);
        std::future::ready(said.then_some(()))
    })
    .await;
    cluster[removed].kill();
    let addresses = cluster.addresses();
    let others = addresses.into_iter().enumerate();
    let others = others.filter(|(at, _)| *at != removed);
    let others = others.map(|(_, address)| address).collect();
    let workload = Workload::start(Settings::new(TOPIC, 1), others);
    workload.progress(BETWEEN).await;
    workload.finish().await.assert_valid();
}

async fn produce(cluster: &Cluster, at: usize, number: i64) {
    let channel = connect(cluster.addresses()[at]).await;
    let request = ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![record(&number.to_string())],
        ..ProduceRequest::default()
    };
    let produced = ProduceServiceClient::new(channel).produce(request).await;
    let produced = produced.expect("acknowledged").into_inner();
    assert_eq!(produced.partitions[0].base_offset, number);
}

/// All values that there are, as a node reads them.
async fn retained(cluster: &Cluster, at: usize) -> Vec<String> {
    let mut service = ConsumeServiceClient::new(connect(cluster.addresses()[at]).await);
    let mut values = Vec::new();
    let mut offset = PURGED;
    loop {
        let request = FetchRequest {
            topic: TOPIC.to_owned(),
            partition: 0,
            offset,
            ..FetchRequest::default()
        };
        let fetched = service.fetch(request).await.expect("read").into_inner();
        assert_eq!(fetched.log_start_offset, PURGED);
        let records = fetched.records.into_iter();
        values.extend(records.map(|it| {
            let value = it.record.and_then(|record| record.value);
            String::from_utf8(value.expect("a value").into()).expect("text")
        }));
        offset = fetched.next_offset;
        if offset >= fetched.end_offset {
            return values;
        }
    }
}
