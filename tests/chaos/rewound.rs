//! A load and its checker find a node that has forgotten what it acknowledged.

use std::{fs, time::Duration};

use crate::support::{
    checker::Rule,
    cluster::{Cluster, Settings, Workload},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_goes_back_to_an_older_state_is_found_out() {
    let mut cluster = Cluster::single().await;
    cluster.create_topic("orders", 2, 1).await;
    let settings = Settings {
        whole: Duration::from_secs(1),
        ..Settings::new("orders", 2)
    };
    let workload = Workload::start(settings, cluster.addresses());
    workload.progress(100).await;
    cluster[0].kill();
    let older = tempfile::tempdir().expect("a directory");
    let files = fs::read_dir(cluster[0].directory()).expect("listed");
    let files: Vec<_> = files.map(|file| file.expect("listed").path()).collect();
    let copy = |file: &std::path::Path| older.path().join(file.file_name().expect("a file"));
    for file in &files {
        fs::copy(file, copy(file)).expect("copied");
    }
    cluster[0].start();
    cluster.ready().await;
    workload.progress(100).await;
    cluster[0].kill();
    for file in &files {
        fs::copy(copy(file), file).expect("copied back");
    }
    cluster[0].start();
    cluster.ready().await;
    let verdict = workload.finish().await;
    let rules = verdict.report.rules();
    let lost = [Rule::LostWrite, Rule::Unseen, Rule::Vanished];
    assert!(lost.iter().any(|rule| rules.contains(rule)), "{rules:?}");
    // Sessions that go on where they were have a gap now.
    let is_gap = |refusal: &String| refusal.contains("SEQUENCE_OUT_OF_ORDER");
    assert!(
        verdict.refusals.iter().any(is_gap),
        "{:?}",
        verdict.refusals
    );
    let lost = verdict.report.queue.lost;
    assert!(lost.prefix + lost.middle + lost.postfix > 0, "{lost:?}");
}
