//! Produce streams that are not spoken as agreed.

use kelda_proto::v1::{
    self, ErrorReason, ProduceStreamRequest,
    produce_stream_request::{Append, Hello, Message},
    produce_stream_response::{self as response, Ack, Welcome, ack},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{
    TestNode, config,
    orders::{Orders, TOPIC},
    record,
    refusals::{assert_error_item, assert_invalid_fields},
};

/// A stream with both its sides.
struct Stream {
    requests: mpsc::Sender<ProduceStreamRequest>,
    responses: Streaming<v1::ProduceStreamResponse>,
}

fn hello() -> Hello {
    Hello {
        topic: TOPIC.to_owned(),
        ..Default::default()
    }
}

fn append(correlation_id: u64) -> Append {
    Append {
        correlation_id,
        partition: Some(0),
        records: vec![record(&format!("append {correlation_id}"))],
        ..Default::default()
    }
}

impl Stream {
    async fn open(orders: &Orders) -> Self {
        let (requests, receiver) = mpsc::channel(5000);
        let responses = orders
            .node
            .produce()
            .produce_stream(ReceiverStream::new(receiver))
            .await
            .expect("the stream opens")
            .into_inner();
        Self {
            requests,
            responses,
        }
    }

    async fn welcomed(orders: &Orders, hello: Hello) -> (Self, Welcome) {
        let mut stream = Self::open(orders).await;
        stream.send(Message::Hello(hello)).await;
        let first = stream.responses.message().await.expect("a message");
        let first = first.and_then(|first| first.message);
        let Some(response::Message::Welcome(welcome)) = first else {
            panic!("Welcome must be first: {first:?}");
        };
        (stream, welcome)
    }

    async fn send(&self, message: Message) {
        let request = ProduceStreamRequest {
            message: Some(message),
        };
        self.requests.send(request).await.expect("it is open");
    }

    async fn next(&mut self) -> Result<Option<Ack>, Status> {
        let message = self.responses.message().await?;
        Ok(message.map(|message| match message.message {
            Some(response::Message::Ack(ack)) => ack,
            other => panic!("only acks come behind Welcome: {other:?}"),
        }))
    }

    /// Acks until the stream fails.
    async fn failed(mut self) -> (Vec<Ack>, Status) {
        let mut acks = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(ack)) => acks.push(ack),
                Ok(None) => panic!("the stream must fail"),
                Err(status) => return (acks, status),
            }
        }
    }
}

/// The offset that an append got.
fn offset(ack: &Ack) -> i64 {
    match &ack.result {
        Some(ack::Result::Ok(produced)) => produced.partitions[0].base_offset,
        other => panic!("it must succeed: {other:?}"),
    }
}

fn error(ack: Option<Ack>, correlation_id: u64) -> v1::Error {
    let ack = ack.expect("an ack");
    assert_eq!(ack.correlation_id, correlation_id);
    match ack.result {
        Some(ack::Result::Error(error)) => error,
        other => panic!("it must fail: {other:?}"),
    }
}

#[tokio::test]
async fn the_first_message_must_be_hello() {
    let mut orders = Orders::start().await;
    let stream = Stream::open(&orders).await;
    stream.send(Message::Append(append(1))).await;
    let (acks, status) = stream.failed().await;
    assert!(acks.is_empty());
    assert_invalid_fields(&status, &["hello"]);
    let stream = Stream::open(&orders).await;
    let nothing = ProduceStreamRequest { message: None };
    stream.requests.send(nothing).await.expect("it is open");
    assert_invalid_fields(&stream.failed().await.1, &["hello"]);
    let Stream {
        requests,
        mut responses,
    } = Stream::open(&orders).await;
    drop(requests);
    let status = responses.message().await.expect_err("nothing was said");
    assert_invalid_fields(&status, &["hello"]);
    orders.check().await;
}

#[tokio::test]
async fn hello_must_be_valid() {
    let mut orders = Orders::start().await;
    let long = "x".repeat(65);
    let with = |id: &str, epoch| Hello {
        session_id: id.to_owned(),
        session_epoch: epoch,
        ..hello()
    };
    let acks = |acks: i32| Hello { acks, ..hello() };
    for (hello, field) in [
        (with(&long, 0), "session.id"),
        (with("loader", -1), "session.epoch"),
        (acks(3), "acks"),
        (acks(-1), "acks"),
    ] {
        let stream = Stream::open(&orders).await;
        stream.send(Message::Hello(hello)).await;
        assert_invalid_fields(&stream.failed().await.1, &[field]);
    }
    orders.check().await;
}

#[tokio::test]
async fn a_second_hello_ends_the_stream_behind_the_acks() {
    let mut orders = Orders::start().await;
    for second in [Some(Message::Hello(hello())), None] {
        let (stream, _) = Stream::welcomed(&orders, hello()).await;
        stream.send(Message::Append(append(7))).await;
        let field = if second.is_some() { "hello" } else { "message" };
        let request = ProduceStreamRequest { message: second };
        stream.requests.send(request).await.expect("it is open");
        stream.send(Message::Append(append(8))).await;
        let (acks, status) = stream.failed().await;
        assert_eq!(acks.len(), 1, "what came before is answered");
        assert_eq!(offset(&acks[0]), orders.end());
        orders.note("append 7");
        assert_invalid_fields(&status, &[field]);
        orders.check().await;
    }
}

#[tokio::test]
async fn an_append_that_fails_is_answered_and_the_stream_goes_on() {
    let mut orders = Orders::start().await;
    let (mut stream, _) = Stream::welcomed(&orders, hello()).await;
    stream.send(Message::Append(Append::default())).await;
    let found = error(stream.next().await.expect("an ack"), 0);
    let invalid = (Code::InvalidArgument, ErrorReason::InvalidField);
    assert_error_item(&found, invalid.0, invalid.1, &[], "give either records");
    let unknown = Append {
        partition: Some(9),
        ..append(1)
    };
    stream.send(Message::Append(unknown)).await;
    let found = error(stream.next().await.expect("an ack"), 1);
    let metadata = [
        ("topic", TOPIC),
        ("partition", "9"),
        ("partition_count", "2"),
    ];
    let reason = ErrorReason::UnknownPartition;
    assert_error_item(
        &found,
        Code::NotFound,
        reason,
        &metadata,
        "choose one below",
    );
    let mut batch = kelda_proto::batch::pack(&[record("a")], v1::Compression::Zstd);
    if let Ok(batch) = &mut batch {
        batch.record_count = 2;
    }
    let damaged = Append {
        records: Vec::new(),
        batch: batch.ok(),
        ..append(2)
    };
    stream.send(Message::Append(damaged)).await;
    let found = error(stream.next().await.expect("an ack"), 2);
    let metadata = [("expected", "2"), ("actual", "1")];
    let reason = ErrorReason::RecordCountMismatch;
    let advice = "set record_count";
    assert_error_item(&found, Code::InvalidArgument, reason, &metadata, advice);
    let unexpected = Append {
        expected_offset: Some(0),
        ..append(3)
    };
    stream.send(Message::Append(unexpected)).await;
    let found = error(stream.next().await.expect("an ack"), 3);
    let end = orders.end().to_string();
    let metadata = [("expected_offset", "0"), ("next_offset", &*end)];
    let reason = ErrorReason::ExpectedOffsetMismatch;
    let code = Code::FailedPrecondition;
    assert_error_item(&found, code, reason, &metadata, "read what came in between");
    stream.send(Message::Append(append(4))).await;
    let acknowledged = stream.next().await.expect("an ack").expect("an ack");
    assert_eq!(offset(&acknowledged), orders.end());
    orders.note("append 4");
    drop(stream.requests);
    let rest = stream.responses.message().await.expect("it ends with OK");
    assert!(rest.is_none());
    orders.check().await;
}

#[tokio::test]
async fn appends_of_a_session_are_checked_and_the_stream_goes_on() {
    let mut orders = Orders::start().await;
    let of_session = |epoch| Hello {
        session_id: "loader".to_owned(),
        session_epoch: epoch,
        ..hello()
    };
    let (mut stream, welcome) = Stream::welcomed(&orders, of_session(2)).await;
    assert_eq!(welcome.window, 32);
    let nowhere = Append {
        partition: None,
        ..append(0)
    };
    stream.send(Message::Append(nowhere)).await;
    let found = error(stream.next().await.expect("an ack"), 0);
    let invalid = (Code::InvalidArgument, ErrorReason::InvalidField);
    assert_error_item(&found, invalid.0, invalid.1, &[], "partition is needed");
    let gap = Append {
        sequence: 1,
        ..append(1)
    };
    stream.send(Message::Append(gap)).await;
    let found = error(stream.next().await.expect("an ack"), 1);
    let metadata = [
        ("session", "loader"),
        ("sequence", "1"),
        ("expected_sequence", "0"),
    ];
    let code = Code::FailedPrecondition;
    let reason = ErrorReason::SequenceOutOfOrder;
    assert_error_item(&found, code, reason, &metadata, "start at 0");
    stream.send(Message::Append(append(2))).await;
    let first = stream.next().await.expect("an ack").expect("an ack");
    assert_eq!(offset(&first), orders.end());
    orders.note("append 2");
    // The same sequence on another stream is a repeat, whatever its content.
    let (mut again, welcome) = Stream::welcomed(&orders, of_session(2)).await;
    assert_eq!(welcome.last_sequences.len(), 1);
    again.send(Message::Append(append(3))).await;
    let second = again.next().await.expect("an ack").expect("an ack");
    assert_eq!(offset(&second), offset(&first));
    let (mut old, _) = Stream::welcomed(&orders, of_session(1)).await;
    old.send(Message::Append(append(4))).await;
    let found = error(old.next().await.expect("an ack"), 4);
    let metadata = [
        ("session", "loader"),
        ("epoch", "1"),
        ("current_epoch", "2"),
    ];
    let reason = ErrorReason::ProducerFenced;
    assert_error_item(&found, code, reason, &metadata, "stop this producer");
    orders.check().await;
}

#[tokio::test]
async fn a_client_that_exceeds_its_window_is_cut_off_and_what_was_acknowledged_is_there() {
    // On a disk, where acks take long enough for the window to fill.
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    let mut orders = Orders::create_on(node).await;
    let of_session = Hello {
        session_id: "loader".to_owned(),
        ..hello()
    };
    let (stream, _) = Stream::welcomed(&orders, of_session).await;
    for sequence in 0..2000_u64 {
        let next = Append {
            sequence: sequence.cast_signed(),
            ..append(sequence)
        };
        // The stream may have ended already.
        let request = ProduceStreamRequest {
            message: Some(Message::Append(next)),
        };
        let _ = stream.requests.send(request).await;
    }
    let (mut acks, status) = stream.failed().await;
    acks.sort_unstable_by_key(|ack| ack.correlation_id);
    assert_invalid_fields(&status, &["append"]);
    assert!(status.message().contains("wait for acks"), "{status:?}");
    assert!(acks.len() >= 32, "the window was acknowledged");
    for (ack, sequence) in acks.iter().zip(0..) {
        assert_eq!(ack.correlation_id, sequence);
        assert_eq!(offset(ack), orders.end());
        orders.note(&format!("append {sequence}"));
    }
    orders.check().await;
}
