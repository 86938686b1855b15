//! Fetch and Consume as their contract says.

use std::collections::BTreeMap;

use kelda_proto::v1::{
    Boundary, ConsumeRequest, ConsumeResponse, DeleteRecordsRequest, FetchRequest,
    OutOfRangePolicy, PartitionStart, PartitionTrim, RecordFormat, StartPosition,
    consume_response::{Event, Records},
    start_position::Position,
    topic_service_client::TopicServiceClient,
};
use kelda_server::node::Node;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::support::{PATIENCE, channel, consumer, create_topic, info, node, produce};

async fn node_with_topic(partition_count: i32) -> (Node, Channel) {
    let node = node().await;
    let channel = channel(&node).await;
    create_topic(&channel, "orders", partition_count).await;
    (node, channel)
}

fn request() -> ConsumeRequest {
    ConsumeRequest {
        topic: "orders".to_owned(),
        heartbeat_interval_ms: 60_000,
        ..ConsumeRequest::default()
    }
}

fn at(position: Position) -> Option<StartPosition> {
    Some(StartPosition {
        position: Some(position),
    })
}

struct Reader(Streaming<ConsumeResponse>);

impl Reader {
    /// Opens a stream and takes its Started.
    async fn open(channel: &Channel, request: ConsumeRequest) -> Self {
        let mut stream = consumer(channel)
            .consume(request)
            .await
            .unwrap()
            .into_inner();
        let first = timeout(PATIENCE, stream.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(matches!(first.event, Some(Event::Started(_))), "{first:?}");
        Self(stream)
    }

    async fn next(&mut self) -> Result<Option<Event>, Status> {
        let next = timeout(PATIENCE, self.0.message()).await.unwrap()?;
        Ok(next.map(|next| next.event.unwrap()))
    }

    async fn records(&mut self) -> Records {
        match self.next().await.unwrap().unwrap() {
            Event::Records(records) => records,
            other => panic!("{other:?} are no Records"),
        }
    }
}

fn values(records: &Records) -> Vec<String> {
    let values = records.records.iter().map(|consumed| {
        let value = consumed.record.as_ref().unwrap().value.as_ref().unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    });
    values.collect()
}

#[tokio::test]
async fn a_stream_that_does_not_follow_reads_everything_and_ends() {
    let (node, channel) = node_with_topic(3).await;
    for i in 0..30 {
        produce(&channel, "orders", i % 3, &i.to_string()).await;
    }
    for format in [RecordFormat::Records, RecordFormat::Batches] {
        let small = ConsumeRequest {
            format: format.into(),
            max_message_bytes: 1,
            ..request()
        };
        let mut reader = Reader::open(&channel, small).await;
        let mut next_offsets = BTreeMap::new();
        let end = loop {
            match reader.next().await.unwrap().unwrap() {
                Event::Records(records) => {
                    let expected = next_offsets.entry(records.partition).or_insert(0);
                    let first = match format {
                        RecordFormat::Batches => records.batches[0].base_offset,
                        _ => records.records[0].offset,
                    };
                    assert_eq!(first, *expected, "in order, without a gap");
                    *expected = records.next_offset;
                }
                Event::End(end) => break end,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(next_offsets, BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
        assert!(
            end.positions
                .iter()
                .all(|position| position.next_offset == 10)
        );
        assert!(reader.next().await.unwrap().is_none(), "it ends with OK");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn an_empty_topic_ends_at_once_without_follow() {
    let (node, channel) = node_with_topic(2).await;
    let mut reader = Reader::open(&channel, request()).await;
    assert!(matches!(reader.next().await.unwrap(), Some(Event::End(_))));
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_follows_sees_new_records_and_heartbeats_between() {
    let (node, channel) = node_with_topic(2).await;
    produce(&channel, "orders", 0, "old").await;
    let follow = ConsumeRequest {
        follow: true,
        start: at(Position::Boundary(Boundary::Latest.into())),
        heartbeat_interval_ms: 100,
        ..request()
    };
    let mut reader = Reader::open(&channel, follow).await;
    let Some(Event::Heartbeat(heartbeat)) = reader.next().await.unwrap() else {
        panic!("there is nothing to say yet");
    };
    assert_eq!(heartbeat.positions[0].next_offset, 1);
    for round in 0..5 {
        let partition = round % 2;
        let value = format!("new {round}");
        produce(&channel, "orders", partition, &value).await;
        let records = loop {
            match reader.next().await.unwrap().unwrap() {
                Event::Records(records) => break records,
                Event::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(records.partition, partition);
        assert_eq!(values(&records), [value]);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn each_partition_starts_where_it_is_told() {
    let (node, channel) = node_with_topic(2).await;
    for i in 0..4 {
        produce(&channel, "orders", 0, &i.to_string()).await;
        produce(&channel, "orders", 1, &i.to_string()).await;
    }
    let starts = ConsumeRequest {
        start: at(Position::Offset(3)),
        partitions: vec![
            PartitionStart {
                partition: 1,
                start: at(Position::Offset(2)),
            },
            PartitionStart {
                partition: 0,
                start: None,
            },
        ],
        ..request()
    };
    let mut reader = Reader::open(&channel, starts).await;
    let mut seen: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    while let Some(Event::Records(records)) = reader.next().await.unwrap() {
        seen.entry(records.partition)
            .or_default()
            .extend(values(&records));
    }
    assert_eq!(seen[&0], ["3"]);
    assert_eq!(seen[&1], ["2", "3"]);
    node.shutdown().await;
}

#[tokio::test]
async fn a_start_outside_the_log_fails_or_is_moved_with_a_gap() {
    let (node, channel) = node_with_topic(1).await;
    for i in 0..4 {
        produce(&channel, "orders", 0, &i.to_string()).await;
    }
    let trim = DeleteRecordsRequest {
        topic: "orders".to_owned(),
        partitions: vec![PartitionTrim {
            partition: 0,
            before_offset: 2,
        }],
    };
    let mut topics = TopicServiceClient::new(channel.clone());
    topics.delete_records(trim).await.unwrap();
    let with = |policy: OutOfRangePolicy| ConsumeRequest {
        start: at(Position::Offset(0)),
        on_out_of_range: policy.into(),
        ..request()
    };
    let refused = consumer(&channel)
        .consume(with(OutOfRangePolicy::Fail))
        .await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(info(&status).metadata["log_start_offset"], "2");

    let mut reader = Reader::open(&channel, with(OutOfRangePolicy::Earliest)).await;
    let Some(Event::Gap(gap)) = reader.next().await.unwrap() else {
        panic!("a gap must be told");
    };
    assert_eq!((gap.from_offset, gap.to_offset), (0, 2));
    assert_eq!(values(&reader.records().await), ["2", "3"]);

    let mut reader = Reader::open(&channel, with(OutOfRangePolicy::Latest)).await;
    let Some(Event::Gap(gap)) = reader.next().await.unwrap() else {
        panic!("a gap must be told");
    };
    assert_eq!((gap.from_offset, gap.to_offset), (0, 4));
    assert!(matches!(reader.next().await.unwrap(), Some(Event::End(_))));
    node.shutdown().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_told_at_once() {
    let (node, channel) = node_with_topic(1).await;
    let twice = PartitionStart {
        partition: 0,
        start: None,
    };
    let wrong = ConsumeRequest {
        partitions: vec![twice, twice],
        heartbeat_interval_ms: 99,
        max_message_bytes: -1,
        format: 7,
        on_out_of_range: 7,
        ..request()
    };
    let status = consumer(&channel).consume(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
    assert_eq!(details.field_violations.len(), 5, "{details:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn a_stop_of_the_node_ends_streams_and_long_polls() {
    let (node, channel) = node_with_topic(1).await;
    let follow = ConsumeRequest {
        follow: true,
        ..request()
    };
    let mut reader = Reader::open(&channel, follow).await;
    let poll = FetchRequest {
        topic: "orders".to_owned(),
        max_wait_ms: 60_000,
        ..FetchRequest::default()
    };
    let mut poller = consumer(&channel);
    let polling = tokio::spawn(async move { poller.fetch(poll).await });
    // A later call on the same connection is answered, so the poll has arrived.
    produce(&channel, "orders", 0, "wakes the poll").await;
    polling.await.unwrap().unwrap();
    reader.records().await;
    let stop = tokio::spawn(node.shutdown());
    let status = reader.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(info(&status).reason, "NOT_READY");
    timeout(PATIENCE, stop).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deleted_topic_ends_the_streams_that_follow_it() {
    let (node, channel) = node_with_topic(1).await;
    let follow = ConsumeRequest {
        follow: true,
        ..request()
    };
    let mut reader = Reader::open(&channel, follow).await;
    let delete = kelda_proto::v1::DeleteTopicRequest {
        name: "orders".to_owned(),
    };
    let mut topics = TopicServiceClient::new(channel.clone());
    topics.delete_topic(delete).await.unwrap();
    let status = reader.next().await.unwrap_err();
    assert_eq!(info(&status).reason, "UNKNOWN_TOPIC", "{status:?}");
    node.shutdown().await;
}
