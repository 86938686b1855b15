//! Networks that lose everything, in both directions or in one. Clients reach all nodes all the time.

use super::Stage;

pub(super) async fn leader(stage: &mut Stage) {
    let cut = stage.leader().await;
    stage.workload.mark();
    stage.cluster.network().isolate(&[cut]);
    go_through(stage, cut).await;
}

pub(super) async fn minority(stage: &mut Stage) {
    let leader = stage.leader().await;
    let cut = (leader + 1) % stage.cluster.nodes().len();
    stage.workload.mark();
    stage.cluster.network().isolate(&[cut]);
    go_through(stage, cut).await;
}

pub(super) async fn mute_leader(stage: &mut Stage) {
    let mute = stage.leader().await;
    stage.workload.mark();
    for other in stage.others(mute) {
        stage.cluster.network().cut(mute, other);
    }
    go_through(stage, mute).await;
}

pub(super) async fn deafen_leader(stage: &mut Stage) {
    let deaf = stage.leader().await;
    stage.workload.mark();
    for other in stage.others(deaf) {
        stage.cluster.network().cut(other, deaf);
    }
    go_through(stage, deaf).await;
}

/// Clients get on while a node is cut off, and after it is not any more.
async fn go_through(stage: &mut Stage, cut: usize) {
    stage.note_gap().await;
    for other in stage.others(cut) {
        // A connection needs both directions, whichever is cut.
        let port = stage.cluster[other].options.ports.client;
        let network = stage.cluster.network();
        assert!(!network.reaches(cut, other, port), "it is not cut off");
    }
    stage.get_on().await;
    stage.hold().await;
    stage.cluster.network().heal();
    stage.get_on().await;
}
