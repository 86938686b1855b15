//! Each fault of the list a few times under load: what was acknowledged stays, once and in order. The long run is
//! `make chaos`.

use std::time::Duration;

use super::faults::{Kind, Stage};

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
