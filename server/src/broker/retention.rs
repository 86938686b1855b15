//! Retention: deletes the oldest batches of each partition by age and size, as its topic says.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    directory::{Directory, TopicHandle},
    partition::{Partition, Stopped},
    route::Leaders,
};
use crate::{
    consensus::CatalogGroup,
    machine::topic_config::Effective,
    storage::{self, Search},
    telemetry::clock,
    types::Offset,
};

/// Looks for old records, and for a catalog whose log has grown, every `interval`.
pub(super) async fn run(
    directory: watch::Receiver<Arc<Directory>>,
    catalog: CatalogGroup,
    leaders: Arc<Leaders>,
    interval: Duration,
) {
    loop {
        tokio::time::sleep(interval).await;
        let directory = directory.borrow().clone();
        for topic in directory.topics() {
            check_topic(topic).await;
        }
        let view = catalog.view();
        leaders.retain(|group| view.partition_of_group(group).is_some());
        if let Err(error) = catalog.compact().await {
            tracing::warn!(%error, "the catalog's old log is not deleted yet");
        }
    }
}

async fn check_topic(topic: &TopicHandle) {
    for partition in topic.slots().iter().flatten() {
        if *partition.stopped().borrow() != Stopped::No {
            continue;
        }
        if !partition.may_lead() {
            // What the leader deletes is deleted here too, once it is applied.
            partition.compact().await;
            continue;
        }
        match first_kept(partition, &topic.config).await {
            Ok(kept) if kept > partition.bounds().log_start => {
                if let Err(error) = partition.trim(kept).await {
                    tracing::warn!(topic = partition.topic, partition = partition.number, %error, "retention failed");
                    continue;
                }
                tracing::info!(topic = partition.topic, partition = partition.number, log_start = %kept, "old records deleted");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(topic = partition.topic, partition = partition.number, %error, "retention failed");
            }
        }
        partition.compact().await;
    }
}

/// Offset of the first batch that is to be kept; whole batches are deleted, or none of their records.
async fn first_kept(partition: &Partition, config: &Effective) -> Result<Offset, storage::Error> {
    let view = partition.group.view();
    let mut kept = view.log_start;
    if view.log_start == view.end {
        return Ok(kept);
    }
    let store = partition.group.store();
    if let Some(retention_ms) = config.retention_ms {
        let oldest = clock::now_ms().saturating_sub(retention_ms);
        let row = store.find(Search::AppendTimeFrom(oldest)).await?;
        kept = kept.max(row.map_or(view.end, |row| row.base_offset));
    }
    if let Some(retention_bytes) = config.retention_bytes {
        let deletable = view.end_bytes.saturating_sub(retention_bytes);
        let row = store.find(Search::EndBytesAbove(deletable)).await?;
        kept = kept.max(row.map_or(view.end, |row| row.base_offset));
    }
    Ok(kept.min(view.end))
}
