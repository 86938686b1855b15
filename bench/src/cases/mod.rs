//! What is measured, one case a file. A case starts its own brokers on empty directories, and says what it aims at.

mod batches;
mod cluster_idle;
mod consume;
mod cpu_study;
mod failover;
mod idle;
mod latency;
mod raw;
mod replicas;
mod restart;
mod space;
mod start;
mod unary;

use anyhow::Result;
use clap::ValueEnum;

use crate::{Plan, report::Measure};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A case, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Everything below, one after the other.
    All,
    /// The disk alone: append and fdatasync.
    Raw,
    /// Packed batches of 1 MiB and 64 KiB beside the raw disk.
    Batches,
    /// 200 producers that each send one record of 50 bytes a call.
    Unary,
    /// One producer with one record of 1 KiB in flight.
    Latency,
    /// Reading what is stored.
    Consume,
    /// Memory and CPU of a node that has nothing to do.
    Idle,
    /// From an empty directory to the first ack.
    Start,
    /// From kill -9 with much stored to serving again.
    Restart,
    /// Bytes on the disk for each byte of payload.
    Space,
    /// CPU and memory of three nodes with 1,000 partitions that have nothing to do.
    ClusterIdle,
    /// From kill -9 of a node with a third of 1,000 leaders until all are writable.
    Failover,
    /// Packed batches to three replicas beside one.
    Replicas,
    /// CPU of three idle nodes by component, untuned and as they come.
    CpuStudy,
}

impl Case {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Raw => "raw",
            Self::Batches => "batches",
            Self::Unary => "unary",
            Self::Latency => "latency",
            Self::Consume => "consume",
            Self::Idle => "idle",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Space => "space",
            Self::ClusterIdle => "cluster-idle",
            Self::Failover => "failover",
            Self::Replicas => "replicas",
            Self::CpuStudy => "cpu-study",
        }
    }

    /// The cases that it stands for.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::All => Self::value_variants()
                .iter()
                .copied()
                .filter(|case| *case != Self::All)
                .collect(),
            single => vec![single],
        }
    }

    /// Measures a single case.
    pub(crate) fn measure(self, plan: &Plan) -> Result<Vec<Measure>> {
        match self {
            Self::All => {
                let measures = self.each().into_iter().map(|case| case.measure(plan));
                Ok(measures.collect::<Result<Vec<_>>>()?.concat())
            }
            Self::Raw => raw::measure(plan),
            Self::Batches => batches::measure(plan),
            Self::Unary => unary::measure(plan),
            Self::Latency => latency::measure(plan),
            Self::Consume => consume::measure(plan),
            Self::Idle => idle::measure(plan),
            Self::Start => start::measure(plan),
            Self::Restart => restart::measure(plan),
            Self::Space => space::measure(plan),
            Self::ClusterIdle => cluster_idle::measure(plan),
            Self::Failover => failover::measure(plan),
            Self::Replicas => replicas::measure(plan),
            Self::CpuStudy => cpu_study::measure(plan),
        }
    }
}

/// Size for people.
fn size(bytes: usize) -> String {
    if bytes >= MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes / KIB)
    }
}

/// Options of `kelda bench produce` for packed batches of about `bytes`, of records of 1 KiB.
fn batch_options(bytes: usize) -> Vec<String> {
    // Enough to keep the disk busy, as a client that wants throughput would choose.
    let in_flight = if bytes >= MIB { "8" } else { "16" };
    let options = [
        "--mode",
        "batch",
        "--record-bytes",
        "1024",
        "--in-flight",
        in_flight,
        "--batch-bytes",
    ];
    options
        .into_iter()
        .map(str::to_owned)
        .chain([bytes.to_string()])
        .collect()
}

/// Options of `kelda bench produce` for many small producers.
const UNARY_OPTIONS: [&str; 6] = [
    "--mode",
    "unary",
    "--record-bytes",
    "50",
    "--producers",
    "200",
];
