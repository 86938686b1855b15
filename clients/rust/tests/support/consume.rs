//! The consume half of the scripted broker.

use kelda_client::v1::consume_response::{End, Event, Records, Started};
use kelda_client::v1::consume_service_server::ConsumeService;
use kelda_client::v1::start_position::Position;
use kelda_client::v1::*;
use kelda_proto::batch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Shared, status};

/// What happens on one consume stream, which begins at the offset that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Fails at once.
    Fail(ErrorReason),
    /// This many batches of two records, then the stream breaks.
    Break(usize),
    /// This many batches of two records, then silence.
    Silence(usize),
    /// This many batches of two records, then the end.
    End(usize),
}

type Answer = Result<ConsumeResponse, Status>;

#[tonic::async_trait]
impl ConsumeService for Shared {
    type ConsumeStream = ReceiverStream<Answer>;

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn consume(
        &self,
        request: Request<ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let request = request.into_inner();
        let start = match request.partitions.first().and_then(|p| p.start) {
            Some(StartPosition {
                position: Some(Position::Offset(offset)),
            }) => offset,
            _ => 0,
        };
        let interval = request.heartbeat_interval_ms;
        let script = {
            let mut cluster = self.lock();
            cluster.consumes.push(request);
            cluster
                .scripts
                .pop_front()
                .expect("a script for each stream")
        };
        let (batches, last) = match script {
            Script::Fail(reason) => return Err(status(reason)),
            Script::Break(batches) => (batches, Some(Err(status(ErrorReason::NoLeader)))),
            Script::Silence(batches) => (batches, None),
            Script::End(batches) => (batches, Some(said(Event::End(End::default())))),
        };
        let (answers, stream) = mpsc::channel(64);
        tokio::spawn(async move {
            let started = Started {
                positions: vec![PartitionPosition {
                    partition: 0,
                    next_offset: start,
                    end_offset: 100,
                }],
                heartbeat_interval_ms: interval,
            };
            let _ = answers.send(said(Event::Started(started))).await;
            for number in 0..batches as i64 {
                let _ = answers.send(two_records(start + 2 * number)).await;
            }
            match last {
                Some(last) => drop(answers.send(last).await),
                None => answers.closed().await,
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn two_records(base_offset: i64) -> Answer {
    let records = [base_offset, base_offset + 1].map(|offset| Record {
        timestamp_ms: offset + 1000,
        ..Record::default()
    });
    let batch = batch::pack(&records, Compression::Zstd).expect("valid");
    said(Event::Records(Records {
        partition: 0,
        records: Vec::new(),
        batches: vec![StoredBatch {
            base_offset,
            append_time_ms: 5,
            batch: Some(batch),
        }],
        next_offset: base_offset + 2,
        end_offset: 100,
    }))
}

fn said(event: Event) -> Answer {
    Ok(ConsumeResponse { event: Some(event) })
}
