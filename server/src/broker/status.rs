//! What the node says of itself and of the cluster.

use kelda_proto::{limits, v1};
use prost_types::Timestamp;

use super::{Broker, Error};
use crate::types::NodeId;

impl Broker {
    /// Status of this node, and of the cluster as it sees it.
    pub fn status(&self) -> Result<v1::GetStatusResponse, Error> {
        let catalog = self.shared.catalog.view();
        let disk = self.shared.disk.status()?;
        Ok(v1::GetStatusResponse {
            cluster_id: catalog.cluster_id().to_owned(),
            node: self.this_node(&catalog),
            ready: *self.shared.ready.borrow(),
            catalog_leader: self
                .shared
                .catalog
                .group()
                .leader_in_touch()
                .map_or(0, |leader| leader.0),
            node_count: count(catalog.nodes().count()),
            topic_count: count(catalog.topic_count()),
            partition_count: count(catalog.partition_count()),
            leaderless_partition_count: count(self.leaderless_partitions()),
            storage: Some(v1::StorageStatus {
                used_bytes: disk.used_bytes.cast_signed(),
                free_bytes: disk.free_bytes.cast_signed(),
                floor_bytes: disk.floor_bytes.cast_signed(),
                writable: disk.writable(),
                reusable_bytes: disk.reusable_bytes.cast_signed(),
            }),
            limits: Some(self.limits()),
            start_time: Some(timestamp(self.shared.start_time_ms)),
        })
    }

    /// Partitions that have no leader, as far as this node can tell: those with a replica here know, and of the others
    /// most replicas must be heard of.
    pub(super) fn leaderless_partitions(&self) -> usize {
        let directory = self.directory();
        let places = directory
            .topics()
            .flat_map(|handle| handle.topic.partitions.iter().zip(handle.slots()));
        let leaderless = places.filter(|(placed, slot)| match slot {
            Ok(partition) => partition.group.group().leader_in_touch().is_none(),
            Err(_) => !self.most_others_are_heard(&placed.replicas),
        });
        leaderless.count()
    }

    /// Whether most of these replicas are on other nodes that give signs of life.
    fn most_others_are_heard(&self, replicas: &[NodeId]) -> bool {
        let (me, groups) = (self.node(), &self.shared.groups);
        let heard = replicas
            .iter()
            .filter(|node| **node != me && groups.lives(**node));
        heard.count() * 2 > replicas.len()
    }

    /// Partitions of this node that are quiesced.
    pub(super) fn quiesced_partitions(&self) -> usize {
        let directory = self.directory();
        let partitions = directory.partitions();
        partitions
            .filter(|partition| partition.group.group().is_quiesced())
            .count()
    }

    /// Sum of the terms of the partitions that have a replica here.
    pub(super) fn partition_terms(&self) -> u64 {
        let directory = self.directory();
        let slots = directory.topics().flat_map(|topic| topic.slots());
        let open = slots.filter_map(|slot| slot.as_ref().ok());
        open.map(|partition| partition.group.group().term()).sum()
    }

    /// What this broker accepts.
    pub fn limits(&self) -> v1::Limits {
        v1::Limits {
            record_bytes_max: count(limits::RECORD_BYTES_MAX),
            batch_bytes_max: count(limits::BATCH_BYTES_MAX),
            request_bytes_max: count(limits::REQUEST_BYTES_MAX),
            batch_records_max: count(limits::BATCH_RECORDS_MAX),
            record_headers_max: count(limits::RECORD_HEADERS_MAX),
            decompressed_bytes_max: count(limits::DECOMPRESSED_BYTES_MAX),
        }
    }
}

/// A count as the contract has it; none of them comes near its bound.
pub(super) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn timestamp(time_ms: i64) -> Timestamp {
    let nanos = time_ms.rem_euclid(1000) * 1_000_000;
    Timestamp {
        seconds: time_ms.div_euclid(1000),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}
