//! Errors that a client sees before a handler sees the request, and the form of those that handlers make.

use bytes::{Buf as _, BufMut as _, Bytes};
use kelda_proto::{
    limits::REQUEST_BYTES_MAX,
    v1::{FetchRequest, ProduceRequest, RecordBatch, produce_service_client::ProduceServiceClient},
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{PATIENCE, channel, consumer, create_topic, info, node, node_with, record};

/// Sends and receives bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Calls a method with a request of these bytes.
async fn call(channel: &Channel, path: &'static str, request: &'static [u8]) -> Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = Request::new(Bytes::from_static(request));
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(request, path, Raw).await.unwrap_err()
}

#[tokio::test]
async fn a_request_that_is_no_protobuf_is_an_invalid_argument() {
    let node = node().await;
    let channel = channel(&node).await;
    for path in [
        "/kelda.v1.ProduceService/Produce",
        "/kelda.v1.ConsumeService/Fetch",
        "/kelda.v1.ConsumeService/Consume",
        "/kelda.v1.TopicService/CreateTopic",
    ] {
        let status = call(&channel, path, b"\xff\xff\xff").await;
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        assert_eq!(info(&status).reason, "MALFORMED_RECORDS", "{path}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_an_invalid_argument_with_the_limit() {
    let node = node().await;
    let channel = channel(&node).await;
    create_topic(&channel, "orders", 1).await;
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        batch: Some(RecordBatch {
            records: Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]),
            ..RecordBatch::default()
        }),
        ..ProduceRequest::default()
    };
    let mut producer = ProduceServiceClient::new(channel);
    let status = producer.produce(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let info = info(&status);
    assert_eq!(info.reason, "BATCH_TOO_LARGE");
    assert_eq!(info.metadata["limit_bytes"], REQUEST_BYTES_MAX.to_string());
    node.shutdown().await;
}

#[tokio::test]
async fn an_error_of_the_broker_has_its_code_reason_and_metadata() {
    let node = node().await;
    let mut producer = ProduceServiceClient::new(channel(&node).await);
    let request = |topic: &str| ProduceRequest {
        topic: topic.to_owned(),
        records: vec![record("x")],
        ..ProduceRequest::default()
    };
    let status = producer.produce(request("nowhere")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let info = info(&status);
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("UNKNOWN_TOPIC", "kelda")
    );
    assert_eq!(info.metadata["topic"], "nowhere");
    // What the client sent comes back in headers, which have room for so much only.
    let long = "x".repeat(1 << 20);
    let status = producer.produce(request(&long)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_by_the_node_and_not_by_the_transport() {
    let node = node().await;
    create_topic(&channel(&node).await, "orders", 1).await;
    let request = FetchRequest {
        topic: "orders".to_owned(),
        max_wait_ms: 60_000,
        ..FetchRequest::default()
    };
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    // gRPC-Web by hand, because tonic's client would give up by its own clock.
    let head = format!(
        "POST /kelda.v1.ConsumeService/Fetch HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\
         grpc-timeout: 50m\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
    assert!(answer.contains("the%20deadline%20passed"), "{answer}");
    node.shutdown().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_while_health_answers() {
    let node = node_with(|config| config.calls_max = 1).await;
    let channel = channel(&node).await;
    create_topic(&channel, "orders", 1).await;
    let mut poller = consumer(&channel);
    let poll = FetchRequest {
        topic: "orders".to_owned(),
        max_wait_ms: 60_000,
        ..FetchRequest::default()
    };
    // It may meet a call of the loop below, and then it is the one that is refused.
    let polling = tokio::spawn(async move {
        loop {
            match poller.fetch(poll.clone()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {}
                ended => return ended,
            }
        }
    });
    let mut producer = ProduceServiceClient::new(channel.clone());
    // Until the poll has its permit, the node has a call to spare.
    let status = timeout(PATIENCE, async {
        loop {
            let produced = producer.produce(ProduceRequest::default()).await;
            let status = produced.unwrap_err();
            if status.code() != Code::InvalidArgument {
                break status;
            }
        }
    });
    let status = status.await.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(info(&status).reason, "OVERLOADED");
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    node.shutdown().await;
    let ended = polling.await.unwrap().unwrap_err();
    assert_eq!(info(&ended).reason, "NOT_READY");
}
