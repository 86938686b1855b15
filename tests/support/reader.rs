//! A consume stream by hand.

use kelda_proto::v1::{
    ConsumeRequest, ConsumeResponse, PartitionPosition, RecordFormat, StartPosition,
    consume_response::{Event, Records, Started},
    start_position::Position,
};
use tonic::{Status, Streaming, transport::Channel};

use super::wait::soon;

/// Follows a topic from its start, with a short heartbeat.
pub(crate) fn follow(topic: &str) -> ConsumeRequest {
    ConsumeRequest {
        topic: topic.to_owned(),
        follow: true,
        heartbeat_interval_ms: 100,
        ..Default::default()
    }
}

/// Reads a topic from its start to its end.
pub(crate) fn to_end(topic: &str) -> ConsumeRequest {
    ConsumeRequest {
        follow: false,
        ..follow(topic)
    }
}

/// A start.
pub(crate) fn start(position: Position) -> Option<StartPosition> {
    Some(StartPosition {
        position: Some(position),
    })
}

/// Partition, next offset and end offset.
pub(crate) fn positions(positions: &[PartitionPosition]) -> Vec<(i32, i64, i64)> {
    let tuple = |at: &PartitionPosition| (at.partition, at.next_offset, at.end_offset);
    positions.iter().map(tuple).collect()
}

/// An open stream.
pub(crate) struct Reader {
    pub(crate) started: Started,
    stream: Streaming<ConsumeResponse>,
}

impl Reader {
    pub(crate) async fn open(channel: &Channel, request: ConsumeRequest) -> Result<Self, Status> {
        let opening = async {
            let mut service = super::consume_service(channel);
            let mut stream = service.consume(request).await?.into_inner();
            Ok::<_, Status>((stream.message().await?, stream))
        };
        let (first, stream) = soon("a stream", opening).await?;
        let Some(Event::Started(started)) = first.and_then(|first| first.event) else {
            panic!("the first message is Started");
        };
        Ok(Self { started, stream })
    }

    /// The next event; `None` if the stream ended with OK.
    pub(crate) async fn event(&mut self) -> Result<Option<Event>, Status> {
        let message = soon("an event", self.stream.message()).await?;
        Ok(message.map(|message| message.event.expect("an event is given")))
    }

    /// The next event that is no heartbeat.
    pub(crate) async fn news(&mut self) -> Result<Option<Event>, Status> {
        loop {
            match self.event().await? {
                Some(Event::Heartbeat(_)) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next records.
    pub(crate) async fn records(&mut self) -> Records {
        match self.news().await {
            Ok(Some(Event::Records(records))) => records,
            other => panic!("not records: {other:?}"),
        }
    }

    /// Values of the next records.
    pub(crate) async fn values(&mut self) -> Vec<String> {
        values(&self.records().await)
    }
}

/// Values of records that came decoded.
pub(crate) fn values(records: &Records) -> Vec<String> {
    let value = |record: &kelda_proto::v1::ConsumedRecord| {
        let value = record
            .record
            .as_ref()
            .and_then(|record| record.value.clone());
        String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
    };
    records.records.iter().map(value).collect()
}

/// Asks for packed batches.
pub(crate) fn packed(request: ConsumeRequest) -> ConsumeRequest {
    ConsumeRequest {
        format: RecordFormat::Batches.into(),
        ..request
    }
}
