//! A load of producers and consumers that use any node that answers, recorded for the checker.

mod consumer;
mod gap;
mod producer;
mod reading;
mod servers;

pub(super) use servers::channel;

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    checker::{Recorder, Report, check},
    wait::eventually,
};
use gap::Gap;
use producer::Role;
use servers::Servers;

/// How much load.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// An existing topic that nobody else writes to and nothing deletes from.
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
    /// Records of a send at most.
    pub(crate) batch_records_max: u32,
    /// Producers that do nothing but send to partition 0, one record at a time, each first to another node: they tell
    /// how long nobody can write there.
    pub(crate) probes: usize,
    /// Between two sends or polls of a client.
    pub(crate) pause: Duration,
    /// Bytes that are added to each value.
    pub(crate) padding_bytes: usize,
    /// How long one attempt of a call may take.
    pub(crate) attempt: Duration,
    /// How long a producer repeats a send before it gives up.
    pub(crate) give_up: Duration,
    /// How long a log that ends below what was acknowledged may take to be whole when it is drained. What is missing
    /// then is the checker's to say.
    pub(crate) whole: Duration,
}

impl Settings {
    pub(crate) fn new(topic: &str, partitions: i32) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            producers: 4,
            consumers: 2,
            batch_records_max: 5,
            probes: 0,
            pause: Duration::ZERO,
            padding_bytes: 50,
            attempt: Duration::from_secs(2),
            give_up: Duration::from_secs(20),
            whole: Duration::from_secs(10),
        }
    }

    fn all_partitions(&self) -> Range<i32> {
        0..self.partitions
    }
}

/// What all clients share.
struct Shared {
    settings: Settings,
    recorder: Recorder,
    /// Offset behind the highest that was acknowledged, of each partition.
    ends: Vec<AtomicI64>,
    refusals: Mutex<Vec<String>>,
    repeats: AtomicU64,
    gap: Gap,
    stop: watch::Sender<bool>,
}

impl Shared {
    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    fn end(&self, partition: i32) -> &AtomicI64 {
        &self.ends[usize::try_from(partition).expect("partitions count from 0")]
    }

    fn refused(&self, what: String) {
        let refusals = self.refusals.lock();
        refusals.unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// A load that runs. It ends when it is dropped.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Workload {
    /// Starts clients of the nodes at these addresses.
    pub(crate) fn start(settings: Settings, addresses: Vec<SocketAddr>) -> Self {
        let ends = settings.all_partitions().map(|_| AtomicI64::new(0));
        let shared = Arc::new(Shared {
            ends: ends.collect(),
            settings,
            recorder: Recorder::default(),
            refusals: Mutex::default(),
            repeats: AtomicU64::new(0),
            gap: Gap::default(),
            stop: watch::Sender::new(false),
        });
        let servers = Servers::new(&addresses);
        let mut tasks = JoinSet::new();
        for number in 0..shared.settings.producers {
            let role = Role::load(&shared.settings);
            tasks.spawn(producer::run(shared.clone(), servers.from(number), role));
        }
        for number in 0..shared.settings.probes {
            let role = Role::probe(number);
            tasks.spawn(producer::run(shared.clone(), servers.from(number), role));
        }
        for number in 0..shared.settings.consumers {
            tasks.spawn(consumer::run(shared.clone(), servers.from(number)));
        }
        Self {
            shared,
            addresses,
            tasks,
        }
    }

    /// How many records have been acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.recorder.acknowledged()
    }

    /// Now, as the recording counts: in microseconds since its beginning.
    pub(crate) fn moment(&self) -> u64 {
        self.shared.recorder.moment()
    }

    /// From now on it is watched when each probe gets on: call it right before a fault.
    pub(crate) fn mark(&self) {
        self.shared.gap.mark(self.shared.settings.probes);
    }

    /// Waits until each probe has got an acknowledgement for an attempt that it began after the mark, and returns how
    /// long the last of them took: what a user sees at worst, wherever it was connected.
    pub(crate) async fn gap(&self) -> Duration {
        let look = || std::future::ready(self.shared.gap.longest());
        eventually("every probe gets on", look).await
    }

    /// Waits until this many more records have been acknowledged, and as many been read.
    pub(crate) async fn progress(&self, records: u64) {
        let recorder = &self.shared.recorder;
        let goals = (recorder.acknowledged() + records, recorder.read() + records);
        eventually("clients get on", || {
            let now = (recorder.acknowledged(), recorder.read());
            std::future::ready((now.0 >= goals.0 && now.1 >= goals.1).then_some(()))
        })
        .await;
    }

    /// Stops the clients, reads everything through every node, and judges what was seen. All nodes must run.
    pub(crate) async fn finish(mut self) -> Verdict {
        self.shared.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no client panics");
        }
        for address in &self.addresses {
            reading::run(&self.shared, *address).await;
        }
        let refusals = self.shared.refusals.lock();
        Verdict {
            refusals: refusals.unwrap_or_else(PoisonError::into_inner).clone(),
            repeats: self.shared.repeats.load(Ordering::Relaxed),
            report: check(self.shared.recorder.history()),
        }
    }
}

/// What a load has shown.
pub(crate) struct Verdict {
    pub(crate) report: Report,
    /// Answers that clients which do everything right must not get, such as that a session has a gap.
    pub(crate) refusals: Vec<String>,
    /// Sends that arrived more than once, and were stored once.
    pub(crate) repeats: u64,
}

impl Verdict {
    /// Asserts that all went right.
    pub(crate) fn assert_valid(&self) {
        self.report.assert_valid();
        assert!(self.refusals.is_empty(), "{:#?}", self.refusals);
    }

    /// Counts, for reports.
    pub(crate) fn json(&self) -> Json {
        let mut counts = self.report.json();
        counts["refusals"] = json!(self.refusals.len());
        counts["repeats"] = json!(self.repeats);
        counts
    }
}
