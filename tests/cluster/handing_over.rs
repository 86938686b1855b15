//! Leadership that goes from node to node while records come: whoever writes notices nothing, with a session or without.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kelda_proto::v1::{
    Record, TransferLeadershipRequest, produce_service_client::ProduceServiceClient,
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

/// Writes numbers on one stream, without a session, until it is told to stop. Returns how many were acknowledged.
async fn write(appender: &mut Appender, stop: &AtomicBool) -> usize {
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        let waiting = sent - acknowledged;
        if stopped && waiting == 0 {
            return acknowledged;
        }
        if !stopped && waiting < IN_FLIGHT {
            let append = Append {
                partition: Some(0),
                records: vec![Record {
                    value: Some(sent.to_string().into()),
                    ..Record::default()
                }],
                ..Append::default()
            };
            appender.send(append).await;
            sent += 1;
            continue;
        }
        let ack = appender.ack().await.expect("the stream is open");
        let written = outcome(ack.expect("an ack"));
        assert!(written.is_ok(), "{acknowledged} were written: {written:?}");
        acknowledged += 1;
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
    let written = writing.await.expect("all are acknowledged");
    let expected: Vec<_> = (0..written).map(|number| number.to_string()).collect();
    assert!(written > IN_FLIGHT, "only {written} were written");
    let address = cluster.addresses()[1];
    assert_eq!(ask::all_values(address, expected.len()).await, expected);
}
