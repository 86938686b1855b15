//! Networks that are cut by pairs of places, and in one direction.

use std::process::Stdio;

use crate::support::{
    cluster::{Cluster, Network, Options, Ports},
    wait::soon,
};

/// Whether a client in one place gets an answer from a node in another.
async fn answers(client: &Options, server: &Options) -> bool {
    let address = format!("{}:{}", server.host, server.ports.client);
    let mut command = client.command();
    command
        .args(["cluster", "status", "--server", &address])
        .args(["--timeout", "500ms"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || command.status());
    let status = soon("an answer", status).await.expect("it ends");
    status.expect("it starts").success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_cut_off_from_each_other_and_not_from_this_process() {
    let Some(mut network) = Network::create(3) else {
        return;
    };
    let mut ports = Ports::alone();
    ports.cluster = None;
    let places: Vec<Options> = (0..3)
        .map(|at| Options {
            host: network.address(at),
            space: Some(network.space(at)),
            ..Options::new(&format!("node{at}"), &ports)
        })
        .collect();
    let mut cluster = Cluster::empty();
    for place in &places[..2] {
        cluster.add(place.clone());
    }
    cluster[0].start();
    cluster[0].ready(1).await;
    let [server, near, far] = &places[..] else {
        panic!("there are three");
    };
    assert!(answers(near, server).await && answers(far, server).await);
    // Neither what is asked nor what is answered must be lost.
    for (from, to) in [(0, 1), (1, 0)] {
        network.cut(from, to);
        assert!(!answers(near, server).await);
        assert!(answers(far, server).await);
        cluster[0].ready(1).await;
        network.heal();
        assert!(answers(near, server).await);
    }
    network.isolate(&[0, 2]);
    assert!(!answers(near, server).await);
    assert!(answers(far, server).await);
    network.heal();
    assert!(answers(near, server).await);
}
