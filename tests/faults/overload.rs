//! More than a node takes: what is too much is refused with advice, and health still answers.

use std::time::Duration;

use kelda_proto::v1::{self, ErrorReason};
use kelda_server::config::Config;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::support::{
    PATIENCE, TestNode, config, connect,
    orders::{self, Orders, TOPIC},
    refusals::assert_refusal,
};

pub(super) async fn assert_healthy(channel: &Channel) {
    let mut health = HealthClient::new(channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await;
    let status = answer.expect("health answers").into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
}

pub(super) fn assert_overloaded(status: &Status, limit: &str) {
    assert_refusal(
        status,
        Code::ResourceExhausted,
        ErrorReason::Overloaded,
        &[("limit", limit)],
        "wait and try again",
    );
    let retry = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let delay = retry.expect("it says when to try again");
    assert!(delay > Duration::ZERO && delay < PATIENCE);
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_until_others_end() {
    let node = TestNode::start(Config {
        calls_max: 3,
        ..config(None)
    })
    .await;
    let mut orders = Orders::create_on(node).await;
    let end = orders.end();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut consume = orders.node.consume();
            let request = v1::FetchRequest {
                max_wait_ms: 60_000,
                ..orders::fetch(end)
            };
            tokio::spawn(async move {
                // The calls below may have taken its place for a moment.
                while let Err(status) = consume.fetch(request.clone()).await {
                    assert_overloaded(&status, "3");
                }
            })
        })
        .collect();
    // The fetches are on their way; once they have arrived nothing else is taken.
    let get = || v1::GetTopicRequest {
        name: TOPIC.to_owned(),
    };
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        assert!(Instant::now() < deadline, "the limit was never reached");
        if let Err(status) = orders.node.topics().get_topic(get()).await {
            break status;
        }
    };
    assert_overloaded(&status, "3");
    assert_overloaded(&orders.refused(orders::good()).await, "3");
    assert_healthy(&orders.node.channel).await;
    for fetch in &waiting {
        fetch.abort();
    }
    let deadline = Instant::now() + PATIENCE;
    while orders.node.topics().get_topic(get()).await.is_err() {
        assert!(Instant::now() < deadline, "the permits never came back");
    }
    orders.check().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_others_end() {
    let node = TestNode::start(Config {
        streams_max: 2,
        ..config(None)
    })
    .await;
    let mut orders = Orders::create_on(node).await;
    let follow = || v1::ConsumeRequest {
        topic: TOPIC.to_owned(),
        follow: true,
        ..Default::default()
    };
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = orders.node.consume().consume(follow()).await;
        streams.push(stream.expect("a stream"));
    }
    let status = orders.node.consume().consume(follow()).await;
    assert_overloaded(&status.expect_err("refused"), "2");
    let requests = tokio_stream::pending();
    let status = orders.node.produce().produce_stream(requests).await;
    assert_overloaded(&status.expect_err("refused"), "2");
    assert_healthy(&orders.node.channel).await;
    orders.check().await;
    drop(streams);
    let deadline = Instant::now() + PATIENCE;
    while orders.node.consume().consume(follow()).await.is_err() {
        assert!(Instant::now() < deadline, "the permits never came back");
    }
    orders.check().await;
}

#[tokio::test]
async fn a_flood_of_connections_does_not_touch_those_that_are_there() {
    let node = TestNode::start(Config {
        connections_max: 20,
        ..config(None)
    })
    .await;
    let mut orders = Orders::create_on(node).await;
    let address = orders.node.node.address();
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(
            TcpStream::connect(address)
                .await
                .expect("the system accepts"),
        );
    }
    // Those beyond the limit are closed, the others stay open and silent.
    let mut closed = 0;
    for stream in flood.iter_mut().skip(19) {
        let mut byte = [0];
        let read = timeout(PATIENCE, stream.read(&mut byte)).await;
        closed += usize::from(matches!(read.expect("it ends"), Ok(0) | Err(_)));
    }
    assert_eq!(closed, 300 - 19);
    assert_healthy(&orders.node.channel).await;
    orders.check().await;
    drop(flood);
    // Others get in once there is room again.
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nobody gets in any more");
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
        if let Ok(channel) = endpoint.connect().await
            && HealthClient::new(channel)
                .check(HealthCheckRequest::default())
                .await
                .is_ok()
        {
            break;
        }
    }
    assert_healthy(&connect(address).await).await;
    orders.check().await;
}
