//! Tells the catalog's leader what this node leads: at once when it leads something else or members change, and now and
//! then for the load.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream};
use kelda_proto::internal::v1::{PartitionReport, ReportRequest};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    broker::{Broker, partition::Partition},
    consensus::Led,
    types::{GroupId, NodeId},
};

/// Changes within this time go into one report: a node that comes or goes changes many partitions.
const GATHER: Duration = Duration::from_millis(200);
/// When a report that was not taken is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the catalog's leader may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What was told before.
#[derive(Default)]
struct Reporting {
    /// Bytes that had come in when the load was last measured.
    measured: HashMap<GroupId, Measured>,
    told: Option<Told>,
}

/// What was told without the load.
#[derive(PartialEq, Eq)]
struct Told {
    /// To whom, in which term of theirs: in the next one they have forgotten.
    to: (NodeId, u64),
    /// Term in which each partition is led, and the entry that made its members.
    led: BTreeMap<u64, (u64, u64)>,
}

struct Measured {
    at: Instant,
    end_bytes: u64,
    per_second: u64,
}

/// Reports until the broker ends, at least every `interval`.
pub(in crate::broker) async fn run(broker: Broker, interval: Duration) {
    let mut reporting = Reporting::default();
    let mut directory = broker.shared.directory.clone();
    let mut due = Instant::now() + interval;
    loop {
        let running = directory.borrow_and_update().clone();
        let groups = running.partitions().map(|it| it.group.group());
        let all = groups.chain([broker.shared.catalog.group()]);
        let mut changes = stream::select_all(all.map(|group| group.changes().boxed()));
        loop {
            let measure = Instant::now() >= due;
            if measure {
                due = Instant::now() + interval;
            }
            let taken = reporting.report(&broker, measure).await;
            let next = if taken {
                due
            } else {
                due.min(Instant::now() + AGAIN)
            };
            // All only tell that something may be different, and all of it is looked at then.
            tokio::select! {
                changed = directory.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                Some(()) = changes.next() => {
                    sleep(GATHER).await;
                    while changes.next().now_or_never().flatten().is_some() {}
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

impl Reporting {
    /// Reports if there is something to tell. Returns whether the catalog's leader knows everything now.
    async fn report(&mut self, broker: &Broker, measure: bool) -> bool {
        let catalog = broker.shared.catalog.group();
        let Some(to) = catalog.leader() else {
            self.told = None;
            return false;
        };
        let directory = broker.directory();
        let led = directory
            .partitions()
            .filter_map(|it| Some((it, it.group.group().led()?)));
        let partitions: Vec<_> = led
            .map(|(it, led)| self.describe(it, &led, measure))
            .collect();
        if measure {
            let led: Vec<u64> = partitions.iter().map(|it| it.group).collect();
            self.measured.retain(|group, _| led.contains(&group.0));
        }
        let now = Told {
            to: (to, catalog.term()),
            led: partitions
                .iter()
                .map(|it| (it.group, (it.term, it.membership_index)))
                .collect(),
        };
        if self.told.as_ref() == Some(&now) && !measure {
            return true;
        }
        let taken = send(broker, to, ReportRequest { partitions }).await;
        self.told = taken.then_some(now);
        taken
    }

    fn describe(&mut self, partition: &Partition, led: &Led, measure: bool) -> PartitionReport {
        let group = partition.group.group();
        let members = &led.members;
        let end_bytes = partition.group.view().end_bytes;
        let now = Instant::now();
        let measured = self.measured.entry(group.id()).or_insert(Measured {
            at: now,
            end_bytes,
            per_second: 0,
        });
        let elapsed_ms = u64::try_from((now - measured.at).as_millis()).unwrap_or(u64::MAX);
        if measure && elapsed_ms > 0 {
            let came = end_bytes.saturating_sub(measured.end_bytes);
            *measured = Measured {
                at: now,
                end_bytes,
                per_second: came.saturating_mul(1000) / elapsed_ms,
            };
        }
        PartitionReport {
            group: group.id().0,
            leader: 0,
            voters: members.voters.iter().map(|id| id.0).collect(),
            learners: members.learners.iter().map(|id| id.0).collect(),
            bytes_per_second: measured.per_second,
            stored_bytes: partition.group.stored_bytes(),
            term: led.term,
            membership_index: led.membership_index.0,
        }
    }
}

async fn send(broker: &Broker, to: NodeId, report: ReportRequest) -> bool {
    if to == broker.node() {
        return !broker.take_report(to, &report).not_leader;
    }
    let Ok(mut client) = broker.peer(to) else {
        return false;
    };
    match timeout(ANSWER_TIMEOUT, client.report(report)).await {
        Ok(Ok(answer)) => {
            let taken = !answer.into_inner().not_leader;
            tracing::debug!(node = %to, taken, "what is led here was reported");
            taken
        }
        Ok(Err(status)) => {
            tracing::debug!(node = %to, %status, "report was not taken");
            false
        }
        Err(_) => false,
    }
}
