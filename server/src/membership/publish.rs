//! Tells the others what this node tells of itself: when that changed, and not too often.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::{gate::Gate, peers::Peers};
use crate::telemetry::Metrics;

/// Publishes what `wanted` holds whenever it changed, at most once in `interval`, until `wanted` is closed.
pub(super) async fn run(
    peers: impl Peers,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    interval: Duration,
    mut wanted: watch::Receiver<Bytes>,
) {
    let mut allowed = Instant::now();
    while wanted.changed().await.is_ok() {
        tokio::time::sleep_until(allowed).await;
        let metadata = wanted.borrow_and_update().clone();
        // It may have changed back while it had to wait.
        if metadata == gate.own() {
            continue;
        }
        gate.publish(metadata);
        metrics.gossip().announced();
        allowed = Instant::now() + interval;
        peers.announce(interval).await;
    }
}
