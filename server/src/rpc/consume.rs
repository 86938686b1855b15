//! `kelda.v1.ConsumeService`.

use futures::stream::BoxStream;
use kelda_proto::v1::{
    ConsumeRequest, ConsumeResponse, FetchRequest, FetchResponse,
    consume_service_server::ConsumeService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    consume_stream,
    convert::{self, Incoming},
    status::status,
};
use crate::{
    broker::{Broker, Error},
    types::Offset,
};

/// Reads records.
pub(super) struct Consume {
    pub(super) broker: Broker,
    pub(super) stopping: CancellationToken,
}

impl Consume {
    async fn fetched(&self, request: FetchRequest) -> Result<FetchResponse, Error> {
        let (call, format) = convert::fetch(request)?;
        let (topic, partition, bytes_max) = (call.topic.clone(), call.partition, call.max_bytes);
        // The broker refuses negative offsets.
        let from = Offset(u64::try_from(call.offset).unwrap_or_default());
        let fetched = tokio::select! {
            fetched = self.broker.fetch(call) => fetched?,
            // A long poll must not hold up the stop. A fetch that is dropped has changed nothing.
            () = self.stopping.cancelled() => return Err(Error::NotReady),
        };
        let bounds = fetched.bounds;
        let read = Incoming {
            batches: fetched.batches,
            from,
            bytes_max,
        };
        let outgoing = convert::outgoing(read, format)
            .await
            .ok_or(Error::CorruptData {
                topic,
                partition: partition.unsigned_abs(),
            })?;
        Ok(FetchResponse {
            records: outgoing.records,
            batches: outgoing.batches,
            next_offset: convert::offset(outgoing.next_offset),
            log_start_offset: convert::offset(bounds.log_start),
            end_offset: convert::offset(bounds.end),
        })
    }
}

#[tonic::async_trait]
impl ConsumeService for Consume {
    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let fetched = self.fetched(request.into_inner()).await;
        fetched.map(Response::new).map_err(|error| status(&error))
    }

    type ConsumeStream = BoxStream<'static, Result<ConsumeResponse, Status>>;

    async fn consume(
        &self,
        request: Request<ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let events =
            consume_stream::events(&self.broker, self.stopping.clone(), request.into_inner()).await;
        events.map(Response::new).map_err(|error| status(&error))
    }
}
