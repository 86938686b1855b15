//! Meets other nodes: the seeds until they are met, however long that takes, and the dead now and then, so that a
//! cluster whose network was cut grows together again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    peers::Peers,
    view::{Board, Liveness},
};

/// First and longest wait between tries.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How often it is checked that seeds that were met are still members.
const RECHECK: Duration = Duration::from_secs(30);

/// How long a name server may take.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

/// Addresses of one seed that are tried.
const ADDRESSES_MAX: usize = 8;

/// Dead nodes that are looked for at a time.
const DEAD_MAX: usize = 3;

/// Finds the seeds and goes on looking.
pub(super) struct Seeds<P> {
    seeds: Vec<String>,
    /// Where this node itself is reached: nothing to join.
    own: Vec<SocketAddr>,
    peers: P,
    board: Board,
    /// Further nodes, as others know them. That one of them is not there is no news.
    known: watch::Receiver<BTreeSet<String>>,
    /// Seeds that can not be met now, which was logged.
    failing: BTreeSet<String>,
    /// Seeds that were met, which was logged.
    met: BTreeSet<String>,
}

impl<P: Peers> Seeds<P> {
    /// Where this node itself is reached, `own`, there is nobody to meet.
    pub(super) fn new(
        seeds: Vec<String>,
        known: watch::Receiver<BTreeSet<String>>,
        own: Vec<SocketAddr>,
        peers: P,
        board: Board,
    ) -> Self {
        Self {
            seeds,
            known,
            own,
            peers,
            board,
            failing: BTreeSet::new(),
            met: BTreeSet::new(),
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut retry = RETRY_FIRST;
        let mut sought = Instant::now();
        loop {
            let all_met = self.meet_all().await;
            self.meet_known().await;
            // A seed that is gone for good must not keep this from being done.
            if sought.elapsed() >= RECHECK {
                self.seek_dead().await;
                sought = Instant::now();
            }
            let wait = if all_met {
                retry = RETRY_FIRST;
                RECHECK
            } else {
                let wait = retry;
                retry = (retry * 2).min(RETRY_MAX);
                wait
            };
            // Nothing is lost with the one that is dropped.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Ok(()) = self.known.changed() => {}
            }
        }
    }

    /// Meets the further nodes that are not members.
    async fn meet_known(&mut self) {
        let known = self.known.borrow_and_update().clone();
        let online = self.online();
        for node in &known {
            if let Err(reason) = self.meet(node, &online).await {
                tracing::debug!(node, reason, "a node of the cluster is not there");
            }
        }
    }

    fn online(&self) -> BTreeMap<SocketAddr, String> {
        let view = self.board.view();
        view.alive()
            .map(|node| (node.address, node.name.clone()))
            .collect()
    }

    /// Meets the seeds that are not members. Answers whether all are.
    async fn meet_all(&mut self) -> bool {
        let online = self.online();
        for seed in self.seeds.clone() {
            match self.meet(&seed, &online).await {
                Ok(()) => {
                    let was_failing = self.failing.remove(&seed);
                    if self.met.insert(seed.clone()) || was_failing {
                        tracing::info!(seed, "seed joined");
                    }
                }
                Err(reason) => {
                    if self.failing.insert(seed.clone()) {
                        tracing::warn!(
                            seed,
                            reason,
                            "seed can not be joined, trying on: see --seeds"
                        );
                    }
                }
            }
        }
        self.failing.is_empty()
    }

    /// Meets one seed; it is enough to reach it at one of its addresses.
    async fn meet(&self, seed: &str, online: &BTreeMap<SocketAddr, String>) -> Result<(), String> {
        let lookup = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host(seed));
        let addresses: Vec<SocketAddr> = match lookup.await {
            Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the name server does not answer".to_owned()),
        };
        let mut result = Err("the name has no address".to_owned());
        for address in addresses {
            let known = self.own.contains(&address) || online.contains_key(&address);
            let joined = if known {
                Ok(())
            } else {
                self.peers.join(address).await
            };
            if joined.is_ok() || result.is_err() {
                result = joined;
            }
        }
        result
    }

    /// Looks for nodes that fell silent. That they are still silent is no news.
    async fn seek_dead(&self) {
        let view = self.board.view();
        let dead = view
            .nodes
            .values()
            .filter(|node| node.liveness == Liveness::Dead);
        for node in dead.take(DEAD_MAX) {
            let _ = self.peers.join(node.address).await;
        }
    }
}
