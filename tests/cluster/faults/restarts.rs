//! Nodes that go and come back, in order or without their disk.

use super::Stage;

pub(super) async fn roll(stage: &mut Stage) {
    for at in 0..stage.cluster.nodes().len() {
        let leads = stage.leader().await == at;
        stage.workload.mark();
        let ended = stage.cluster[at].terminate().await;
        assert!(ended.success(), "it does not stop in order: {ended}");
        let gap = stage.workload.gap().await;
        if leads {
            stage.gaps.push(gap);
        }
        stage.get_on().await;
        stage.cluster[at].start();
        stage.ready().await;
    }
}

pub(super) async fn wipe(stage: &mut Stage) {
    let wiped = stage.leader().await;
    stage.workload.mark();
    stage.cluster[wiped].kill();
    stage.note_gap().await;
    stage.cluster[wiped].wipe();
    // Without seeds it would found a cluster of its own.
    let seed = (wiped + 1) % stage.cluster.nodes().len();
    let seed = stage.cluster[seed]
        .cluster_address()
        .expect("it has others");
    stage.cluster[wiped].options.seeds = vec![seed.to_string()];
    stage.cluster[wiped].start();
    // The one that it was stays on the list until somebody removes it.
    stage.nodes += 1;
    stage.ready().await;
}
