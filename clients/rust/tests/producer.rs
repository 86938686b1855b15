//! Producers against a broker with scripted faults.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use kelda_client::v1::{Acks, Compression, ErrorReason, Record};
use kelda_client::{Delivery, Error, Options, Producer, ProducerOptions};
use kelda_proto::partitioner::partition_for_key;
use support::{Fault, Node, Shared, TOPIC, client, connect};

/// One record a batch, so that tests know what an append holds.
fn single() -> ProducerOptions {
    ProducerOptions {
        partition: Some(0),
        batch_records: 1,
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    }
}

fn record(number: i64) -> Record {
    Record {
        value: Some(Bytes::from_static(b"value")),
        timestamp_ms: number,
        ..Record::default()
    }
}

async fn send(producer: &Producer, numbers: std::ops::Range<i64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        deliveries.push(producer.send(record(number)).await.expect("room"));
    }
    deliveries
}

/// Offsets of deliveries that all succeed.
async fn offsets(deliveries: Vec<Delivery>) -> Vec<u64> {
    let mut offsets = Vec::new();
    for delivery in deliveries {
        let position = delivery.await.expect("written");
        offsets.push(position.offset.expect("known"));
    }
    offsets
}

fn range(end: i64) -> Vec<i64> {
    (0..end).collect()
}

#[tokio::test]
async fn records_go_where_their_keys_belong_and_keep_their_order() {
    let shared = Shared::new(3);
    let node = Node::start(&shared);
    let options = ProducerOptions {
        compression: Compression::Lz4,
        ..ProducerOptions::default()
    };
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    for number in 0..3000 {
        let key = Some(Bytes::from((number % 10).to_string()));
        producer
            .post(&Record {
                key,
                ..record(number)
            })
            .await
            .expect("room");
    }
    let summary = producer.close().await.expect("never stopped");
    assert_eq!(
        (summary.sent, summary.acknowledged, summary.failed),
        (3000, 3000, 0)
    );
    let cluster = shared.lock();
    assert_eq!(cluster.logs.values().map(Vec::len).sum::<usize>(), 3000);
    for (partition, log) in &cluster.logs {
        assert!(log.is_sorted_by_key(|record| record.timestamp_ms));
        for record in log {
            let key = record.key.as_ref().expect("given");
            assert_eq!(partition_for_key(key, 3) as i32, *partition);
        }
    }
}

#[tokio::test]
async fn deliveries_give_the_offset_of_each_record() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client
        .producer(TOPIC, ProducerOptions::default())
        .await
        .expect("a stream");
    let first = send(&producer, 0..5).await;
    producer.flush().await.expect("written");
    let second = send(&producer, 5..9).await;
    assert_eq!(offsets(first).await, [0, 1, 2, 3, 4]);
    assert_eq!(offsets(second).await, [5, 6, 7, 8]);
    assert_eq!(shared.numbers(0), range(9));
}

#[tokio::test]
async fn a_lost_ack_is_repeated_and_nothing_is_written_twice() {
    let shared = Shared::new(1);
    shared.lock().faults = [Fault::Pass, Fault::LoseAck].into();
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let deliveries = send(&producer, 0..6).await;
    assert_eq!(offsets(deliveries).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(shared.numbers(0), range(6));
    let summary = producer.close().await.expect("never stopped");
    assert!(summary.duplicates >= 1, "{summary:?}");
}

#[tokio::test]
async fn a_lost_append_is_sent_again_before_those_behind_it() {
    let shared = Shared::new(1);
    shared.lock().faults = [Fault::Pass, Fault::LoseAppend, Fault::LoseAppend].into();
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let deliveries = send(&producer, 0..6).await;
    assert_eq!(offsets(deliveries).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(shared.numbers(0), range(6));
}

#[tokio::test]
async fn an_error_that_may_pass_does_not_change_the_order() {
    let shared = Shared::new(1);
    // Behind the refused append the broker misses a sequence, and refuses those that follow as well.
    let no_leader = Fault::Refuse(ErrorReason::NoLeader);
    let overloaded = Fault::Refuse(ErrorReason::Overloaded);
    shared.lock().faults = [Fault::Pass, no_leader, Fault::Pass, overloaded].into();
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let deliveries = send(&producer, 0..20).await;
    producer.flush().await.expect("written");
    assert_eq!(offsets(deliveries).await.len(), 20);
    assert_eq!(shared.numbers(0), range(20));
}

#[tokio::test]
async fn an_append_without_an_ack_is_sent_again_after_the_request_timeout() {
    let shared = Shared::new(1);
    shared.lock().faults = [Fault::Silence].into();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let client = connect(Options {
        servers: vec![first.address.clone(), second.address.clone()],
        request_timeout: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let deliveries = send(&producer, 0..1).await;
    assert_eq!(offsets(deliveries).await, [0]);
    assert_eq!(shared.lock().hellos.len(), 2);
}

#[tokio::test]
async fn a_dead_node_is_replaced_by_the_next() {
    let shared = Shared::new(2);
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let client = client(&[&first, &second]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    send(&producer, 0..50).await;
    drop(first);
    send(&producer, 50..100).await;
    producer.flush().await.expect("written");
    assert_eq!(shared.numbers(0), range(100));
}

#[tokio::test]
async fn many_faults_lose_nothing_double_nothing_and_keep_the_order() {
    let shared = Shared::new(3);
    let kinds = [
        Fault::LoseAck,
        Fault::Refuse(ErrorReason::NoLeader),
        Fault::LoseAppend,
        Fault::Refuse(ErrorReason::Overloaded),
    ];
    // Three of four appends pass; a stride that shares no factor with the number of kinds mixes them.
    let faults = (0..400_usize).map(|n| {
        if n % 4 == 3 {
            kinds[n * 7 / 4 % 4]
        } else {
            Fault::Pass
        }
    });
    shared.lock().faults = faults.collect();
    let node = Node::start(&shared);
    let options = ProducerOptions {
        batch_records: 7,
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    };
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    let mut deliveries = Vec::new();
    for number in 0..2000 {
        let key = Some(Bytes::from((number % 11).to_string()));
        let sent = producer
            .send(Record {
                key,
                ..record(number)
            })
            .await;
        deliveries.push((number, sent.expect("room")));
    }
    for (number, delivery) in deliveries {
        let position = delivery.await.expect("written");
        let log = &shared.lock().logs[&(position.partition as i32)];
        let offset = position.offset.expect("known") as usize;
        assert_eq!(log[offset].timestamp_ms, number);
    }
    let cluster = shared.lock();
    assert_eq!(cluster.logs.values().map(Vec::len).sum::<usize>(), 2000);
    assert!(
        cluster
            .logs
            .values()
            .all(|log| log.is_sorted_by_key(|record| record.timestamp_ms))
    );
}

#[tokio::test]
async fn a_final_error_takes_those_behind_it_along_and_the_producer_goes_on() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    offsets(send(&producer, 0..1).await).await;
    shared.lock().faults = [Fault::Silence, Fault::Refuse(ErrorReason::Internal)].into();
    let mut deliveries = send(&producer, 1..3).await.into_iter();
    let before = deliveries.next().expect("two").await;
    let Err(Error::Abandoned { cause }) = before else {
        panic!("{before:?}");
    };
    assert_eq!(cause.reason(), Some(ErrorReason::Internal));
    let refused = deliveries.next().expect("two").await.expect_err("refused");
    assert_eq!(refused.reason(), Some(ErrorReason::Internal));
    assert!(producer.flush().await.is_err());
    assert_eq!(producer.flush().await, Ok(()));

    assert_eq!(offsets(send(&producer, 3..6).await).await, [1, 2, 3]);
    assert_eq!(shared.numbers(0), [0, 3, 4, 5]);
    assert_eq!(
        shared.lock().hellos.last().map(|hello| hello.session_epoch),
        Some(1)
    );
    let summary = producer.close().await.expect("never stopped");
    assert_eq!((summary.acknowledged, summary.failed), (4, 2));
}

#[tokio::test]
async fn what_can_not_be_written_in_time_fails_and_the_producer_goes_on() {
    let shared = Shared::new(1);
    shared.lock().refuse_all = Some(ErrorReason::NoLeader);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        delivery_timeout: Duration::from_millis(200),
        ..single()
    };
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    let after = Duration::from_millis(200);
    for delivery in send(&producer, 0..1).await {
        assert_eq!(delivery.await, Err(Error::Timeout { after }));
    }
    shared.lock().refuse_all = None;
    assert_eq!(offsets(send(&producer, 1..3).await).await, [0, 1]);
}

#[tokio::test]
async fn what_is_sent_while_all_nodes_are_gone_fails_in_time() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        delivery_timeout: Duration::from_millis(200),
        ..single()
    };
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    drop(node);
    let after = Duration::from_millis(200);
    for delivery in send(&producer, 0..20).await {
        let outcome = delivery.await.expect_err("nobody writes it");
        let in_time = matches!(&outcome, Error::Timeout { after: waited } if *waited == after);
        assert!(
            in_time || matches!(outcome, Error::Abandoned { .. }),
            "{outcome:?}"
        );
    }
    let summary = producer.close().await.expect("never stopped");
    assert_eq!(summary.failed, 20);
}

#[tokio::test]
async fn a_later_producer_takes_a_session_over() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        session: Some("importer".to_owned()),
        ..single()
    };
    let earlier = client
        .producer(TOPIC, options.clone())
        .await
        .expect("a stream");
    assert_eq!(offsets(send(&earlier, 0..2).await).await, [0, 1]);
    let later = client.producer(TOPIC, options).await.expect("a stream");
    assert_eq!(offsets(send(&later, 2..4).await).await, [2, 3]);

    let delivery = earlier.send(record(9)).await.expect("room");
    let fenced = delivery.await.expect_err("fenced");
    assert_eq!(fenced.reason(), Some(ErrorReason::ProducerFenced));
    let stopped = earlier.close().await.expect_err("stopped");
    assert_eq!(stopped.reason(), Some(ErrorReason::ProducerFenced));
    assert_eq!(shared.numbers(0), range(4));
}

#[tokio::test]
async fn senders_wait_while_there_is_no_room() {
    let shared = Shared::new(1);
    shared.lock().refuse_all = Some(ErrorReason::NoLeader);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        in_flight: 2,
        ..single()
    };
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    // Two batches on their way, and one that is full and waits for them.
    let deliveries = send(&producer, 0..3).await;
    let mut fourth = std::pin::pin!(producer.send(record(3)));
    assert!(fourth.as_mut().now_or_never().is_none());
    shared.lock().refuse_all = None;
    let delivery = fourth.await.expect("room at last");
    assert_eq!(offsets(deliveries).await, [0, 1, 2]);
    assert_eq!(offsets(vec![delivery]).await, [3]);
}

#[tokio::test]
async fn without_waiting_for_a_quorum_offsets_are_not_known() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        acks: Acks::None,
        ..ProducerOptions::default()
    };
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    for delivery in send(&producer, 0..3).await {
        assert_eq!(delivery.await.map(|position| position.offset), Ok(None));
    }
    assert_eq!(shared.numbers(0), range(3));
    assert_eq!(shared.lock().hellos[0].session_id, "");
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_before_it_is_sent() {
    let shared = Shared::new(1);
    shared.lock().config.record_bytes_max = Some(100);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client
        .producer(TOPIC, ProducerOptions::default())
        .await
        .expect("a stream");
    let large = Record {
        value: Some(Bytes::from(vec![0; 200])),
        ..Record::default()
    };
    let error = producer.post(&large).await.expect_err("too large");
    assert!(error.to_string().contains("more than 100"), "{error}");

    let unknown = client
        .producer("nowhere", ProducerOptions::default())
        .await
        .err();
    let reason = unknown.and_then(|error| error.reason());
    assert_eq!(reason, Some(ErrorReason::UnknownTopic));
    let options = ProducerOptions {
        partition: Some(5),
        ..ProducerOptions::default()
    };
    let error = client.producer(TOPIC, options).await.err();
    let expected = Error::UnknownPartition {
        partition: 5,
        partition_count: 1,
    };
    assert_eq!(error, Some(expected));
}

#[tokio::test]
async fn closing_sends_what_lingers() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let options = ProducerOptions {
        linger: Duration::from_secs(3600),
        ..ProducerOptions::default()
    };
    let producer = client.producer(TOPIC, options).await.expect("a stream");
    let deliveries = send(&producer, 0..3).await;
    let summary = producer.close().await.expect("never stopped");
    assert_eq!(summary.acknowledged, 3);
    assert_eq!(offsets(deliveries).await, [0, 1, 2]);
}

#[tokio::test]
async fn dropping_a_producer_ends_its_deliveries() {
    let shared = Shared::new(1);
    shared.lock().refuse_all = Some(ErrorReason::NoLeader);
    let node = Node::start(&shared);
    let client = client(&[&node]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let deliveries = send(&producer, 0..2).await;
    drop(producer);
    for delivery in deliveries {
        assert_eq!(delivery.await, Err(Error::Closed));
    }
}

/// A client that waits for answers and connections longer than a test does.
async fn patient(servers: Vec<String>) -> kelda_client::Client {
    let options = Options {
        servers,
        connect_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
        ..Options::default()
    };
    connect(options).await
}

/// What comes of something that must not take as long as a patient client's timeouts.
async fn before_any_timeout<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("in time")
}

#[tokio::test]
async fn a_server_that_freezes_is_left_for_the_next_and_nothing_is_written_twice() {
    let shared = Shared::new(1);
    // Its ack was on its way when the server froze.
    shared.lock().faults = [Fault::Pass, Fault::Pass, Fault::Silence].into();
    let nodes = [Node::start(&shared), Node::start(&shared)];
    let client = patient(nodes.iter().map(|node| node.address.clone()).collect()).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let first = send(&producer, 0..2).await;
    assert_eq!(offsets(first).await, [0, 1]);
    let _frozen = nodes[0].freeze();
    let second = send(&producer, 2..6).await;
    assert_eq!(before_any_timeout(offsets(second)).await, [2, 3, 4, 5]);
    assert_eq!(shared.numbers(0), range(6));
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_left_for_the_next() {
    let shared = Shared::new(1);
    let node = Node::start(&shared);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().map(|address| (address, silent));
    let (address, _listener) = silent.expect("an address");
    let client = patient(vec![address.to_string(), node.address.clone()]).await;
    let producer = client.producer(TOPIC, single());
    let producer = before_any_timeout(producer).await.expect("a stream");
    let sent = send(&producer, 0..3).await;
    assert_eq!(offsets(sent).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_server_that_knows_no_leader_is_left_for_the_next() {
    let (cut_off, others) = (Shared::new(1), Shared::new(1));
    cut_off.lock().refuse_all = Some(ErrorReason::NoLeader);
    let nodes = [Node::start(&cut_off), Node::start(&others)];
    let client = client(&[&nodes[0], &nodes[1]]).await;
    let producer = client.producer(TOPIC, single()).await.expect("a stream");
    let sent = send(&producer, 0..3).await;
    assert_eq!(before_any_timeout(offsets(sent)).await, [0, 1, 2]);
    assert_eq!(others.numbers(0), range(3));
}
