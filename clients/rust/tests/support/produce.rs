//! The produce half of the scripted broker.

use kelda_client::v1::produce_service_server::ProduceService;
use kelda_client::v1::produce_stream_request::{Append, Hello, Message as Asked};
use kelda_client::v1::produce_stream_response::{Ack, Message as Said, Welcome, ack};
use kelda_client::v1::*;
use kelda_proto::batch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Cluster, Shared, TOPIC, code, status};

/// What happens to an append.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is written and acknowledged.
    Pass,
    /// It is written, and the stream breaks before the ack.
    LoseAck,
    /// The stream breaks before it is written.
    LoseAppend,
    /// It is not written, and the ack says why.
    Refuse(ErrorReason),
    /// It is not written, and there is no ack.
    Silence,
}

/// What a partition remembers of a session.
#[derive(Default)]
pub(crate) struct SessionState {
    epoch: i32,
    /// First offsets of all batches; the position is the sequence.
    bases: Vec<i64>,
}

type Answer = Result<ProduceStreamResponse, Status>;

#[tonic::async_trait]
impl ProduceService for Shared {
    type ProduceStreamStream = ReceiverStream<Answer>;

    async fn produce(
        &self,
        _: Request<ProduceRequest>,
    ) -> Result<Response<ProduceResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let mut asked = request.into_inner();
        let (answers, stream) = mpsc::channel(64);
        let Some(Asked::Hello(hello)) = asked.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let welcome = self.lock().welcome(&hello)?;
        let shared = self.clone();
        tokio::spawn(async move {
            let _ = answers.send(said(Said::Welcome(welcome))).await;
            while let Ok(Some(message)) = asked.message().await {
                let Some(Asked::Append(append)) = message.message else {
                    return;
                };
                let answer = shared.lock().append(&hello, &append);
                let (answer, broken) = match answer {
                    Ok(None) => continue,
                    Ok(Some(ack)) => (said(Said::Ack(ack)), false),
                    Err(status) => (Err(status), true),
                };
                if answers.send(answer).await.is_err() || broken {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn said(message: Said) -> Answer {
    Ok(ProduceStreamResponse {
        message: Some(message),
    })
}

impl Cluster {
    fn welcome(&mut self, hello: &Hello) -> Result<Welcome, Status> {
        self.hellos.push(hello.clone());
        if hello.topic != TOPIC {
            return Err(status(ErrorReason::UnknownTopic));
        }
        let sessions = self.sessions.iter().filter(|((id, _), session)| {
            *id == hello.session_id && session.epoch == hello.session_epoch
        });
        let last_sequences = sessions.map(|((_, partition), session)| PartitionSequence {
            partition: *partition,
            last_sequence: session.bases.len() as i64 - 1,
        });
        Ok(Welcome {
            window: self.window,
            limits: Some(Limits::default()),
            partition_count: self.partition_count,
            last_sequences: last_sequences.collect(),
        })
    }

    /// The ack of an append; nothing for none; an error if the stream is to break.
    fn append(&mut self, hello: &Hello, append: &Append) -> Result<Option<Ack>, Status> {
        let correlation_id = append.correlation_id;
        let result = match (self.refuse_all, self.faults.pop_front()) {
            (Some(reason), _) | (None, Some(Fault::Refuse(reason))) => Err(reason),
            (None, Some(Fault::LoseAppend)) => return Err(status(ErrorReason::NotReady)),
            (None, Some(Fault::Silence)) => return Ok(None),
            (None, Some(Fault::LoseAck)) => {
                let _ = self.write(hello, append);
                return Err(Status::unavailable("a proxy lost its way"));
            }
            (None, Some(Fault::Pass) | None) => self.write(hello, append),
        };
        let result = match result {
            Ok(response) => ack::Result::Ok(response),
            Err(reason) => ack::Result::Error(Error {
                code: code(reason).into(),
                reason: reason.into(),
                message: reason.as_str_name().to_owned(),
                metadata: Default::default(),
            }),
        };
        Ok(Some(Ack {
            correlation_id,
            result: Some(result),
        }))
    }

    fn write(&mut self, hello: &Hello, append: &Append) -> Result<ProduceResponse, ErrorReason> {
        let partition = append.partition.expect("the client always gives it");
        let packed = append.batch.as_ref().expect("the client always packs");
        batch::check(packed, &batch::Rules::default()).expect("the client packs as agreed");
        let log = self.logs.entry(partition).or_default();
        let mut ack = PartitionAck {
            partition,
            base_offset: log.len() as i64,
            record_count: packed.record_count,
            ..PartitionAck::default()
        };
        if !hello.session_id.is_empty() {
            let key = (hello.session_id.clone(), partition);
            let session = self.sessions.entry(key).or_default();
            if hello.session_epoch < session.epoch {
                return Err(ErrorReason::ProducerFenced);
            }
            if hello.session_epoch > session.epoch {
                *session = SessionState {
                    epoch: hello.session_epoch,
                    bases: Vec::new(),
                };
            }
            let sequence = append.sequence as usize;
            if sequence > session.bases.len() {
                return Err(ErrorReason::SequenceOutOfOrder);
            }
            if let Some(base) = session.bases.get(sequence) {
                ack.base_offset = *base;
                ack.duplicate = true;
            } else {
                session.bases.push(ack.base_offset);
            }
        } else if hello.acks() == Acks::None {
            ack.base_offset = -1;
        }
        if !ack.duplicate {
            let records = batch::unpack(packed, 1 << 24).expect("checked");
            log.extend(records);
        }
        Ok(ProduceResponse {
            partitions: vec![ack],
            acks: hello.acks,
        })
    }
}
