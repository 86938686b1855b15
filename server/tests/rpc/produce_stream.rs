//! ProduceStream as its contract says.

use std::collections::BTreeMap;

use kelda_proto::v1::{
    Acks, ProduceStreamRequest, ProduceStreamResponse,
    produce_service_client::ProduceServiceClient,
    produce_stream_request::{Append, Hello, Message},
    produce_stream_response::{self as response, Ack, Welcome, ack},
};
use kelda_server::node::Node;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::support::{PATIENCE, channel, create_topic, info, node, record};

struct Stream {
    requests: mpsc::Sender<ProduceStreamRequest>,
    responses: Streaming<ProduceStreamResponse>,
}

impl Stream {
    /// Opens a stream without saying anything.
    async fn silent(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(1024);
        let mut producer = ProduceServiceClient::new(channel.clone());
        let responses = producer.produce_stream(ReceiverStream::new(receiver));
        let responses = timeout(PATIENCE, responses).await.unwrap().unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    async fn open(channel: &Channel, hello: Hello) -> (Self, Welcome) {
        let mut stream = Self::silent(channel).await;
        stream.send(Message::Hello(hello)).await;
        let first = stream.next().await.unwrap().unwrap();
        let Some(response::Message::Welcome(welcome)) = first.message else {
            panic!("{first:?} is no Welcome");
        };
        (stream, welcome)
    }

    async fn send(&self, message: Message) {
        let message = Some(message);
        let request = ProduceStreamRequest { message };
        self.requests.send(request).await.unwrap();
    }

    async fn append(&self, correlation_id: u64, partition: i32) {
        let append = Append {
            correlation_id,
            partition: Some(partition),
            records: vec![record(correlation_id.to_string())],
            ..Append::default()
        };
        self.send(Message::Append(append)).await;
    }

    async fn next(&mut self) -> Result<Option<ProduceStreamResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.unwrap()
    }

    async fn ack(&mut self) -> Ack {
        let next = self.next().await.unwrap().unwrap();
        match next.message {
            Some(response::Message::Ack(ack)) => ack,
            other => panic!("{other:?} is no Ack"),
        }
    }
}

fn hello() -> Hello {
    Hello {
        topic: "orders".to_owned(),
        ..Hello::default()
    }
}

async fn node_with_topic() -> (Node, Channel) {
    let node = node().await;
    let channel = channel(&node).await;
    create_topic(&channel, "orders", 2).await;
    (node, channel)
}

fn offset(ack: &Ack) -> i64 {
    match &ack.result {
        Some(ack::Result::Ok(ok)) => ok.partitions[0].base_offset,
        other => panic!("{other:?} is no success"),
    }
}

#[tokio::test]
async fn appends_are_acknowledged_and_keep_their_order_in_a_partition() {
    let (node, channel) = node_with_topic().await;
    let (mut stream, welcome) = Stream::open(&channel, hello()).await;
    assert_eq!(welcome.partition_count, 2);
    assert!(welcome.limits.is_some());
    let count = u64::try_from(welcome.window).unwrap();
    for id in 0..count {
        stream.append(id, (id % 2) as i32).await;
    }
    let mut offsets = BTreeMap::new();
    for _ in 0..count {
        let ack = stream.ack().await;
        offsets.insert(ack.correlation_id, offset(&ack));
    }
    for (id, offset) in offsets {
        assert_eq!(offset, (id / 2) as i64, "append {id}");
    }
    drop(stream.requests);
    let end = timeout(PATIENCE, stream.responses.message()).await.unwrap();
    assert!(end.unwrap().is_none(), "the stream ends with OK");
    node.shutdown().await;
}

#[tokio::test]
async fn closing_the_clients_side_still_brings_the_remaining_acks() {
    let (node, channel) = node_with_topic().await;
    let (mut stream, _) = Stream::open(&channel, hello()).await;
    for id in 0..50 {
        stream.append(id, 0).await;
    }
    let Stream {
        requests,
        ref mut responses,
    } = stream;
    drop(requests);
    let mut acks = 0;
    while let Some(next) = timeout(PATIENCE, responses.message())
        .await
        .unwrap()
        .unwrap()
    {
        assert!(matches!(next.message, Some(response::Message::Ack(_))));
        acks += 1;
    }
    assert_eq!(acks, 50);
    node.shutdown().await;
}

#[tokio::test]
async fn a_refused_append_is_answered_and_the_stream_goes_on() {
    let (node, channel) = node_with_topic().await;
    let (mut stream, _) = Stream::open(&channel, hello()).await;
    stream.append(1, 9).await;
    let empty = Append {
        correlation_id: 2,
        ..Append::default()
    };
    stream.send(Message::Append(empty)).await;
    stream.append(3, 0).await;
    let mut reasons = BTreeMap::new();
    for _ in 0..3 {
        let ack = stream.ack().await;
        let reason = match ack.result {
            Some(ack::Result::Error(error)) => error.reason().as_str_name().to_owned(),
            _ => "none".to_owned(),
        };
        reasons.insert(ack.correlation_id, reason);
    }
    assert_eq!(reasons[&1], "ERROR_REASON_UNKNOWN_PARTITION");
    assert_eq!(reasons[&2], "ERROR_REASON_INVALID_FIELD");
    assert_eq!(reasons[&3], "none");
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_must_begin_with_a_hello_and_say_it_once() {
    let (node, channel) = node_with_topic().await;
    let mut stream = Stream::silent(&channel).await;
    stream.append(1, 0).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(info(&status).reason, "INVALID_FIELD");

    let (mut stream, _) = Stream::open(&channel, hello()).await;
    stream.send(Message::Hello(hello())).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let mut stream = Stream::silent(&channel).await;
    let nowhere = Hello {
        topic: "nowhere".to_owned(),
        ..Hello::default()
    };
    stream.send(Message::Hello(nowhere)).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(info(&status).reason, "UNKNOWN_TOPIC");
    node.shutdown().await;
}

#[tokio::test]
async fn a_session_learns_its_last_sequence_when_it_comes_back() {
    let (node, channel) = node_with_topic().await;
    let with_session = Hello {
        session_id: "session".to_owned(),
        acks: Acks::Quorum.into(),
        ..hello()
    };
    let (mut stream, welcome) = Stream::open(&channel, with_session.clone()).await;
    assert!(welcome.last_sequences.is_empty());
    for sequence in 0..3 {
        let append = Append {
            correlation_id: sequence as u64,
            partition: Some(1),
            records: vec![record("x")],
            sequence,
            ..Append::default()
        };
        stream.send(Message::Append(append.clone())).await;
        let first = offset(&stream.ack().await);
        stream.send(Message::Append(append)).await;
        let repeated = stream.ack().await;
        assert_eq!(offset(&repeated), first);
    }
    let (_stream, welcome) = Stream::open(&channel, with_session).await;
    let last = welcome.last_sequences[0];
    assert_eq!((last.partition, last.last_sequence), (1, 2));
    node.shutdown().await;
}

#[tokio::test]
async fn a_stop_of_the_node_ends_the_stream_behind_its_acks() {
    let (node, channel) = node_with_topic().await;
    let (mut stream, _) = Stream::open(&channel, hello()).await;
    stream.append(1, 0).await;
    stream.ack().await;
    let stop = tokio::spawn(node.shutdown());
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(info(&status).reason, "NOT_READY");
    timeout(PATIENCE, stop).await.unwrap().unwrap();
}
