//! Offsets by position or time, and deleting the oldest records.

use std::sync::Arc;

use kelda_proto::{
    internal::v1::{PartitionCommand, partition_command},
    v1,
};

use super::{Bounds, Broker, Error, Start, directory::TopicHandle, partition::Partition};
use crate::{consensus::Command, types::Offset};

impl Broker {
    /// Finds an offset in some partitions of a topic, in all if none is named.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        start: Start,
    ) -> Result<Vec<v1::PartitionOffset>, Error> {
        let mut offsets = Vec::new();
        for reader in self.readers(topic, partitions)? {
            let offset = reader.resolve(start).await?;
            offsets.push(partition_offset(
                reader.partition(),
                offset,
                reader.bounds(),
            ));
        }
        offsets.sort_unstable_by_key(|found| found.partition);
        Ok(offsets)
    }

    /// Deletes records below an offset in each of some partitions; -1 deletes all that are there now. The records are
    /// out of sight when this returns; their space is freed in the background.
    pub async fn delete_records(
        &self,
        topic: &str,
        trims: &[(i32, i64)],
    ) -> Result<Vec<v1::PartitionOffset>, Error> {
        self.check_ready()?;
        let directory = self.directory();
        let topic = directory.topic(topic)?;
        let targets = check_trims(topic, trims)?;
        let mut offsets = Vec::with_capacity(targets.len());
        for (partition, before) in targets {
            partition.trim(before).await?;
            let bounds = partition.bounds();
            offsets.push(partition_offset(partition.number, bounds.log_start, bounds));
            partition.compact_soon();
        }
        Ok(offsets)
    }
}

/// Checks every trim before the first is carried out.
fn check_trims(
    topic: &TopicHandle,
    trims: &[(i32, i64)],
) -> Result<Vec<(Arc<Partition>, Offset)>, Error> {
    let check = |(number, before): &(i32, i64)| {
        let partition = topic.partition(*number)?;
        let Bounds { log_start, end } = partition.bounds();
        let before = match u64::try_from(*before).map(Offset) {
            Ok(before) if before <= end => before,
            Err(_) if *before == -1 => end,
            _ => {
                return Err(Error::OffsetOutOfRange {
                    offset: *before,
                    log_start,
                    end,
                });
            }
        };
        Ok((Arc::clone(partition), before))
    };
    trims.iter().map(check).collect()
}

fn partition_offset(partition: u32, offset: Offset, bounds: Bounds) -> v1::PartitionOffset {
    v1::PartitionOffset {
        partition: partition.cast_signed(),
        offset: offset.into(),
        log_start_offset: bounds.log_start.into(),
        end_offset: bounds.end.into(),
    }
}

impl Partition {
    /// Takes records below `before` out of sight, on all replicas.
    pub(super) async fn trim(&self, before: Offset) -> Result<(), Error> {
        let trim = partition_command::Trim {
            log_start_offset: before.into(),
        };
        let command = PartitionCommand {
            command: Some(partition_command::Command::Trim(trim)),
        };
        let command = Command::partition(&command, Vec::new());
        let proposal = self
            .group
            .group()
            .propose(command)
            .await
            .map_err(|error| self.unavailable(&error))?;
        proposal
            .wait()
            .await
            .map_err(|error| self.unavailable(&error))?;
        Ok(())
    }
}
