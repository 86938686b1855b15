//! Retention: deletes the oldest batches of each partition by age and size, as its topic says.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{
    directory::{Directory, TopicHandle},
    partition::{Partition, Stopped},
    route::Leaders,
};
use crate::{
    consensus::{CatalogGroup, Groups, Sleep},
    machine::topic_config::Effective,
    storage::{self, Search},
    telemetry::clock,
    types::Offset,
};

/// How often the clock is looked at while nothing else changes.
const CLOCK_LOOK: Duration = Duration::from_secs(300);

/// What a look has found.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    /// No records were deleted, and nothing failed.
    settled: bool,
    /// When the first batch becomes too old, if nothing changes until then.
    expires_ms: i64,
}

impl Outlook {
    const NOTHING: Self = Self {
        settled: true,
        expires_ms: i64::MAX,
    };

    /// How long until a batch becomes too old.
    fn left(self) -> Duration {
        let left_ms = self.expires_ms.saturating_sub(clock::now_ms());
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
    }

    fn and(self, other: Self) -> Self {
        Self {
            settled: self.settled && other.settled,
            expires_ms: self.expires_ms.min(other.expires_ms),
        }
    }
}

/// What was found while all groups were asleep.
#[derive(Clone, Copy)]
struct Known {
    sleep: Sleep,
    directory: u64,
    outlook: Outlook,
}

/// Looks for old records, and for a catalog whose log has grown, every `interval`. While all groups of this node are asleep
/// nothing changes but the time, and until that makes a batch too old nothing is looked at twice.
pub(super) async fn run(
    mut directory: watch::Receiver<Arc<Directory>>,
    (groups, catalog): (Groups, CatalogGroup),
    leaders: Arc<Leaders>,
    interval: Duration,
) {
    let mut known = None;
    loop {
        wait(&groups, &mut directory, interval, known).await;
        let asleep = groups.asleep();
        let now = directory.borrow_and_update().clone();
        let is_same = |known: Known| {
            Some(known.sleep) == asleep
                && known.directory == now.version
                && known.outlook.left() > Duration::ZERO
        };
        if !known.is_some_and(is_same) {
            let outlook = look(&now, &catalog, &leaders).await;
            known = asleep.filter(|_| outlook.settled).map(|sleep| Known {
                sleep,
                directory: now.version,
                outlook,
            });
        }
    }
}

/// Waits for the next beat at which there may be something to do.
async fn wait(
    groups: &Groups,
    directory: &mut watch::Receiver<Arc<Directory>>,
    interval: Duration,
    known: Option<Known>,
) {
    // The clock may be set meanwhile.
    let left = known.map_or(Duration::MAX, |known| known.outlook.left().min(CLOCK_LOOK));
    // All only watch.
    tokio::select! {
        () = groups.rest(interval, known.map(|known| known.sleep)) => return,
        () = sleep(left) => {}
        _ = directory.changed() => {}
    }
    sleep_until(groups.beat().next(interval)).await;
}

async fn look(directory: &Directory, catalog: &CatalogGroup, leaders: &Leaders) -> Outlook {
    let mut outlook = Outlook::NOTHING;
    for topic in directory.topics() {
        outlook = outlook.and(check_topic(topic).await);
    }
    let view = catalog.view();
    leaders.retain(|group| view.partition_of_group(group).is_some());
    if let Err(error) = catalog.compact().await {
        tracing::warn!(%error, "the catalog's old log is not deleted yet");
        outlook.settled = false;
    }
    outlook
}

async fn check_topic(topic: &TopicHandle) -> Outlook {
    let mut outlook = Outlook::NOTHING;
    for partition in topic.slots().iter().flatten() {
        if *partition.stopped().borrow() == Stopped::No {
            outlook = outlook.and(check(partition, &topic.config).await);
        }
    }
    outlook
}

async fn check(partition: &Partition, config: &Effective) -> Outlook {
    let mut outlook = Outlook::NOTHING;
    // What the leader deletes is deleted here too, once it is applied.
    if partition.may_lead() {
        match first_kept(partition, config).await {
            Ok((kept, _)) if kept > partition.bounds().log_start => {
                outlook.settled = false;
                if let Err(error) = partition.trim(kept).await {
                    tracing::warn!(topic = partition.topic, partition = partition.number, %error, "retention failed");
                    return outlook;
                }
                tracing::info!(topic = partition.topic, partition = partition.number, log_start = %kept, "old records deleted");
            }
            Ok((_, expires_ms)) => outlook.expires_ms = expires_ms,
            Err(error) => {
                outlook.settled = false;
                tracing::error!(topic = partition.topic, partition = partition.number, %error, "retention failed");
            }
        }
    }
    outlook.settled &= partition.compact().await;
    outlook
}

/// Offset of the first batch that is to be kept, since whole batches are deleted or none of their records; and when that
/// one becomes too old.
async fn first_kept(
    partition: &Partition,
    config: &Effective,
) -> Result<(Offset, i64), storage::Error> {
    let view = partition.group.view();
    let mut kept = view.log_start;
    let mut expires_ms = i64::MAX;
    if view.log_start == view.end {
        return Ok((kept, expires_ms));
    }
    let store = partition.group.store();
    if let Some(retention_ms) = config.retention_ms {
        let oldest = clock::now_ms().saturating_sub(retention_ms);
        let row = store.find(Search::AppendTimeFrom(oldest)).await?;
        if let Some(row) = &row {
            expires_ms = row.append_time_ms.saturating_add(retention_ms);
        }
        kept = kept.max(row.map_or(view.end, |row| row.base_offset));
    }
    if let Some(retention_bytes) = config.retention_bytes {
        let deletable = view.end_bytes.saturating_sub(retention_bytes);
        let row = store.find(Search::EndBytesAbove(deletable)).await?;
        kept = kept.max(row.map_or(view.end, |row| row.base_offset));
    }
    Ok((kept.min(view.end), expires_ms))
}
