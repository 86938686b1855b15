//! The Rust client against a real node.

mod support;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use kelda_client::{
    Client, ConsumedRecord, Delivery, Event, Options, Producer, ProducerOptions, RecordPosition,
    Retry, Summary,
};
use kelda_proto::{
    partitioner::partition_for_key,
    v1::{Compression, ConsumeRequest, Record},
};
use kelda_server::config::Config;
use support::{
    TestNode, config,
    reader::{follow, to_end},
    wait::{eventually, soon},
};

const PARTITIONS: i32 = 4;

/// A client that comes back quickly, since the node does.
async fn connect(node: &TestNode) -> Client {
    let options = Options {
        servers: vec![node.node.address().to_string()],
        retry: Retry {
            attempts: 100,
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
        },
        ..Options::default()
    };
    Client::connect(options).await.expect("connected")
}

/// The record of this number; each key has every 16th.
fn record(number: u64) -> Record {
    Record {
        key: Some(format!("key {}", number % 16).into()),
        value: Some(number.to_string().into()),
        ..Record::default()
    }
}

fn number(record: &Record) -> u64 {
    let value = record.value.as_deref().expect("a value");
    let text = std::str::from_utf8(value).expect("a number is text");
    text.parse().expect("a number")
}

/// Reads until `enough` says so of the number of records read; records of each partition in the order they came.
async fn consume(
    client: &Client,
    request: ConsumeRequest,
    enough: impl Fn(u64) -> bool,
) -> BTreeMap<u32, Vec<ConsumedRecord>> {
    let mut consumer = client.consume(request).await.expect("opened");
    let mut read: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    let mut count = 0;
    while !enough(count) {
        let event = soon("an event", consumer.next()).await.expect("no error");
        match event {
            Some(Event::Records {
                partition, records, ..
            }) => {
                count += records.len() as u64;
                read.entry(partition).or_default().extend(records);
            }
            Some(Event::Heartbeat { .. }) => {}
            Some(Event::End { .. }) | None => break,
            Some(Event::Gap { .. }) => panic!("no record is missing"),
        }
    }
    read
}

/// Asserts that the records are those that were acknowledged, each once, where it was said to be, and in the order
/// in which they were sent.
fn assert_exactly(
    acknowledged: &HashMap<u64, RecordPosition>,
    read: &BTreeMap<u32, Vec<ConsumedRecord>>,
) {
    let mut seen = 0;
    for (partition, records) in read {
        let mut before = None;
        for (offset, consumed) in (0..).zip(records) {
            assert_eq!(consumed.offset, offset, "offsets have no gaps");
            let number = number(&consumed.record);
            assert!(before < Some(number), "{number} behind {before:?}");
            before = Some(number);
            let expected = RecordPosition {
                partition: *partition,
                offset: Some(offset),
            };
            assert_eq!(acknowledged.get(&number), Some(&expected), "{number}");
            seen += 1;
        }
    }
    assert_eq!(seen, acknowledged.len(), "every record is there");
}

async fn positions(deliveries: Vec<(u64, Delivery)>) -> HashMap<u64, RecordPosition> {
    let mut positions = HashMap::new();
    for (number, delivery) in deliveries {
        let position = soon("an ack", delivery).await.expect("acknowledged");
        let twice = positions.insert(number, position);
        assert_eq!(twice, None, "numbers are sent once");
    }
    positions
}

#[tokio::test]
async fn keyed_records_of_every_compression_come_back_in_their_order() {
    let node = TestNode::ephemeral().await;
    let client = connect(&node).await;
    let mut sent = 0;
    for compression in [
        Compression::Unspecified,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Gzip,
    ] {
        let topic = compression.as_str_name();
        node.create_topic(topic, PARTITIONS).await;
        let options = ProducerOptions {
            compression,
            batch_records: 100,
            ..ProducerOptions::default()
        };
        let producer = client.producer(topic, options).await.expect("opened");
        let mut deliveries = Vec::new();
        for number in sent..sent + 2000 {
            let delivery = producer.send(record(number)).await.expect("taken");
            deliveries.push((number, delivery));
        }
        sent += 2000;
        let summary = soon("the end", producer.close()).await.expect("closed");
        let expected = Summary {
            sent: 2000,
            acknowledged: 2000,
            ..Summary::default()
        };
        assert_eq!(summary, expected);
        let acknowledged = positions(deliveries).await;
        for (number, position) in &acknowledged {
            let key = record(*number).key.expect("it has one");
            let partition = partition_for_key(&key, PARTITIONS.unsigned_abs());
            assert_eq!(position.partition, partition, "as the broker places it");
        }
        let read = consume(&client, to_end(topic), |_| false).await;
        assert_exactly(&acknowledged, &read);
    }
}

/// Sends numbered records until it is told to stop.
async fn load(producer: &Producer, stopped: &Cell<bool>) -> Vec<(u64, Delivery)> {
    let mut deliveries = Vec::new();
    for number in 0.. {
        if stopped.get() {
            break;
        }
        let sending = producer.send(record(number));
        let delivery = soon("room for a record", sending).await.expect("taken");
        deliveries.push((number, delivery));
        // Whatever else goes on in this test shares the thread.
        tokio::task::yield_now().await;
    }
    deliveries
}

/// Waits until this many more records are acknowledged.
async fn progress(producer: &Producer, records: u64) {
    let before = producer.summary().acknowledged;
    eventually("records are acknowledged", async || {
        (producer.summary().acknowledged >= before + records).then_some(())
    })
    .await;
}

#[tokio::test]
async fn restarts_in_the_middle_of_a_load_lose_and_double_nothing() {
    const RESTARTS: usize = 3;
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", PARTITIONS).await;
    let client = connect(&node).await;
    let options = ProducerOptions {
        batch_records: 20,
        ..ProducerOptions::default()
    };
    let producer = client.producer("orders", options).await.expect("opened");
    let same_port = Config {
        port: node.node.address().port(),
        ..config(Some(directory.path()))
    };

    let stopped = Cell::new(false);
    let sent = Cell::new(None);
    let producing = async {
        let deliveries = load(&producer, &stopped).await;
        sent.set(Some(deliveries.len() as u64));
        deliveries
    };
    // A consumer that follows all the time sees the same as one that comes afterwards.
    let following = consume(&client, follow("orders"), |count| sent.get() == Some(count));
    let restarting = async {
        for _ in 0..RESTARTS {
            progress(&producer, 500).await;
            node = node.restart(same_port.clone()).await;
        }
        progress(&producer, 500).await;
        stopped.set(true);
        node
    };
    let (deliveries, followed, node) = tokio::join!(producing, following, restarting);

    let count = deliveries.len() as u64;
    let acknowledged = positions(deliveries).await;
    let summary = soon("the end", producer.close()).await.expect("closed");
    assert_eq!((summary.sent, summary.acknowledged), (count, count));
    assert_eq!((summary.failed, summary.first_error), (0, None));
    assert_exactly(&acknowledged, &followed);
    let read = consume(&connect(&node).await, to_end("orders"), |_| false).await;
    assert_exactly(&acknowledged, &read);
}
