//! Nodes that do not hear each other: a minority takes nothing and shows nothing that is not committed, and whoever
//! comes back disturbs nobody.

use std::time::{Duration, Instant};

use kelda_proto::v1::{GetAssignmentPlanRequest, GetStatusRequest};
use tonic::Code;

use super::ask::{self, TOPIC};
use crate::support::{
    cluster::{Cluster, operator::service},
    pages,
    wait::eventually,
};

/// How long a write may have to wait for its refusal, or for another leader.
const SOON: Duration = Duration::from_secs(5);

/// Most terms that a node may cost that comes back.
const TERMS_MAX: u64 = 3;

/// Three nodes in networks of their own with a topic that has a record.
async fn three_apart() -> Option<Cluster> {
    let cluster = Cluster::start_apart(3).await?;
    cluster.create_topic(TOPIC, 1, 3).await;
    write(&cluster, 0, "before").await;
    Some(cluster)
}

/// Produces a record through a node, however often it takes.
async fn write(cluster: &Cluster, at: usize, value: &str) {
    let address = cluster.addresses()[at];
    eventually("it is written", async || {
        ask::produce(address, value).await.ok()
    })
    .await;
}

/// All nodes tell the same records.
async fn assert_agree(cluster: &Cluster, expected: &[&str]) {
    for address in cluster.addresses() {
        assert_eq!(ask::all_values(address, expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_refuses_writes_and_shows_nothing_that_is_not_committed() {
    let Some(mut cluster) = three_apart().await else {
        return;
    };
    let old = cluster.leader(TOPIC, 0, None).await;
    let address = cluster.addresses()[old];
    let cut = Instant::now();
    cluster.network().isolate(&[old]);
    // It does not know yet that it is alone, and takes the record into its log.
    let write_there = tokio::spawn(ask::produce(address, "never committed"));
    while !write_there.is_finished() && cut.elapsed() < SOON {
        match ask::fetch(address, 0).await {
            Ok(response) => assert_eq!(ask::values(response), ["before"]),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
    let refused = write_there.await.expect("it does not panic");
    let refused = refused.expect_err("nobody else has it");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(cut.elapsed() < SOON * 3, "{:?}", cut.elapsed());

    let asked = (old + 1) % 3;
    cluster.leader(TOPIC, asked, Some(old)).await;
    write(&cluster, asked, "after").await;
    // What it has is old by now.
    let stale = ask::fetch(address, 0).await.map(ask::values);
    let stale = stale.expect_err("others have written since");
    assert_eq!(stale.code(), Code::Unavailable, "{stale:?}");
    let refused = ask::produce(address, "too late").await;
    let refused = refused.expect_err("it is alone");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");

    cluster.network().heal();
    cluster.ready().await;
    write(&cluster, old, "healed").await;
    assert_agree(&cluster, &["before", "after", "healed"]).await;
}

/// Place of the node that leads the catalog, as it says itself, once it is not `not`.
async fn catalog_leader(cluster: &Cluster, not: Option<usize>) -> usize {
    eventually("the catalog has a leader", async || {
        for at in (0..3).filter(|at| Some(*at) != not) {
            let mut service = service(cluster, at).await;
            let status = service.get_status(GetStatusRequest {}).await.ok()?;
            let status = status.into_inner();
            if status.catalog_leader == status.node?.id {
                return Some(at);
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_leader_that_was_deposed_in_its_sleep_plans_nothing() {
    let Some(mut cluster) = three_apart().await else {
        return;
    };
    // Nothing was asked of the catalog for longer than of the partition.
    for address in cluster.addresses() {
        eventually("the partition is quiet", async || {
            let quiet = pages::metric(address, "kelda_quiesced_partitions").await?;
            (quiet > 0.0).then_some(())
        })
        .await;
    }
    let old = catalog_leader(&cluster, None).await;
    cluster.network().isolate(&[old]);
    catalog_leader(&cluster, Some(old)).await;
    let mut service = service(&cluster, old).await;
    let plan = service.get_assignment_plan(GetAssignmentPlanRequest::default());
    let refused = plan.await.expect_err("another node leads the catalog");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_followers_do_not_wait_for_a_leader_that_is_cut_off_once_there_is_another() {
    let Some(mut cluster) = three_apart().await else {
        return;
    };
    let old = cluster.leader(TOPIC, 0, None).await;
    let addresses = cluster.addresses();
    let cut = Instant::now();
    cluster.network().isolate(&[old]);
    let (one, other) = (addresses[(old + 1) % 3], addresses[(old + 2) % 3]);
    // They know of no other leader yet, and ask the old one.
    let answers = futures::join!(
        ask::produce_once(one, "one"),
        ask::produce_once(other, "other"),
        ask::fetch(one, 0),
        ask::fetch(other, 0),
    );
    let took = cut.elapsed();
    assert!(answers.0.is_ok() && answers.1.is_ok(), "{answers:?}");
    assert!(answers.2.is_ok() && answers.3.is_ok(), "{answers:?}");
    assert!(took < SOON, "they waited for {took:?}");
}

/// Cuts one direction between the leader and the others, and asserts that another leads soon and that the old leader
/// disturbs nobody when it comes back.
async fn assert_replaced_without_disturbance(cut: impl Fn(&mut Cluster, usize, usize)) {
    let Some(mut cluster) = three_apart().await else {
        return;
    };
    let old = cluster.leader(TOPIC, 0, None).await;
    let since = Instant::now();
    for other in (0..3).filter(|other| *other != old) {
        cut(&mut cluster, old, other);
    }
    let asked = (old + 1) % 3;
    write(&cluster, asked, "meanwhile").await;
    let took = since.elapsed();
    assert!(took < SOON, "nobody could write for {took:?}");

    let before = ask::terms(&cluster).await;
    cluster.network().heal();
    cluster.ready().await;
    write(&cluster, old, "healed").await;
    let mut expected = vec![
        "before".to_owned(),
        "meanwhile".to_owned(),
        "healed".to_owned(),
    ];
    for number in 0..100 {
        let value = number.to_string();
        write(&cluster, number % 3, &value).await;
        expected.push(value);
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_agree(&cluster, &expected).await;
    let after = ask::terms(&cluster).await;
    let grown = (
        after.catalog - before.catalog,
        after.partition - before.partition,
    );
    assert!(grown.0 <= TERMS_MAX && grown.1 <= TERMS_MAX, "{grown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_is_replaced_and_comes_back_without_disturbance() {
    assert_replaced_without_disturbance(|cluster, old, other| cluster.network().cut(old, other))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_is_replaced_and_comes_back_without_disturbance() {
    assert_replaced_without_disturbance(|cluster, old, other| cluster.network().cut(other, old))
        .await;
}
