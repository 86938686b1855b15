//! `kelda.v1.ProduceService`.

use futures::stream::BoxStream;
use kelda_proto::v1::{
    ProduceRequest, ProduceResponse, ProduceStreamRequest, ProduceStreamResponse,
    produce_service_server::ProduceService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, produce_stream, status::status};
use crate::broker::Broker;

/// Appends records.
pub(super) struct Produce {
    pub(super) broker: Broker,
    pub(super) stopping: CancellationToken,
}

#[tonic::async_trait]
impl ProduceService for Produce {
    async fn produce(
        &self,
        request: Request<ProduceRequest>,
    ) -> Result<Response<ProduceResponse>, Status> {
        let call = convert::produce(request.into_inner()).map_err(|error| status(&error))?;
        let produced = self.broker.produce(call).await;
        let produced = produced.map_err(|error| status(&error))?;
        Ok(Response::new(convert::produced(produced)))
    }

    type ProduceStreamStream = BoxStream<'static, Result<ProduceStreamResponse, Status>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        // The Hello is awaited in the stream: a client may wait for the response's headers before it says anything.
        let responses = produce_stream::responses(
            self.broker.clone(),
            self.stopping.clone(),
            request.into_inner(),
        );
        Ok(Response::new(responses))
    }
}
