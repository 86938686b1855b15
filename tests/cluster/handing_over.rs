//! Leadership that goes from node to node while records come: also who writes without a session is never told that the
//! node that was asked does not lead.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kelda_proto::v1::{
    ErrorReason, Record, TransferLeadershipRequest, produce_service_client::ProduceServiceClient,
    produce_stream_request::Append,
};
use tonic::Code;

use super::ask::{self, TOPIC};
use crate::support::{
    appender::{Appender, hello, outcome},
    cluster::{
        Cluster,
        operator::{places, service, settled},
    },
    connect,
    wait::eventually,
};

/// Appends without an ack at a time.
const IN_FLIGHT: usize = 16;
/// How often leadership goes from node to node.
const ROUNDS: u64 = 12;

/// Writes numbers on one stream, without a session, until it is told to stop. Returns those that were acknowledged.
async fn write(appender: &mut Appender, stop: &AtomicBool) -> BTreeSet<u64> {
    let mut acknowledged = BTreeSet::new();
    let (mut sent, mut waiting) = (0, 0);
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped && waiting == 0 {
            return acknowledged;
        }
        if !stopped && waiting < IN_FLIGHT {
            let append = Append {
                correlation_id: sent,
                partition: Some(0),
                records: vec![Record {
                    value: Some(sent.to_string().into()),
                    ..Record::default()
                }],
                ..Append::default()
            };
            appender.send(append).await;
            sent += 1;
            waiting += 1;
            continue;
        }
        let ack = appender.ack().await.expect("the stream is open");
        let ack = ack.expect("an ack");
        waiting -= 1;
        let number = ack.correlation_id;
        match outcome(ack) {
            Ok(_) => assert!(acknowledged.insert(number), "{number} twice"),
            // Whether it was taken is not known: the next leader may have dropped it, or its answer came too late.
            Err(reason) => assert_eq!(reason, ErrorReason::NoLeader, "{number}"),
        }
    }
}

async fn transfer(cluster: &Cluster, to: u64) {
    eventually("the leader is another one", async || {
        let request = TransferLeadershipRequest {
            topic: TOPIC.to_owned(),
            partition: 0,
            node: to,
        };
        match service(cluster, 0).await.transfer_leadership(request).await {
            Ok(_) => Some(()),
            Err(status) if status.code() == Code::Unavailable => None,
            Err(status) => panic!("refused: {status:?}"),
        }
    })
    .await;
    eventually("it is heard of", async || {
        let places = places(cluster, 0).await?;
        (places.first()?.leader == to).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_session_goes_on_in_order_while_leadership_is_handed_over() {
    let cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    settled(&cluster, 0, 3).await;
    transfer(&cluster, 1).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let stop = Arc::clone(&stop);
        let service = ProduceServiceClient::new(connect(cluster.addresses()[0]).await);
        let mut appender = Appender::open_on(service, hello(TOPIC))
            .await
            .expect("welcome");
        tokio::spawn(async move { write(&mut appender, &stop).await })
    };
    for round in 1..=ROUNDS {
        transfer(&cluster, round % 3 + 1).await;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.expect("none is refused");
    let written = acknowledged.len();
    assert!(written > 10 * IN_FLIGHT, "only {written} were written");
    let values = ask::all_values(cluster.addresses()[1], written).await;
    let values: Vec<u64> = values.iter().filter_map(|it| it.parse().ok()).collect();
    assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
    let values = BTreeSet::from_iter(values);
    assert!(acknowledged.is_subset(&values), "some are lost");
}
