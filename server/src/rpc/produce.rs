//! `kelda.v1.ProduceService`.

use std::sync::Arc;

use futures::stream::BoxStream;
use kelda_proto::v1::{
    ProduceRequest, ProduceResponse, ProduceStreamRequest, ProduceStreamResponse,
    produce_service_server::ProduceService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, produce_stream, status::status};
use crate::{broker::Broker, middleware::Received};

/// Appends records.
pub(super) struct Produce {
    pub(super) broker: Broker,
    pub(super) stopping: CancellationToken,
}

#[tonic::async_trait]
impl ProduceService for Produce {
    async fn produce(
        &self,
        mut request: Request<ProduceRequest>,
    ) -> Result<Response<ProduceResponse>, Status> {
        let received = request.extensions_mut().remove::<Arc<Received>>();
        let call = convert::produce(request.into_inner()).map_err(|error| status(&error))?;
        let pending = self.broker.begin_produce(call).await;
        // From here on the broker's own limit bounds the records.
        drop(received);
        let produced = pending.map_err(|error| status(&error))?.wait().await;
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
