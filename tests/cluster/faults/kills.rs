//! Processes that end, or stand still, with everything that they had in memory.

use std::time::Duration;

use kelda_proto::v1::{GetStatusRequest, cluster_service_client::ClusterServiceClient};

use super::Stage;
use crate::support::{
    connect,
    wait::{eventually, soon},
};

/// Longer than a node that lives takes to tell its status.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

pub(super) async fn leader(stage: &mut Stage) {
    let killed = stage.leader().await;
    stage.workload.mark();
    stage.cluster[killed].kill();
    stage.note_gap().await;
    stage.get_on().await;
    stage.cluster[killed].start();
}

pub(super) async fn all(stage: &mut Stage) {
    stage.workload.mark();
    for node in stage.cluster.nodes() {
        node.kill();
    }
    for node in stage.cluster.nodes() {
        node.start();
    }
    stage.note_gap().await;
}

pub(super) async fn freeze_leader(stage: &mut Stage) {
    let frozen = stage.leader().await;
    let channel = connect(stage.cluster[frozen].address()).await;
    stage.workload.mark();
    stage.cluster[frozen].pause();
    let service = ClusterServiceClient::new(channel);
    // A signal takes a moment where processors are busy.
    eventually("it is frozen", async || {
        let mut service = service.clone();
        let status = service.get_status(GetStatusRequest {});
        tokio::time::timeout(SIGN_OF_LIFE, status).await.err()
    })
    .await;
    stage.note_gap().await;
    stage.get_on().await;
    stage.hold().await;
    stage.cluster[frozen].resume();
    // It may not hinder the others, now that it speaks again.
    soon("clients get on", stage.get_on()).await;
}
