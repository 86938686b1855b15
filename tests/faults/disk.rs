//! A disk that fills up: records are refused while there is still room for the broker itself, everything else goes
//! on, and if the disk is full after all the process ends without having lost what it acknowledged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kelda_proto::v1::{
    self, ErrorReason, produce_service_client::ProduceServiceClient,
    produce_stream_request as stream, produce_stream_response as response,
};
use kelda_server::config::Config;
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    TestNode, assert_refused, config,
    orders::{self, Orders, TOPIC},
    panics,
    process::{self, Start},
    record,
    wait::eventually,
};

const MIB: u64 = 1 << 20;

fn assert_disk_full(status: &Status) -> (u64, u64) {
    let metadata = assert_refused(status, Code::ResourceExhausted, ErrorReason::DiskFull);
    assert_eq!(metadata.len(), 3);
    assert!(metadata["reusable_bytes"].parse::<u64>().is_ok());
    let message = status.message();
    assert!(
        message.contains("free space or lower --free-floor-bytes"),
        "{message}"
    );
    let number = |key: &str| metadata[key].parse().expect("a number");
    (number("free_bytes"), number("floor_bytes"))
}

#[tokio::test]
async fn below_the_floor_records_are_refused_and_everything_else_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    let orders = Orders::create_on(node).await;
    let values = orders.node.values(TOPIC, 0, 0).await;
    orders.node.node.shutdown().await;
    let floor = 1 << 60;
    let full = Config {
        free_floor_bytes: floor,
        ..config(Some(directory.path()))
    };
    let node = TestNode::start(full).await;
    let refused = node.produce().produce(orders::good()).await;
    let (free, told) = assert_disk_full(&refused.expect_err("refused"));
    assert!(free < told && told == floor);
    assert_disk_full_in_a_stream(&node).await;
    assert_eq!(node.values(TOPIC, 0, 0).await, values);
    let mut topics = node.topics();
    let listed = topics.list_topics(v1::ListTopicsRequest::default());
    let listed = listed.await.expect("listed").into_inner();
    assert_eq!(listed.topics.len(), 1);
    let trim = v1::DeleteRecordsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionTrim {
            partition: 0,
            before_offset: 1,
        }],
    };
    let trimmed = topics.delete_records(trim).await.expect("deleted");
    assert_eq!(trimmed.into_inner().offsets[0].log_start_offset, 1);
    assert_eq!(node.values(TOPIC, 0, 1).await, values[1..]);
    let name = TOPIC.to_owned();
    let deleted = topics.delete_topic(v1::DeleteTopicRequest { name });
    deleted.await.expect("deleted");
    node.node.shutdown().await;
    panics::assert_none();
}

/// Asserts that an append is refused and that its stream ends well.
async fn assert_disk_full_in_a_stream(node: &TestNode) {
    let hello = stream::Hello {
        topic: TOPIC.to_owned(),
        ..Default::default()
    };
    let append = stream::Append {
        records: vec![record("a")],
        ..Default::default()
    };
    let requests = [
        stream::Message::Hello(hello),
        stream::Message::Append(append),
    ];
    let requests = requests.map(|message| v1::ProduceStreamRequest {
        message: Some(message),
    });
    let mut node = node.produce();
    let acks = node.produce_stream(tokio_stream::iter(requests)).await;
    let mut acks = acks.expect("a stream").into_inner();
    let mut results = Vec::new();
    while let Some(message) = acks.message().await.expect("it goes on") {
        if let Some(response::Message::Ack(ack)) = message.message {
            results.extend(ack.result);
        }
    }
    let [response::ack::Result::Error(error)] = &results[..] else {
        panic!("it must be refused: {results:?}");
    };
    assert_eq!(error.reason(), ErrorReason::DiskFull);
    assert_eq!(Code::from_i32(error.code), Code::ResourceExhausted);
}

/// A small disk, or nothing where this user may not mount one.
struct SmallDisk {
    /// Outlives the mount.
    _parent: tempfile::TempDir,
    path: PathBuf,
}

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("disk");
        fs::create_dir(&path).expect("created");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "kelda-test"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self {
                _parent: parent,
                path,
            });
        }
        println!("skipped: this user can not mount a small disk");
        None
    }

    fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a failed test may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Produces records of 64 KiB until that fails; answers how many were acknowledged, and why no more were.
async fn fill(channel: &Channel, records_max: usize) -> (usize, Status) {
    let mut produce = ProduceServiceClient::new(channel.clone());
    for number in 0..records_max {
        let request = v1::ProduceRequest {
            topic: TOPIC.to_owned(),
            partition: Some(0),
            records: vec![record(&filling(number))],
            ..Default::default()
        };
        if let Err(status) = produce.produce(request).await {
            return (number, status);
        }
    }
    panic!("the disk has no end");
}

fn filling(number: usize) -> String {
    format!("{number} {}", "f".repeat(64 << 10))
}

/// Asserts that exactly these records are there from an offset on; one more may be, if its answer was lost.
async fn assert_filled(node: &TestNode, from: i64, acknowledged: usize) {
    let values = node.values(TOPIC, 0, from).await;
    let extra = values.len().checked_sub(acknowledged);
    assert!(
        matches!(extra, Some(0 | 1)),
        "{} of {acknowledged}",
        values.len()
    );
    for (value, number) in values.iter().zip(0..) {
        assert!(*value == filling(number), "record {number} differs");
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_is_never_full_and_has_room_again_once_records_are_deleted() {
    let Some(disk) = SmallDisk::mount(64 * MIB) else {
        return;
    };
    let node = TestNode::start(Config {
        free_floor_bytes: 24 * MIB,
        ..config(Some(&disk.data_dir()))
    })
    .await;
    node.create_topic(TOPIC, 1).await;
    let (acknowledged, status) = fill(&node.channel, 2000).await;
    let (free, floor) = assert_disk_full(&status);
    assert!(free < floor, "{free} {floor}");
    assert!(free > 4 * MIB, "only {free} bytes were left");
    assert!(acknowledged > 50, "only {acknowledged}");
    assert_filled(&node, 0, acknowledged).await;
    let trim = v1::DeleteRecordsRequest {
        topic: TOPIC.to_owned(),
        partitions: vec![v1::PartitionTrim {
            partition: 0,
            before_offset: -1,
        }],
    };
    node.topics().delete_records(trim).await.expect("deleted");
    let again = eventually("there is room again", async || {
        let answer = node.produce().produce(orders::good()).await;
        match answer {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                assert_disk_full(&status);
                None
            }
        }
    })
    .await;
    assert_eq!(again.partitions[0].base_offset, acknowledged as i64);
    assert_eq!(node.values(TOPIC, 0, acknowledged as i64).await, ["bad"]);
    node.node.shutdown().await;
    panics::assert_none();
}

/// Copies a data directory to a disk with more room.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for file in fs::read_dir(from).expect("listed") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn on_a_full_disk_the_process_ends_and_what_was_acknowledged_is_there() {
    let Some(disk) = SmallDisk::mount(16 * MIB) else {
        return;
    };
    let Start::Serves(process) = process::start(&disk.data_dir(), 0).await else {
        panic!("it must start");
    };
    let create = v1::CreateTopicRequest {
        name: TOPIC.to_owned(),
        ..Default::default()
    };
    let mut topics = v1::topic_service_client::TopicServiceClient::new(process.channel.clone());
    topics.create_topic(create).await.expect("created");
    let (acknowledged, status) = fill(&process.channel, 2000).await;
    println!("{acknowledged} acknowledged, then {status:?}");
    assert!(acknowledged > 10, "only {acknowledged}");
    // What the client library says about a connection that has ended, not the broker.
    assert!(status.details().is_empty(), "{status:?}");
    let ended = process.end().await;
    assert!(ended.by_storage(), "{ended:?}");
    let larger = tempfile::tempdir().expect("a directory");
    copy(&disk.data_dir(), larger.path());
    let node = TestNode::start(config(Some(larger.path()))).await;
    assert_filled(&node, 0, acknowledged).await;
    node.node.shutdown().await;
    panics::assert_none();
}
