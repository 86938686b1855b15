//! A database that was cut or changed while its node was stopped: the node refuses to start, or serves what is right
//! and says DATA_LOSS about the rest. It never serves anything else, never forgets silently, and never panics.

mod support;

use std::{collections::BTreeMap, fs};

use futures::{StreamExt as _, stream};
use kelda_proto::{
    batch,
    v1::{self, Compression, ErrorReason, consume_service_client::ConsumeServiceClient},
};
use support::{
    TestNode, assert_refused, config,
    process::{self, NodeProcess, Start},
    record,
};
use tonic::Code;

const DATABASE: &str = "kelda.redb";
const MARKER: &str = "kelda.marker";
/// Damaged copies that are looked at in a run.
const CUTS: u64 = 12;
const FLIPS: u64 = 60;
/// Processes at a time.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a node in a process of its own, which the other tests start"]
async fn node_process() {
    process::serve().await;
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).expect("below a usize")
    }
}

/// What a stopped node has left.
struct Stored {
    marker: Vec<u8>,
    database: Vec<u8>,
    /// Values by topic.
    topics: BTreeMap<&'static str, Vec<String>>,
}

async fn stored() -> Stored {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    let mut topics = BTreeMap::new();
    for (topic, lengths) in [
        ("small", &[3, 10, 100][..]),
        ("large", &[3000, 20_000, 500]),
    ] {
        node.create_topic(topic, 1).await;
        let mut values = Vec::new();
        for number in 0..20 {
            let length = lengths[number % lengths.len()];
            let records: Vec<_> = (0..1 + number % 4)
                .map(|at| record(&format!("{topic} {number} {at} {}", "v".repeat(length))))
                .collect();
            let codec = [
                Compression::Unspecified,
                Compression::Zstd,
                Compression::Lz4,
                Compression::Gzip,
            ][number % 4];
            let request = v1::ProduceRequest {
                topic: topic.to_owned(),
                partition: Some(0),
                batch: Some(batch::pack(&records, codec).expect("packed")),
                ..Default::default()
            };
            node.produce().produce(request).await.expect("produced");
            values.extend(records.into_iter().map(|record| value(Some(record))));
        }
        topics.insert(topic, values);
    }
    node.node.shutdown().await;
    let read = |file| fs::read(directory.path().join(file)).expect("read");
    Stored {
        marker: read(MARKER),
        database: read(DATABASE),
        topics,
    }
}

fn value(record: Option<v1::Record>) -> String {
    let value = record.and_then(|record| record.value).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

/// What became of a damaged copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The node did not start and said why.
    Refused,
    /// The process ended, as it does when it can not write.
    Ended,
    /// Some records are lost and the node says so.
    Lost,
    /// Everything is right.
    Unharmed,
}

impl Stored {
    /// Starts a node on a damaged database and looks at every record.
    async fn look(&self, database: &[u8]) -> Outcome {
        let directory = tempfile::tempdir().expect("a directory");
        let write =
            |file, bytes: &[u8]| fs::write(directory.path().join(file), bytes).expect("written");
        write(MARKER, &self.marker);
        write(DATABASE, database);
        match process::start(directory.path(), 1 << 20).await {
            Start::Refused(message) => {
                assert!(message.len() > 20, "{message}");
                Outcome::Refused
            }
            Start::Ended(ended) => {
                assert!(ended.by_storage(), "{ended:?}");
                Outcome::Ended
            }
            Start::Serves(node) => self.look_at(node).await,
        }
    }

    async fn look_at(&self, node: NodeProcess) -> Outcome {
        let mut lost = 0;
        for (topic, values) in &self.topics {
            for (offset, expected) in values.iter().enumerate() {
                let format = [v1::RecordFormat::Records, v1::RecordFormat::Batches][offset % 2];
                let request = v1::FetchRequest {
                    topic: (*topic).to_owned(),
                    offset: offset as i64,
                    max_bytes: 1,
                    format: format.into(),
                    ..Default::default()
                };
                let mut consume = ConsumeServiceClient::new(node.channel.clone());
                match consume.fetch(request).await {
                    Ok(answer) => {
                        let found = found(answer.into_inner(), offset as i64);
                        assert_eq!(found.as_ref(), Some(expected), "{topic} {offset}");
                    }
                    Err(status) if status.details().is_empty() => {
                        // The connection is gone, so the process must be.
                        let ended = node.end().await;
                        assert!(ended.by_storage(), "{ended:?}");
                        return Outcome::Ended;
                    }
                    Err(status) => {
                        if status.code() != Code::DataLoss {
                            let log = node.kill();
                            panic!("{topic} {offset}: {status:?}\n{log}");
                        }
                        let metadata =
                            assert_refused(&status, Code::DataLoss, ErrorReason::CorruptData);
                        assert_eq!(metadata["topic"], *topic);
                        assert_eq!(metadata["partition"], "0");
                        lost += 1;
                    }
                }
            }
        }
        let ended = node.stop().await;
        assert!(ended.in_order() || ended.by_storage(), "{ended:?}");
        if lost > 0 {
            Outcome::Lost
        } else {
            Outcome::Unharmed
        }
    }

    /// Looks at many damaged copies and counts what became of them.
    async fn look_at_all(&self, copies: Vec<Vec<u8>>) -> BTreeMap<Outcome, usize> {
        let mut outcomes = BTreeMap::new();
        let looks = copies.iter().map(|copy| self.look(copy));
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(outcome) = looks.next().await {
            *outcomes.entry(outcome).or_default() += 1;
        }
        outcomes
    }
}

/// The value at an offset of an answer, and nothing wrong beside it.
fn found(answer: v1::FetchResponse, offset: i64) -> Option<String> {
    for read in answer.records {
        if read.offset == offset {
            return Some(value(read.record));
        }
    }
    for read in answer.batches {
        let packed = read.batch?;
        let records = batch::unpack(&packed, 16 << 20).expect("a batch that is served is right");
        let position = usize::try_from(offset - read.base_offset).ok()?;
        if let Some(record) = records.into_iter().nth(position) {
            return Some(value(Some(record)));
        }
    }
    None
}

#[tokio::test]
async fn an_untouched_copy_is_unharmed() {
    let stored = stored().await;
    let outcome = stored.look(&stored.database).await;
    assert_eq!(outcome, Outcome::Unharmed);
}

#[tokio::test]
async fn a_cut_database_is_refused_or_serves_what_is_right() {
    let stored = stored().await;
    let mut random = Random(1);
    let length = stored.database.len();
    let cuts = (0..CUTS).map(|_| stored.database[..random.below(length)].to_vec());
    let outcomes = stored.look_at_all(cuts.collect()).await;
    assert!(!outcomes.contains_key(&Outcome::Unharmed), "{outcomes:?}");
}

#[tokio::test]
async fn a_database_with_flipped_bits_is_refused_or_serves_what_is_right() {
    let stored = stored().await;
    let used: Vec<usize> = (0..stored.database.len())
        .filter(|at| stored.database[*at] != 0)
        .collect();
    let mut random = Random(2);
    let flip = |_| {
        let mut copy = stored.database.clone();
        for _ in 0..=random.below(3) {
            let mut at = used[random.below(used.len())];
            if random.below(2) == 0 {
                // The front of a page, where the tree keeps its own numbers.
                at = at / 4096 * 4096 + random.below(64);
            }
            copy[at] ^= 1 << random.below(8);
        }
        copy
    };
    let outcomes = stored.look_at_all((0..FLIPS).map(flip).collect()).await;
    println!("{outcomes:?}");
    let noticed = FLIPS as usize - outcomes.get(&Outcome::Unharmed).copied().unwrap_or(0);
    assert!(noticed >= 10, "{outcomes:?}");
}
