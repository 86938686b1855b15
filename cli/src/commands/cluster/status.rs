//! `kelda cluster status`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{self, GetStatusRequest, GetStatusResponse};
use serde::Serialize;

use super::Node;
use crate::{
    client::refused,
    commands::topic::view::timestamp,
    failure::Failure,
    output::{OutputOption, pairs},
    parse::size,
};

/// Show the state of the node that answers, and of the cluster as it sees it
///
/// JSON: cluster_id, ready, node {as in cluster nodes}, start_time, catalog_leader (0: none), node_count,
/// topic_count, partition_count, leaderless_partition_count, storage {used_bytes, free_bytes, reusable_bytes,
/// floor_bytes, writable}, limits {record_bytes_max, batch_bytes_max, request_bytes_max, batch_records_max,
/// record_headers_max, decompressed_bytes_max}.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    output: OutputOption,
}

/// The status as JSON.
#[derive(Debug, Serialize)]
struct View {
    cluster_id: String,
    ready: bool,
    node: Node,
    start_time: Option<String>,
    catalog_leader: u64,
    node_count: i32,
    topic_count: i32,
    partition_count: i32,
    leaderless_partition_count: i32,
    storage: Storage,
    limits: Limits,
}

#[derive(Debug, Serialize)]
struct Storage {
    used_bytes: i64,
    free_bytes: i64,
    reusable_bytes: i64,
    floor_bytes: i64,
    writable: bool,
}

#[derive(Debug, Serialize)]
struct Limits {
    record_bytes_max: i32,
    batch_bytes_max: i32,
    request_bytes_max: i32,
    batch_records_max: i32,
    record_headers_max: i32,
    decompressed_bytes_max: i32,
}

impl Status {
    pub(super) async fn run(self, client: &Client) -> Result<(), Failure> {
        let response = client
            .cluster_service()
            .get_status(GetStatusRequest {})
            .await
            .map_err(refused)?;
        self.output
            .output
            .print(&View::from(response.into_inner()), View::description)
    }
}

impl From<GetStatusResponse> for View {
    fn from(status: GetStatusResponse) -> Self {
        Self {
            cluster_id: status.cluster_id,
            ready: status.ready,
            node: status.node.unwrap_or_default().into(),
            start_time: status.start_time.as_ref().map(timestamp),
            catalog_leader: status.catalog_leader,
            node_count: status.node_count,
            topic_count: status.topic_count,
            partition_count: status.partition_count,
            leaderless_partition_count: status.leaderless_partition_count,
            storage: status.storage.unwrap_or_default().into(),
            limits: status.limits.unwrap_or_default().into(),
        }
    }
}

impl From<v1::StorageStatus> for Storage {
    fn from(storage: v1::StorageStatus) -> Self {
        Self {
            used_bytes: storage.used_bytes,
            free_bytes: storage.free_bytes,
            reusable_bytes: storage.reusable_bytes,
            floor_bytes: storage.floor_bytes,
            writable: storage.writable,
        }
    }
}

impl From<v1::Limits> for Limits {
    fn from(limits: v1::Limits) -> Self {
        Self {
            record_bytes_max: limits.record_bytes_max,
            batch_bytes_max: limits.batch_bytes_max,
            request_bytes_max: limits.request_bytes_max,
            batch_records_max: limits.batch_records_max,
            record_headers_max: limits.record_headers_max,
            decompressed_bytes_max: limits.decompressed_bytes_max,
        }
    }
}

impl View {
    fn description(&self) -> String {
        let yes_or = |yes: bool, no: &str| if yes { "yes".to_owned() } else { no.to_owned() };
        let leader = if self.catalog_leader == 0 {
            "none".to_owned()
        } else {
            format!("node {}", self.catalog_leader)
        };
        let storage = &self.storage;
        pairs(&[
            ("cluster", self.cluster_id.clone()),
            (
                "ready",
                yes_or(self.ready, "no: this node knows no leader of the catalog"),
            ),
            ("catalog leader", leader),
            (
                "node",
                format!(
                    "{} ({}, {}, version {})",
                    self.node.id, self.node.name, self.node.address, self.node.version
                ),
            ),
            ("started", self.start_time.clone().unwrap_or_default()),
            ("nodes", self.node_count.to_string()),
            ("topics", self.topic_count.to_string()),
            (
                "partitions",
                format!(
                    "{} ({} without leader)",
                    self.partition_count, self.leaderless_partition_count
                ),
            ),
            (
                "disk used",
                format!(
                    "{} ({} reusable)",
                    size::human(storage.used_bytes),
                    size::human(storage.reusable_bytes)
                ),
            ),
            (
                "disk free",
                format!(
                    "{} (floor {})",
                    size::human(storage.free_bytes),
                    size::human(storage.floor_bytes)
                ),
            ),
            (
                "takes records",
                yes_or(storage.writable, "no: free disk space is below the floor"),
            ),
        ])
    }
}
