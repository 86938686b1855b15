//! Requests with bodies that come bit by bit, in front of a handler that the tests play.

use futures::FutureExt as _;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;
use tower_test::mock;

use super::{super::methods::tests::methods, *};

const PRODUCE: &str = "/kelda.v1.ProduceService/Produce";
const PRODUCE_STREAM: &str = "/kelda.v1.ProduceService/ProduceStream";
const KIB: usize = 1 << 10;

type Frames = ReceiverStream<Result<Frame<Bytes>, Status>>;
type Mock = mock::Mock<Request<ReceiveBody<StreamBody<Frames>>>, Response<()>>;

struct Fixture {
    service: mock::Spawn<LimitReceived<Mock>>,
    handle: mock::Handle<Request<ReceiveBody<StreamBody<Frames>>>, Response<()>>,
    node: Arc<Node>,
}

/// A request as its handler has it, and the client's side of it.
struct Call {
    client: mpsc::Sender<Result<Frame<Bytes>, Status>>,
    body: ReceiveBody<StreamBody<Frames>>,
    received: Arc<Received>,
}

impl Fixture {
    /// Room for 100 KiB, of which a connection may have 60 KiB.
    fn new() -> Self {
        let config = ReceiveConfig {
            node_bytes_max: 100 * KIB,
            connection_bytes_max: 60 * KIB,
        };
        let layer = ReceiveLayer::new(methods(), Metrics::new("1"), config);
        let node = Arc::clone(&layer.node);
        let (service, handle) = mock::spawn_with(move |inner| layer.layer(inner));
        Self {
            service,
            handle,
            node,
        }
    }

    async fn call(&mut self, path: &str, connection: &ConnectionBytes) -> Call {
        let (client, frames) = mpsc::channel(100);
        let body = StreamBody::new(ReceiverStream::new(frames));
        let mut request = Request::builder().uri(path).body(body).unwrap();
        request.extensions_mut().insert(connection.clone());
        assert!(self.service.poll_ready().is_ready());
        let _answer = self.service.call(request);
        let (mut request, _send) = self.handle.next_request().await.unwrap();
        Call {
            client,
            received: request.extensions_mut().remove().unwrap(),
            body: request.into_body(),
        }
    }

    fn taken(&self) -> usize {
        self.node.bytes.load(Relaxed)
    }
}

impl Call {
    /// The client sends this, and the handler reads it.
    async fn receive(&mut self, data: Vec<u8>) -> Result<(), Status> {
        let frame = Frame::data(Bytes::from(data));
        self.client.send(Ok(frame)).await.unwrap();
        self.body.frame().await.unwrap().map(drop)
    }

    /// The handler reads although nothing has come.
    fn read_on(&mut self) {
        assert!(self.body.frame().now_or_never().is_none());
    }
}

/// A gRPC message of so many bytes, prefix included.
fn message(bytes: usize) -> Vec<u8> {
    let mut message = vec![0; bytes];
    let length = u32::try_from(bytes - PREFIX_BYTES).unwrap();
    message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    message
}

fn assert_overloaded(refused: Result<(), Status>, limit: usize) {
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "OVERLOADED");
    assert_eq!(info.metadata["limit"], limit.to_string());
    assert!(details.retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn a_unary_request_keeps_its_room_until_its_handler_gives_it_up() {
    let mut fixture = Fixture::new();
    let connection = ConnectionBytes::default();
    let mut call = fixture.call(PRODUCE, &connection).await;
    assert_eq!(fixture.taken(), 0);
    call.receive(message(20 * KIB)).await.unwrap();
    call.receive(message(20 * KIB)).await.unwrap();
    call.read_on();
    drop(call.body);
    assert_eq!(fixture.taken(), 40 * KIB - FREE_BYTES);
    assert_eq!(connection.0.load(Relaxed), fixture.taken());
    drop(call.received);
    assert_eq!(fixture.taken(), 0);
    assert_eq!(connection.0.load(Relaxed), 0);
}

#[tokio::test]
async fn a_stream_gives_room_back_when_it_is_read_further() {
    let mut fixture = Fixture::new();
    let connection = ConnectionBytes::default();
    let mut call = fixture.call(PRODUCE_STREAM, &connection).await;
    drop(call.received);
    let begun = &message(30 * KIB)[..10 * KIB];
    let data = [&message(20 * KIB), begun].concat();
    let frame = Frame::data(Bytes::from(data));
    call.client.send(Ok(frame)).await.unwrap();
    call.body.frame().await.unwrap().unwrap();
    assert_eq!(fixture.taken(), 30 * KIB - FREE_BYTES, "its handler has it");
    assert!(call.body.frame().now_or_never().is_none());
    assert_eq!(
        fixture.taken(),
        10 * KIB - FREE_BYTES,
        "a message has begun"
    );
    let frame = Frame::data(Bytes::from(vec![0; 20 * KIB]));
    call.client.send(Ok(frame)).await.unwrap();
    call.body.frame().await.unwrap().unwrap();
    assert_eq!(fixture.taken(), 30 * KIB - FREE_BYTES);
    assert!(call.body.frame().now_or_never().is_none());
    assert_eq!(fixture.taken(), 0);
    drop(call.body);
    assert_eq!(connection.0.load(Relaxed), 0);
}

#[tokio::test]
async fn a_connection_that_has_taken_its_share_is_refused_and_others_are_not() {
    for path in [PRODUCE, PRODUCE_STREAM] {
        let mut fixture = Fixture::new();
        let (greedy, other) = (ConnectionBytes::default(), ConnectionBytes::default());
        let mut first = fixture.call(path, &greedy).await;
        let half = message(100 * KIB)[..60 * KIB].to_vec();
        first.receive(half).await.unwrap();
        let mut second = fixture.call(path, &greedy).await;
        let refused = second.receive(message(10 * KIB)).await;
        assert_overloaded(refused, 60 * KIB);
        let mut third = fixture.call(path, &other).await;
        third.receive(message(10 * KIB)).await.unwrap();
        drop(first);
        let mut again = fixture.call(path, &greedy).await;
        again.receive(message(10 * KIB)).await.unwrap();
        drop((second, third, again));
        assert_eq!(fixture.taken(), 0);
        let text = fixture.node.metrics.render();
        assert!(text.contains("kelda_shed_total{kind=\"request\"} 1"));
    }
}

#[tokio::test]
async fn a_node_without_room_still_takes_small_requests() {
    let mut fixture = Fixture::new();
    let mut large = Vec::new();
    for _ in 0..2 {
        let mut call = fixture.call(PRODUCE, &ConnectionBytes::default()).await;
        call.receive(vec![0; 50 * KIB + FREE_BYTES]).await.unwrap();
        large.push(call);
    }
    assert_eq!(fixture.taken(), 100 * KIB);
    let connection = ConnectionBytes::default();
    let mut small = fixture.call(PRODUCE, &connection).await;
    small.receive(message(FREE_BYTES)).await.unwrap();
    assert_overloaded(small.receive(vec![0]).await, 100 * KIB);
    assert_eq!(connection.0.load(Relaxed), 0, "the node had none to give");
    drop(large);
    small.receive(vec![0; 10 * KIB]).await.unwrap();
}

#[tokio::test]
async fn an_announcement_takes_no_room() {
    let mut fixture = Fixture::new();
    let connection = ConnectionBytes::default();
    for path in [PRODUCE, PRODUCE_STREAM] {
        let mut call = fixture.call(path, &connection).await;
        call.receive(vec![0, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        call.read_on();
        assert_eq!(fixture.taken(), 0);
    }
}

proptest! {
    #[test]
    fn messages_end_where_they_do_however_they_are_cut(
        lengths in proptest::collection::vec(0usize..40, 1..20),
        cuts in proptest::collection::vec(1usize..30, 1..20),
    ) {
        let mut ends = vec![0];
        let mut bytes = Vec::new();
        for length in lengths {
            bytes.extend(message(PREFIX_BYTES + length));
            ends.push(bytes.len());
        }
        let mut messages = Messages::default();
        let mut at = 0;
        for cut in cuts.into_iter().cycle() {
            let to = bytes.len().min(at + cut);
            messages.see(&bytes[at..to]);
            at = to;
            let end = ends.iter().rfind(|end| **end <= at).unwrap();
            prop_assert_eq!(messages.begun, at - end);
            if at == bytes.len() {
                break;
            }
        }
    }
}
