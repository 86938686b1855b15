//! Producing: what is acknowledged, where it goes, and what is stored.

mod support;

use std::collections::{BTreeMap, HashMap};

use kelda_proto::{
    batch,
    partitioner::partition_for_key,
    v1::{
        Acks, Compression, ErrorReason, FetchRequest, Header, PartitionAck, ProduceRequest,
        ProduceResponse, Record, RecordBatch, RecordFormat, StoredBatch,
    },
};
use support::{TestNode, assert_refused, config, record, wait::eventually};
use tonic::{Code, Status};

/// Murmur2 of some keys as Kafka's own tests have them.
const KAFKA_HASHES: [(&str, i32); 4] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("abc", 479_470_107),
];

fn keyed(key: &str, value: &str) -> Record {
    Record {
        key: Some(key.to_owned().into()),
        ..record(value)
    }
}

async fn produce(node: &TestNode, request: ProduceRequest) -> Result<ProduceResponse, Status> {
    let response = node.produce().produce(request).await?;
    Ok(response.into_inner())
}

/// Produces a packed batch to partition 0.
async fn produce_batch(node: &TestNode, topic: &str, batch: RecordBatch) -> PartitionAck {
    let request = ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(0),
        batch: Some(batch),
        ..Default::default()
    };
    let mut response = produce(node, request).await.expect("produced");
    assert_eq!(response.partitions.len(), 1);
    response.partitions.remove(0)
}

async fn fetch_batches(node: &TestNode, topic: &str, offset: i64) -> Vec<StoredBatch> {
    let request = FetchRequest {
        topic: topic.to_owned(),
        offset,
        max_bytes: 16 << 20,
        format: RecordFormat::Batches.into(),
        ..Default::default()
    };
    let fetched = node.consume().fetch(request).await.expect("fetched");
    fetched.into_inner().batches
}

async fn fetch_records(node: &TestNode, topic: &str, partition: i32) -> Vec<Record> {
    let request = FetchRequest {
        topic: topic.to_owned(),
        partition,
        max_bytes: 16 << 20,
        ..Default::default()
    };
    let fetched = node.consume().fetch(request).await.expect("fetched");
    let fetched = fetched.into_inner();
    assert_eq!(fetched.next_offset, fetched.end_offset, "all fits");
    let offsets: Vec<_> = fetched.records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..fetched.end_offset).collect::<Vec<_>>());
    fetched
        .records
        .into_iter()
        .map(|consumed| consumed.record.expect("a record"))
        .collect()
}

fn text(bytes: &bytes::Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_sent() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let header = |key: &str, value: &'static [u8]| Header {
        key: key.to_owned(),
        value: value.into(),
    };
    let sent = vec![
        Record {
            timestamp_ms: 5,
            ..keyed("", "an empty key is a key")
        },
        Record {
            timestamp_ms: 4,
            ..record("")
        },
        Record {
            key: Some("gone".into()),
            value: None,
            timestamp_ms: -3,
            ..Default::default()
        },
        Record {
            headers: vec![header("b", b"2"), header("a", b"\xff\0"), header("b", b"1")],
            timestamp_ms: i64::MAX,
            ..record("with headers")
        },
    ];
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        records: sent.clone(),
        ..Default::default()
    };
    let response = produce(&node, request).await.expect("produced");
    assert_eq!(response.acks(), Acks::Quorum);
    assert_eq!(response.partitions.len(), 1);
    let ack = &response.partitions[0];
    assert_eq!(
        (ack.partition, ack.base_offset, ack.record_count),
        (0, 0, 4)
    );
    assert!(!ack.duplicate);
    assert_eq!(
        ack.record_indexes, [0i32; 0],
        "only with several partitions"
    );
    assert_eq!(fetch_records(&node, "orders", 0).await, sent);
}

#[tokio::test]
async fn packed_batches_are_served_untouched_whatever_their_compression() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 1).await;
    let mut sent = Vec::new();
    let mut records = Vec::new();
    for compression in [
        Compression::Unspecified,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Gzip,
    ] {
        for size in [1, 10_000] {
            let content: Vec<_> = (1..=3)
                .map(|number| Record {
                    timestamp_ms: number,
                    ..keyed("k", &compression.as_str_name().repeat(size))
                })
                .collect();
            let packed = batch::pack(&content, compression).expect("packed");
            let ack = produce_batch(&node, "orders", packed.clone()).await;
            assert_eq!(ack.base_offset, records.len() as i64);
            assert_eq!(ack.record_count, 3);
            records.extend(content);
            sent.push(StoredBatch {
                base_offset: ack.base_offset,
                append_time_ms: ack.append_time_ms,
                batch: Some(packed),
            });
        }
    }
    for restarted in [false, true] {
        if restarted {
            // From the disk, no longer from memory.
            node = node.restart(config(Some(directory.path()))).await;
        }
        assert!(
            fetch_batches(&node, "orders", 0).await == sent,
            "batches are not those that were sent; restarted: {restarted}"
        );
        assert!(
            fetch_records(&node, "orders", 0).await == records,
            "records are not those that were packed; restarted: {restarted}"
        );
    }
}

#[tokio::test]
async fn keys_go_where_kafka_puts_them_and_the_answer_says_which_records_went_where() {
    const PARTITIONS: i32 = 7;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", PARTITIONS).await;
    let mut sent: Vec<_> = KAFKA_HASHES
        .iter()
        .map(|(key, _)| keyed(key, "known"))
        .collect();
    sent.extend((0..200).map(|number| match number % 4 {
        0 => record(&format!("unkeyed {number}")),
        _ => keyed(&format!("key {}", number % 50), &format!("{number}")),
    }));
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        records: sent.clone(),
        ..Default::default()
    };
    let response = produce(&node, request).await.expect("produced");

    let mut went_to = HashMap::new();
    let mut before = -1;
    for ack in &response.partitions {
        assert!(ack.partition > before, "partitions are in ascending order");
        before = ack.partition;
        assert_eq!(ack.record_count as usize, ack.record_indexes.len());
        assert!(ack.record_indexes.is_sorted(), "records keep their order");
        let stored = fetch_records(&node, "orders", ack.partition).await;
        assert_eq!(stored.len(), ack.record_indexes.len());
        for (index, stored) in ack.record_indexes.iter().zip(stored) {
            let record = &sent[*index as usize];
            assert_eq!((&stored.key, &stored.value), (&record.key, &record.value));
            let twice = went_to.insert(*index as usize, ack.partition);
            assert_eq!(twice, None, "record {index} went to one partition only");
        }
    }
    assert_eq!(went_to.len(), sent.len(), "every record went somewhere");
    for (index, (key, hash)) in KAFKA_HASHES.iter().enumerate() {
        assert_eq!(went_to[&index], (hash & 0x7fff_ffff) % PARTITIONS, "{key}");
    }
    let mut unkeyed = Vec::new();
    for (index, record) in sent.iter().enumerate() {
        match &record.key {
            Some(key) => {
                let expected = partition_for_key(key, PARTITIONS as u32);
                assert_eq!(went_to[&index] as u32, expected);
            }
            None => unkeyed.push(went_to[&index]),
        }
    }
    unkeyed.dedup();
    assert_eq!(unkeyed.len(), 1, "records without a key stay together");
}

#[tokio::test]
async fn requests_without_keys_use_all_partitions_one_at_a_time() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 3).await;
    let mut counts = BTreeMap::new();
    for number in 0..12 {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            records: vec![record("a"), record("b")],
            ..Default::default()
        };
        let response = produce(&node, request).await.expect("produced");
        assert_eq!(response.partitions.len(), 1, "request {number}");
        assert_eq!(response.partitions[0].record_count, 2);
        assert!(response.partitions[0].record_indexes.is_empty());
        *counts.entry(response.partitions[0].partition).or_insert(0) += 1;
    }
    assert_eq!(counts.into_keys().collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_packed_batch_goes_as_a_whole_to_one_partition_whatever_its_keys() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 5).await;
    let records: Vec<_> = (0..50).map(|n| keyed(&format!("key {n}"), "v")).collect();
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        batch: Some(batch::pack(&records, Compression::Zstd).expect("packed")),
        ..Default::default()
    };
    let response = produce(&node, request).await.expect("produced");
    assert_eq!(response.partitions.len(), 1);
    assert_eq!(response.partitions[0].record_count, 50);
    assert!(response.partitions[0].record_indexes.is_empty());
}

#[tokio::test]
async fn without_acks_no_offset_is_known_and_the_records_arrive() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        records: vec![record("a"), record("b")],
        acks: Acks::None.into(),
        ..Default::default()
    };
    let response = produce(&node, request).await.expect("taken");
    assert_eq!(response.acks(), Acks::None, "what was waited for is named");
    assert_eq!(response.partitions[0].base_offset, -1);
    assert_eq!(response.partitions[0].record_count, 2);
    let values = eventually("the records arrive", async || {
        let values = node.values("orders", 0, 0).await;
        (!values.is_empty()).then_some(values)
    })
    .await;
    assert_eq!(values, ["a", "b"]);
}

#[tokio::test]
async fn the_append_time_stands_in_for_a_missing_timestamp_and_never_goes_back() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let mut before = 0;
    for round in 0..5 {
        let request = ProduceRequest {
            topic: "orders".to_owned(),
            records: vec![
                record("none"),
                Record {
                    timestamp_ms: 12,
                    ..record("given")
                },
            ],
            ..Default::default()
        };
        let response = produce(&node, request).await.expect("produced");
        let ack = &response.partitions[0];
        assert!(ack.append_time_ms >= before.max(1_700_000_000_000));
        before = ack.append_time_ms;
        let stored = fetch_batches(&node, "orders", ack.base_offset).await;
        assert_eq!(stored[0].append_time_ms, ack.append_time_ms);
        let all = fetch_records(&node, "orders", 0).await;
        assert_eq!(all[2 * round].timestamp_ms, ack.append_time_ms);
        assert_eq!(all[2 * round + 1].timestamp_ms, 12);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_that_expect_the_same_offset_exactly_one_wins() {
    const WRITERS: usize = 8;
    const OFFSETS: i64 = 24;
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let write = |writer: usize| {
        let mut service = node.produce();
        async move {
            let mut won = Vec::new();
            let mut expected = 0;
            while expected < OFFSETS {
                let request = ProduceRequest {
                    topic: "orders".to_owned(),
                    partition: Some(0),
                    records: vec![record(&format!("writer {writer}"))],
                    expected_offset: Some(expected),
                    ..Default::default()
                };
                match service.produce(request).await {
                    Ok(response) => {
                        let ack = &response.get_ref().partitions[0];
                        assert_eq!(ack.base_offset, expected);
                        won.push((expected, writer));
                        expected += 1;
                    }
                    Err(status) => {
                        let metadata = assert_refused(
                            &status,
                            Code::FailedPrecondition,
                            ErrorReason::ExpectedOffsetMismatch,
                        );
                        assert_eq!(metadata["expected_offset"], expected.to_string());
                        let next: i64 = metadata["next_offset"].parse().expect("a number");
                        assert!(next > expected, "an offset that is free was refused");
                        expected = next;
                    }
                }
            }
            won
        }
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer)))
        .collect();
    let mut winners = BTreeMap::new();
    for writer in writers {
        for (offset, writer) in writer.await.expect("the writer ends") {
            let other = winners.insert(offset, format!("writer {writer}"));
            assert_eq!(other, None, "offset {offset} was won twice");
        }
    }
    let offsets: Vec<_> = winners.keys().copied().collect();
    assert_eq!(offsets, (0..OFFSETS).collect::<Vec<_>>());
    let stored = fetch_records(&node, "orders", 0).await;
    let stored: Vec<_> = stored
        .iter()
        .map(|record| text(record.value.as_ref().expect("a value")))
        .collect();
    assert_eq!(stored, winners.into_values().collect::<Vec<_>>());
}
