//! A broker that is killed again and again under the load of Rust clients.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kelda_client::{
    Client, Delivery, Event, Options, ProducerOptions, RecordPosition, Retry, Summary,
    v1::{Compression, ConsumeRequest, Record},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::support::{Broker, PATIENCE};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 3;
/// Records that are acknowledged before each kill: from the very first ones on, and with much on the disk.
const ROUNDS: [usize; 5] = [1, 300, 700, 1500, 2500];

/// Producer and number of a record.
type Id = (usize, u64);
type Acknowledged = Arc<Mutex<BTreeMap<Id, RecordPosition>>>;

/// Producers that send numbered records until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Acknowledged,
    producers: Vec<JoinHandle<Summary>>,
}

impl Load {
    async fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Acknowledged::default();
        let mut producers = Vec::new();
        for compression in [Compression::Unspecified, Compression::Zstd] {
            let options = ProducerOptions {
                compression,
                batch_records: 25,
                ..ProducerOptions::default()
            };
            let producer = client.producer(TOPIC, options).await.expect("opened");
            let (id, stop) = (producers.len(), Arc::clone(&stop));
            let (sender, deliveries) = mpsc::channel(10_000);
            let acks = tokio::spawn(note(id, deliveries, Arc::clone(&acknowledged)));
            producers.push(tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let delivery = producer.send(record(id, number)).await.expect("taken");
                    let noted = sender.send((number, delivery)).await;
                    noted.expect("acks are waited for");
                }
                drop(sender);
                acks.await.expect("everything is acknowledged");
                producer.close().await.expect("closed")
            }));
        }
        Self {
            stop,
            acknowledged,
            producers,
        }
    }

    fn acknowledged(&self) -> BTreeMap<Id, RecordPosition> {
        let acknowledged = self.acknowledged.lock();
        acknowledged.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many more records are acknowledged.
    async fn progress(&self, records: usize) {
        let count = || {
            let acknowledged = self.acknowledged.lock();
            acknowledged.unwrap_or_else(PoisonError::into_inner).len()
        };
        let (before, started) = (count(), Instant::now());
        while count() < before + records {
            assert!(started.elapsed() < PATIENCE, "the load does not go on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Notes where the records of a producer are, as it hears of it.
async fn note(
    producer: usize,
    mut deliveries: mpsc::Receiver<(u64, Delivery)>,
    acknowledged: Acknowledged,
) {
    while let Some((number, delivery)) = deliveries.recv().await {
        let position = delivery.await.expect("a crash is no reason to give up");
        let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.insert((producer, number), position);
    }
}

fn record(producer: usize, number: u64) -> Record {
    Record {
        key: Some(format!("{producer} {}", number % 16).into()),
        value: Some(format!("{producer} {number} {}", "x".repeat(100)).into()),
        ..Record::default()
    }
}

fn id(record: &Record) -> Id {
    let value = record.value.as_deref().expect("a value");
    let text = std::str::from_utf8(value).expect("it is text");
    let mut words = text.split(' ');
    let mut word = || words.next().expect("a producer and a number");
    let producer = word().parse().expect("a producer");
    (producer, word().parse().expect("a number"))
}

/// All that is stored: each record once, and those of a producer in a partition in their order.
async fn stored(client: &Client) -> BTreeMap<Id, RecordPosition> {
    let request = ConsumeRequest {
        topic: TOPIC.to_owned(),
        ..ConsumeRequest::default()
    };
    let mut consumer = client.consume(request).await.expect("opened");
    let mut stored = BTreeMap::new();
    let mut newest = BTreeMap::new();
    let mut next_offsets = vec![0; PARTITIONS as usize];
    while let Some(event) = consumer.next().await.expect("no error") {
        let Event::Records {
            partition, records, ..
        } = event
        else {
            continue;
        };
        for consumed in records {
            let next_offset = &mut next_offsets[partition as usize];
            assert_eq!(consumed.offset, *next_offset, "offsets have no gaps");
            *next_offset += 1;
            let (producer, number) = id(&consumed.record);
            let before = newest.insert((producer, partition), number);
            assert!(
                before < Some(number),
                "{number} of producer {producer} is behind {before:?}"
            );
            let position = RecordPosition {
                partition,
                offset: Some(consumed.offset),
            };
            stored.insert((producer, number), position);
        }
    }
    assert_eq!(stored.len() as u64, next_offsets.iter().sum::<u64>());
    stored
}

async fn connect(broker: &Broker) -> Client {
    let options = Options {
        servers: vec![broker.address.clone()],
        retry: Retry {
            attempts: 1000,
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
        },
        ..Options::default()
    };
    Client::connect(options).await.expect("connected")
}

fn start(directory: &Path, port: &str) -> Broker {
    let directory = directory.to_str().expect("the path is text");
    Broker::start(&["--data-dir", directory, "--port", port])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_double_and_reorder_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut broker = start(directory.path(), "0");
    let (_, port) = broker.address.rsplit_once(':').expect("a port");
    let port = port.to_owned();
    let partitions = PARTITIONS.to_string();
    broker.ok(&["topic", "create", TOPIC, "--partitions", &partitions]);
    let client = connect(&broker).await;
    let load = Load::start(&client).await;
    for records in ROUNDS {
        load.progress(records).await;
        broker.kill();
        broker = start(directory.path(), &port);
        let acknowledged = load.acknowledged();
        let stored = stored(&connect(&broker).await).await;
        for (id, position) in &acknowledged {
            assert_eq!(stored.get(id), Some(position), "{id:?} was acknowledged");
        }
    }
    load.progress(100).await;
    load.stop.store(true, Ordering::Relaxed);
    let acknowledged = Arc::clone(&load.acknowledged);
    let mut sent = 0;
    for producer in load.producers {
        let ended = tokio::time::timeout(PATIENCE, producer).await;
        let summary = ended
            .expect("the producers end")
            .expect("they do not panic");
        assert_eq!((summary.failed, summary.acknowledged), (0, summary.sent));
        sent += summary.sent;
    }
    let acknowledged = acknowledged
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    assert_eq!(acknowledged.len() as u64, sent);
    assert!(
        stored(&connect(&broker).await).await == acknowledged,
        "what is stored is not what was acknowledged"
    );
}
