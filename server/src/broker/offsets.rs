//! Offsets by position or time, and deleting the oldest records.

use std::sync::Arc;

use kelda_proto::{
    internal::v1::{PartitionCommand, partition_command},
    v1,
};

use super::{
    Bounds, Broker, Error, Start,
    partition::{Partition, unavailable},
};
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
        for reader in self.readers(topic, partitions).await? {
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
        self.check_trims(topic, trims).await?;
        let mut offsets = Vec::with_capacity(trims.len());
        for (number, before) in trims {
            let bounds = self.trim_at_leader(topic, *number, *before).await?;
            offsets.push(partition_offset(
                number.unsigned_abs(),
                bounds.log_start,
                bounds,
            ));
        }
        Ok(offsets)
    }

    /// Checks every trim before the first is carried out.
    async fn check_trims(&self, topic: &str, trims: &[(i32, i64)]) -> Result<(), Error> {
        let numbers: Vec<i32> = trims.iter().map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let readers = self.readers(topic, &numbers).await?;
        for (reader, (_, before)) in readers.iter().zip(trims) {
            below(*before, reader.bounds())?;
        }
        Ok(())
    }
}

/// The offset that a trim means.
fn below(before: i64, Bounds { log_start, end }: Bounds) -> Result<Offset, Error> {
    match u64::try_from(before).map(Offset) {
        Ok(before) if before <= end => Ok(before),
        Err(_) if before == -1 => Ok(end),
        _ => Err(Error::OffsetOutOfRange {
            offset: before,
            log_start,
            end,
        }),
    }
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
    /// Takes records below an offset that a client named out of sight, and answers what is left.
    pub(super) async fn trim_checked(
        self: &Arc<Self>,
        before_offset: i64,
    ) -> Result<Bounds, Error> {
        self.trim(below(before_offset, self.bounds())?).await?;
        self.compact_soon();
        Ok(self.bounds())
    }

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
            .map_err(|error| unavailable((&self.topic, self.number), &error))?;
        proposal
            .wait()
            .await
            .map_err(|error| unavailable((&self.topic, self.number), &error))?;
        Ok(())
    }
}
