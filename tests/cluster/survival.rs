//! Each fault of the list a few times under load: what was acknowledged stays, once and in order. The long run is
//! `make chaos`.

use std::time::Duration;

use kelda_proto::v1::{GetTopicRequest, topic_service_client::TopicServiceClient};
use tokio::net::TcpStream;
use tonic::{Code, Request};

use super::faults::{Kind, Stage};
use crate::support::{cluster::Cluster, connect, wait::eventually};

/// Injects a fault some times, and asserts that nothing was lost.
async fn survive(kind: Kind, count: u32) {
    let Some(mut stage) = Stage::start(kind, Duration::ZERO).await else {
        return;
    };
    for _ in 0..count {
        stage.inject(kind).await;
    }
    println!("{}: gaps {:?}", kind.name(), stage.gaps());
    let outcome = stage.finish().await;
    println!("{:#}", outcome.verdict.json());
    outcome.assert_valid();
    assert_eq!(outcome.injected, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_are_killed_under_load_lose_nothing() {
    survive(Kind::KillLeader, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_at_once_under_load_lose_nothing() {
    survive(Kind::KillAll, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_frozen_under_load_loses_nothing() {
    survive(Kind::FreezeLeader, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_under_load_loses_nothing() {
    survive(Kind::CutLeader, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_under_load_loses_nothing() {
    survive(Kind::CutMinority, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_heard_under_load_loses_nothing() {
    survive(Kind::MuteLeader, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_under_load_loses_nothing() {
    survive(Kind::DeafenLeader, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_stopped_in_order_one_after_the_other_under_load_lose_nothing() {
    survive(Kind::Roll, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_its_disk_under_load_loses_nothing() {
    survive(Kind::Wipe, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_and_leaves_for_good_under_load_loses_nothing() {
    survive(Kind::Grow, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_to_nobody_does_not_deny_a_topic_that_it_missed() {
    let mut cluster = Cluster::start(3).await;
    cluster[2].kill();
    cluster.create_topic("missed", 1, 1).await;
    cluster[0].kill();
    cluster[1].kill();
    cluster[2].start();
    let address = cluster[2].address();
    eventually("it takes connections", async || {
        TcpStream::connect(address).await.ok()
    })
    .await;
    // It answers that it does not know, or not at all.
    for _ in 0..5 {
        let mut topics = TopicServiceClient::new(connect(address).await);
        let name = "missed".to_owned();
        let mut request = Request::new(GetTopicRequest { name });
        request.set_timeout(Duration::from_millis(300));
        let refused = topics.get_topic(request).await;
        let refused = refused.expect_err("it does not know the topic");
        assert_ne!(refused.code(), Code::NotFound, "{refused:?}");
    }
    cluster[0].start();
    cluster[1].start();
    cluster.ready().await;
    let mut topics = TopicServiceClient::new(connect(address).await);
    let name = "missed".to_owned();
    let found = topics.get_topic(GetTopicRequest { name }).await;
    found.expect("it has heard of the topic by now");
}
