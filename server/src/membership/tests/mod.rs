//! Tests of the room as a whole, on the loopback.

mod cluster;
mod strangers;
mod suite;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch};

use super::{Announcement, Config, Gossip, Liveness, Membership, StartError, View};
use crate::telemetry::Metrics;

/// Intervals that make a test quick.
fn config(name: &str, seeds: &[SocketAddr]) -> Config {
    Config {
        name: name.to_owned(),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        seeds: seeds.iter().map(ToString::to_string).collect(),
        gossip_interval: Duration::from_millis(50),
        push_pull_interval: Duration::from_millis(500),
        probe_interval: Duration::from_millis(300),
        probe_timeout: Duration::from_millis(100),
        stream_timeout: Duration::from_secs(1),
        metadata_interval: Duration::from_millis(50),
        ..Config::default()
    }
}

fn announcement(cluster_id: &str) -> Announcement {
    Announcement {
        cluster_id: cluster_id.to_owned(),
        client_address: "127.0.0.1:8080".to_owned(),
        raft_address: "127.0.0.1:8946".to_owned(),
        version: "0.1.0".to_owned(),
        ..Announcement::default()
    }
}

async fn try_start(config: Config) -> Result<Gossip, StartError> {
    Gossip::start(
        config,
        announcement("c"),
        Metrics::new("1"),
        &Handle::current(),
    )
    .await
}

async fn start(config: Config) -> Gossip {
    try_start(config).await.expect("a free port")
}

/// Waits until the view is as wanted.
async fn until(member: &impl Membership, wanted: impl FnMut(&View) -> bool) -> Arc<View> {
    let mut watch = member.watch();
    seen(&mut watch, wanted).await
}

async fn seen(
    watch: &mut watch::Receiver<Arc<View>>,
    mut wanted: impl FnMut(&View) -> bool,
) -> Arc<View> {
    let seen = watch.wait_for(|view| wanted(view));
    match tokio::time::timeout(Duration::from_secs(30), seen).await {
        Ok(Ok(view)) => return Arc::clone(&view),
        Ok(Err(_)) => panic!("the node is gone"),
        Err(_) => {}
    }
    panic!("still not so: {:#?}", watch.borrow());
}

fn are(view: &View, names: &[&str], liveness: Liveness) -> bool {
    names.iter().all(|name| {
        view.node(name)
            .is_some_and(|node| node.liveness == liveness)
    })
}

/// The names of those that live.
fn alive(view: &View) -> Vec<&str> {
    view.alive().map(|node| node.name.as_str()).collect()
}
