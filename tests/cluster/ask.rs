//! What tests ask a single node, without trying another.

use std::{net::SocketAddr, time::Duration};

use kelda_proto::v1::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ProduceRequest, ProducerSession,
    consume_service_client::ConsumeServiceClient, produce_service_client::ProduceServiceClient,
    topic_service_client::TopicServiceClient,
};
use tonic::{Request, Status};

use crate::support::{cluster::Cluster, connect, pages, record, wait::eventually};

/// A topic of one partition, so that the sum of all terms is its own.
pub(super) const TOPIC: &str = "orders";

/// Longer than a node looks for a leader.
const DEADLINE: Duration = Duration::from_secs(20);

/// Produces a record, and returns its offset.
pub(super) async fn produce(address: SocketAddr, value: &str) -> Result<i64, Status> {
    send(address, value, None).await
}

/// Produces the first record of a session, so that nodes may repeat it among themselves.
pub(super) async fn produce_once(address: SocketAddr, value: &str) -> Result<i64, Status> {
    let session = ProducerSession {
        id: value.to_owned(),
        ..Default::default()
    };
    send(address, value, Some(session)).await
}

async fn send(
    address: SocketAddr,
    value: &str,
    session: Option<ProducerSession>,
) -> Result<i64, Status> {
    let mut request = Request::new(ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![record(value)],
        session,
        ..Default::default()
    });
    request.set_timeout(DEADLINE);
    let mut service = ProduceServiceClient::new(connect(address).await);
    let response = service.produce(request).await?.into_inner();
    Ok(response.partitions[0].base_offset)
}

/// Reads from an offset.
pub(super) async fn fetch(address: SocketAddr, offset: i64) -> Result<FetchResponse, Status> {
    let mut request = Request::new(FetchRequest {
        topic: TOPIC.to_owned(),
        offset,
        ..Default::default()
    });
    request.set_timeout(DEADLINE);
    let mut service = ConsumeServiceClient::new(connect(address).await);
    Ok(service.fetch(request).await?.into_inner())
}

/// Offset behind the last record.
pub(super) async fn end(address: SocketAddr) -> Result<i64, Status> {
    let mut request = Request::new(ListOffsetsRequest {
        topic: TOPIC.to_owned(),
        ..Default::default()
    });
    request.set_timeout(DEADLINE);
    let mut service = TopicServiceClient::new(connect(address).await);
    let offsets = service.list_offsets(request).await?.into_inner().offsets;
    Ok(offsets[0].end_offset)
}

/// The values of an answer.
pub(super) fn values(response: FetchResponse) -> Vec<String> {
    let values = response.records.into_iter().map(|consumed| {
        let value = consumed.record.and_then(|record| record.value);
        String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
    });
    values.collect()
}

/// All values, as one node says, once it says that there are as many as expected.
pub(super) async fn all_values(address: SocketAddr, count: usize) -> Vec<String> {
    eventually("all records are there", async || {
        let mut all = Vec::new();
        loop {
            let offset = i64::try_from(all.len()).ok()?;
            let response = fetch(address, offset).await.ok()?;
            let is_end = response.next_offset >= response.end_offset;
            all.extend(values(response));
            if is_end {
                return (all.len() >= count).then_some(all);
            }
        }
    })
    .await
}

/// Terms: of the catalog, and of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) catalog: u64,
    pub(super) partition: u64,
}

/// The highest terms that any node knows.
pub(super) async fn terms(cluster: &Cluster) -> Terms {
    let mut terms = Terms {
        catalog: 0,
        partition: 0,
    };
    for address in cluster.addresses() {
        let catalog = term(address, "kelda_catalog_term").await;
        let partition = term(address, "kelda_partition_terms").await;
        terms.catalog = terms.catalog.max(catalog);
        terms.partition = terms.partition.max(partition);
    }
    terms
}

async fn term(address: SocketAddr, series: &str) -> u64 {
    let term = pages::metric(address, series).await;
    term.expect("every node has it") as u64
}
