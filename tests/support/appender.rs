//! A produce stream by hand.

use kelda_proto::v1::{
    ErrorReason, ProduceResponse, ProduceStreamRequest, ProduceStreamResponse,
    produce_service_client::ProduceServiceClient,
    produce_stream_request::{Append, Hello, Message},
    produce_stream_response::{Ack, Message as Answer, Welcome, ack},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{TestNode, wait::soon};

/// An open stream that has been welcomed.
pub(crate) struct Appender {
    pub(crate) welcome: Welcome,
    /// `None` once this side is closed.
    requests: Option<mpsc::Sender<ProduceStreamRequest>>,
    answers: Streaming<ProduceStreamResponse>,
}

/// A Hello without session.
pub(crate) fn hello(topic: &str) -> Hello {
    Hello {
        topic: topic.to_owned(),
        ..Hello::default()
    }
}

impl Appender {
    pub(crate) async fn open(node: &TestNode, hello: Hello) -> Result<Self, Status> {
        Self::open_on(node.produce(), hello).await
    }

    pub(crate) async fn open_on(
        mut service: ProduceServiceClient<Channel>,
        hello: Hello,
    ) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1024);
        let first = ProduceStreamRequest {
            message: Some(Message::Hello(hello)),
        };
        requests.send(first).await.expect("there is room");
        let opening = async {
            let answers = service.produce_stream(ReceiverStream::new(receiver)).await;
            let mut answers = answers?.into_inner();
            Ok::<_, Status>((answers.message().await?, answers))
        };
        let (first, answers) = soon("a welcome", opening).await?;
        let Some(Answer::Welcome(welcome)) = first.and_then(|first| first.message) else {
            panic!("the first answer is a Welcome");
        };
        Ok(Self {
            welcome,
            requests: Some(requests),
            answers,
        })
    }

    /// Sends an append, and does not wait for its ack.
    pub(crate) async fn send(&self, append: Append) {
        let message = Some(Message::Append(append));
        let requests = self.requests.as_ref().expect("not closed yet");
        let sent = requests.send(ProduceStreamRequest { message });
        soon("room to send", sent)
            .await
            .expect("the stream is open");
    }

    /// Sends an append while no other is under way, and waits for its ack.
    pub(crate) async fn ack_of(&mut self, append: Append) -> Ack {
        self.send(append).await;
        let ack = self.ack().await.expect("the stream is open");
        ack.expect("an ack")
    }

    /// Says that no more appends follow.
    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    /// The next ack; `None` if the stream ended with OK.
    pub(crate) async fn ack(&mut self) -> Result<Option<Ack>, Status> {
        let answer = soon("an ack", self.answers.message()).await?;
        Ok(answer.map(|answer| match answer.message {
            Some(Answer::Ack(ack)) => ack,
            other => panic!("not an ack: {other:?}"),
        }))
    }
}

/// The answer in an ack, or why there is none.
pub(crate) fn outcome(ack: Ack) -> Result<ProduceResponse, ErrorReason> {
    match ack.result.expect("an ack has a result") {
        ack::Result::Ok(response) => Ok(response),
        ack::Result::Error(error) => Err(error.reason()),
    }
}
