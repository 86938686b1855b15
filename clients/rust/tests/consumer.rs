//! Consumers against a broker with scripted faults.

mod support;

use std::time::Duration;

use kelda_client::v1::{ConsumeRequest, ErrorReason, RecordFormat};
use kelda_client::{Client, Consumer, Error, Event, Options, Retry};
use support::{Node, Script, Shared, TOPIC, client, connect};

async fn consume(client: &Client, heartbeat_interval_ms: i32) -> Consumer {
    let request = ConsumeRequest {
        topic: TOPIC.to_owned(),
        follow: true,
        heartbeat_interval_ms,
        ..ConsumeRequest::default()
    };
    client.consume(request).await.expect("a stream")
}

/// Offsets of all records up to the end.
async fn read(consumer: &mut Consumer) -> Result<Vec<u64>, Error> {
    let mut offsets = Vec::new();
    while let Some(event) = consumer.next().await? {
        if let Event::Records { records, .. } = event {
            for consumed in &records {
                assert_eq!(consumed.record.timestamp_ms as u64, consumed.offset + 1000);
            }
            offsets.extend(records.iter().map(|consumed| consumed.offset));
        }
    }
    Ok(offsets)
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_was() {
    let shared = Shared::new(1);
    shared.lock().scripts = [
        Script::Break(2),
        Script::Break(0),
        Script::Break(1),
        Script::End(1),
    ]
    .into();
    let node = Node::start(&shared);
    let mut consumer = consume(&client(&[&node]).await, 10_000).await;
    let offsets = read(&mut consumer).await.expect("recovers");
    assert_eq!(offsets, (0..8).collect::<Vec<_>>());
    assert_eq!(consumer.positions()[0].next_offset, 8);
    let cluster = shared.lock();
    assert_eq!(cluster.consumes.len(), 4);
    let batches = RecordFormat::Batches as i32;
    assert!(
        cluster
            .consumes
            .iter()
            .all(|request| request.format == batches)
    );
}

#[tokio::test]
async fn silence_means_that_the_stream_is_dead() {
    let shared = Shared::new(1);
    shared.lock().scripts = [Script::Silence(1), Script::End(1)].into();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let mut consumer = consume(&client(&[&first, &second]).await, 100).await;
    assert_eq!(read(&mut consumer).await.expect("recovers"), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_dead_node_is_replaced_by_the_next() {
    let shared = Shared::new(1);
    shared.lock().scripts = [Script::Silence(1), Script::End(1)].into();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let mut consumer = consume(&client(&[&first, &second]).await, 60_000).await;
    let event = consumer.next().await.expect("records");
    assert!(matches!(event, Some(Event::Records { next_offset: 2, .. })));
    drop(first);
    assert_eq!(read(&mut consumer).await.expect("recovers"), [2, 3]);
}

#[tokio::test]
async fn a_final_error_ends_the_consumer() {
    let shared = Shared::new(1);
    let fail = Script::Fail(ErrorReason::OffsetOutOfRange);
    shared.lock().scripts = [Script::Break(1), fail.clone(), fail].into();
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let mut consumer = consume(&client, 10_000).await;
    let error = read(&mut consumer).await.expect_err("a final error");
    assert_eq!(error.reason(), Some(ErrorReason::OffsetOutOfRange));
    assert_eq!(consumer.next().await, Ok(None));
    let error = client.consume(ConsumeRequest::default()).await.err();
    let reason = error.and_then(|error| error.reason());
    assert_eq!(reason, Some(ErrorReason::OffsetOutOfRange));
}

#[tokio::test]
async fn attempts_without_progress_are_counted() {
    let shared = Shared::new(1);
    shared.lock().scripts = [Script::Break(0), Script::Break(0), Script::Break(0)].into();
    let node = Node::start(&shared);
    let client = connect(Options {
        servers: vec![node.address.clone()],
        retry: Retry {
            attempts: 3,
            backoff: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
        },
        ..Options::default()
    })
    .await;
    let mut consumer = consume(&client, 10_000).await;
    let error = read(&mut consumer).await.expect_err("no progress");
    assert_eq!(error.reason(), Some(ErrorReason::NoLeader));
    assert_eq!(shared.lock().consumes.len(), 3);
}
