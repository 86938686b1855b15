//! A cluster under load, and what has become of it.

use std::{ops::Range, time::Duration};

use super::{Kind, replicas};
use crate::support::cluster::{Cluster, Settings, Verdict, Workload};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;
const NODES: usize = 3;

/// Records between two faults, and while one lasts.
const BETWEEN: u64 = 300;
const MEANWHILE: u64 = 100;

/// Pause of each client, so that what an hour of load leaves can be checked.
const PAUSE: Duration = Duration::from_millis(5);

/// A cluster under load.
pub(crate) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) workload: Workload,
    /// How many nodes the cluster has by its own account.
    pub(super) nodes: usize,
    /// How long each fault kept the slowest probe from getting on.
    pub(super) gaps: Vec<Duration>,
    /// How long a fault lasts at least.
    lasts: Duration,
    injected: u32,
    /// When faults were there, by the moments of the recording.
    windows: Vec<Range<u64>>,
}

impl Stage {
    /// Starts three nodes and clients; nothing if this user may not make the networks that `kind` needs.
    pub(crate) async fn start(kind: Kind, lasts: Duration) -> Option<Self> {
        let cluster = if kind.is_cut() {
            Cluster::start_apart(NODES).await?
        } else {
            Cluster::start(NODES).await
        };
        cluster.create_topic(TOPIC, PARTITIONS, 3).await;
        let settings = Settings {
            probes: NODES,
            pause: PAUSE,
            ..Settings::new(TOPIC, PARTITIONS)
        };
        Some(Self {
            workload: Workload::start(settings, cluster.addresses()),
            cluster,
            nodes: NODES,
            gaps: Vec::new(),
            lasts,
            injected: 0,
            windows: Vec::new(),
        })
    }

    /// Waits until clients get on, injects a fault, and waits until all nodes that run serve.
    pub(crate) async fn inject(&mut self, kind: Kind) {
        self.workload.progress(BETWEEN).await;
        let from = self.workload.moment();
        kind.inject(self).await;
        self.ready().await;
        self.windows.push(from..self.workload.moment());
        self.injected += 1;
    }

    /// The gaps so far.
    pub(crate) fn gaps(&self) -> &[Duration] {
        &self.gaps
    }

    /// How many records have been acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.workload.acknowledged()
    }

    /// Stops the load and then the nodes, and judges.
    pub(crate) async fn finish(mut self) -> Outcome {
        self.workload.progress(BETWEEN).await;
        let verdict = self.workload.finish().await;
        let calm = Operations::outside(&verdict, &self.windows);
        let all = Operations::outside(&verdict, &[]);
        let mut directories = Vec::new();
        for node in self.cluster.nodes() {
            // One that has left for good has stopped already, and is compared with the others all the same.
            if node.runs() {
                let ended = node.terminate().await;
                assert!(ended.success(), "it does not stop in order: {ended}");
            }
            directories.push(node.directory().to_owned());
        }
        let (compared, divergences) = replicas::compare(&directories).await;
        let outcome = Outcome {
            verdict,
            injected: self.injected,
            gaps: self.gaps,
            all,
            calm,
            compared,
            divergences,
        };
        if outcome.found().is_some() {
            self.cluster.keep();
        }
        outcome
    }

    /// Place of the node that leads partition 0.
    pub(super) async fn leader(&self) -> usize {
        self.cluster.leader(TOPIC, 0, None).await
    }

    pub(super) fn others(&mut self, at: usize) -> Vec<usize> {
        let all = 0..self.cluster.nodes().len();
        all.filter(|other| *other != at).collect()
    }

    pub(super) async fn note_gap(&mut self) {
        let gap = self.workload.gap().await;
        self.gaps.push(gap);
    }

    pub(super) async fn get_on(&self) {
        self.workload.progress(MEANWHILE).await;
    }

    /// Lets a fault last.
    pub(super) async fn hold(&self) {
        tokio::time::sleep(self.lasts).await;
    }

    /// Waits until all that run serve, and know of all that the cluster has.
    pub(super) async fn ready(&mut self) {
        let nodes = self.nodes;
        for node in self.cluster.nodes() {
            if node.runs() {
                node.ready(nodes).await;
            }
        }
    }
}

/// What has become of a stage.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) injected: u32,
    pub(crate) gaps: Vec<Duration>,
    pub(crate) all: Operations,
    /// Those outside of faults.
    pub(crate) calm: Operations,
    /// Entries that more than one replica holds.
    pub(crate) compared: usize,
    /// Entries in which replicas differ.
    pub(crate) divergences: Vec<String>,
}

impl Outcome {
    /// What broke a promise, for people.
    pub(crate) fn found(&self) -> Option<String> {
        let Verdict {
            report, refusals, ..
        } = &self.verdict;
        let divergences = &self.divergences;
        let is_valid = report.violations.is_empty() && refusals.is_empty();
        (!is_valid || !divergences.is_empty())
            .then(|| format!("{report}\n{refusals:#?}\n{divergences:#?}"))
    }

    /// Asserts that nothing was lost, and that there was something to judge.
    pub(crate) fn assert_valid(&self) {
        self.verdict.assert_valid();
        assert!(self.divergences.is_empty(), "{:#?}", self.divergences);
        assert!(self.compared > 0, "no replica holds what another does");
    }
}

/// How many sends and polls ended how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Operations {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
}

impl Operations {
    fn outside(verdict: &Verdict, windows: &[Range<u64>]) -> Self {
        use crate::support::checker::{Kind as What, Outcome as Ended};

        let mut counts = Self::default();
        for operation in verdict.report.history.operations() {
            let (from, to) = (operation.invoked, operation.completed.unwrap_or(u64::MAX));
            let is_call = matches!(operation.kind, What::Send { .. } | What::Poll { .. });
            if !is_call || windows.iter().any(|it| from < it.end && it.start < to) {
                continue;
            }
            match operation.outcome {
                Ended::Ok => counts.ok += 1,
                Ended::Fail => counts.failed += 1,
                Ended::Info => counts.unknown += 1,
            }
        }
        counts
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.unknown += other.unknown;
    }
}
