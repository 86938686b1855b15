//! What is told of the partitions of a topic, wherever their replicas are.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use kelda_proto::v1;
use tokio::time::{Instant, timeout_at};

use super::{
    Bounds, Broker,
    directory::TopicHandle,
    partition::Partition,
    placement::Overview,
    remote::{LEADERS_AT_ONCE, RemoteReader},
};
use crate::{machine::catalog::Partition as Placed, types::Offset};

/// How long the leaders of partitions without a replica here may take to tell of them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Stands for a number that nobody told in time.
const UNKNOWN: i64 = -1;

impl Broker {
    /// The partitions of a topic. Of those without a replica here their leaders are asked.
    pub(super) async fn partitions(&self, handle: &Arc<TopicHandle>) -> Vec<v1::Partition> {
        let overview = if handle.slots().iter().any(Result::is_err) {
            self.overview_soon().await.unwrap_or_default()
        } else {
            Overview::default()
        };
        let deadline = Instant::now() + PATIENCE;
        let overview = &overview;
        let describing = (0..handle.partition_count()).map(|number| async move {
            let number = number.cast_signed();
            if let Ok(partition) = handle.partition(number) {
                return here(partition, handle);
            }
            let reader = RemoteReader::open(self.clone(), &handle.topic.name, number);
            let reader = timeout_at(deadline, reader).await;
            let bounds = reader.ok().and_then(Result::ok).map(|it| it.bounds());
            elsewhere(number, handle, overview, bounds)
        });
        stream::iter(describing)
            .buffered(LEADERS_AT_ONCE)
            .collect()
            .await
    }
}

fn here(partition: &Partition, handle: &TopicHandle) -> v1::Partition {
    let number = partition.number.cast_signed();
    let view = partition.group.view();
    let leader = partition.group.group().leader_in_touch();
    v1::Partition {
        partition: number,
        leader: leader.map_or(0, |id| id.0),
        replicas: replicas(number, handle),
        log_start_offset: view.log_start.into(),
        end_offset: view.end.into(),
        size_bytes: partition.group.stored_bytes().cast_signed(),
    }
}

/// `bounds` are what its leader has said just now.
fn elsewhere(
    number: i32,
    handle: &TopicHandle,
    overview: &Overview,
    bounds: Option<Bounds>,
) -> v1::Partition {
    let placed = placed(number, handle);
    let told = placed.and_then(|placed| overview.report_of(placed.group));
    let offset =
        |of: fn(&Bounds) -> Offset| bounds.as_ref().map_or(UNKNOWN, |bounds| of(bounds).into());
    v1::Partition {
        partition: number,
        leader: told.map_or(0, |(leader, _)| leader.0),
        replicas: replicas(number, handle),
        log_start_offset: offset(|bounds| bounds.log_start),
        end_offset: offset(|bounds| bounds.end),
        size_bytes: told.map_or(UNKNOWN, |(_, bytes)| bytes.cast_signed()),
    }
}

fn placed(number: i32, handle: &TopicHandle) -> Option<&Placed> {
    handle.topic.partitions.get(number.unsigned_abs() as usize)
}

fn replicas(number: i32, handle: &TopicHandle) -> Vec<u64> {
    let replicas = placed(number, handle).map_or(&[][..], |placed| &placed.replicas);
    replicas.iter().map(|id| id.0).collect()
}
