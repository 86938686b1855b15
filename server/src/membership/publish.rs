//! Tells the others what this node tells of itself: when that changed, and not too often; again only where it is asked
//! for.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::{gate::Gate, peers::Peers};
use crate::telemetry::Metrics;

/// How often to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Least time between two announcements.
    pub(super) least: Duration,
    /// When to repeat an announcement that did not change, if at all.
    pub(super) refresh: Option<Duration>,
}

/// Publishes what `wanted` holds whenever it changed, and again as `pace` says, until `wanted` is closed.
pub(super) async fn run(
    peers: impl Peers,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    pace: Pace,
    mut wanted: watch::Receiver<Bytes>,
) {
    let mut allowed = Instant::now();
    loop {
        let repeat = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            () = pace.wait() => true,
        };
        tokio::time::sleep_until(allowed).await;
        let metadata = wanted.borrow_and_update().clone();
        // It may have changed back while it had to wait.
        if metadata == gate.own() && !repeat {
            continue;
        }
        gate.publish(metadata);
        metrics.gossip().announced();
        tracing::debug!(repeat, "this node is announced");
        allowed = Instant::now() + pace.least;
        peers.announce(pace.least).await;
    }
}

impl Pace {
    async fn wait(self) {
        match self.refresh {
            Some(refresh) => tokio::time::sleep(refresh).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;
    use crate::membership::peers::Member;

    /// Counts announcements.
    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Peers for Counted {
        async fn list(&self) -> Vec<Member> {
            unreachable!("publishing lists nobody")
        }

        async fn answers(&self, _name: &str, _address: SocketAddr) -> bool {
            unreachable!("publishing pings nobody")
        }

        async fn join(&self, _address: SocketAddr) -> Result<(), String> {
            unreachable!("publishing joins nobody")
        }

        async fn announce(&self, _timeout: Duration) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_back_in_time_is_not_sent_again() {
        let metrics = Metrics::new("1");
        let gate = Arc::new(Gate::new("me".to_owned(), None, Arc::clone(&metrics)));
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let wanted = watch::Sender::new(bytes("a"));
        gate.publish(bytes("a"));
        let sent = Counted::default();
        let interval = Duration::from_secs(5);
        let publish = run(
            sent.clone(),
            Arc::clone(&gate),
            metrics,
            Pace {
                least: interval,
                refresh: None,
            },
            wanted.subscribe(),
        );
        let task = tokio::spawn(publish);
        // The clock stands still until every task waits for it: a sleep here is no race.
        let settle = || tokio::time::sleep(Duration::from_millis(1));
        wanted.send_replace(bytes("b"));
        settle().await;
        assert_eq!((sent.0.load(Relaxed), gate.own()), (1, bytes("b")));
        wanted.send_replace(bytes("c"));
        settle().await;
        assert_eq!(sent.0.load(Relaxed), 1, "too soon");
        wanted.send_replace(bytes("b"));
        tokio::time::sleep(interval).await;
        assert_eq!(sent.0.load(Relaxed), 1, "it is what it was");
        wanted.send_replace(bytes("d"));
        settle().await;
        assert_eq!((sent.0.load(Relaxed), gate.own()), (2, bytes("d")));
        drop(wanted);
        task.await.expect("it ends with its source");
    }
}
