//! `kelda bench consume`.

use std::time::{Duration, Instant};

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{
    Boundary, ConsumeRequest, PartitionStart, RecordFormat, StartPosition,
    consume_response::{Event, Records},
    start_position::Position,
};

use super::{
    produce::{positive, seconds},
    threads::{self, SharedTally},
};
use crate::{
    client::{ClientOptions, refused},
    commands::options::partition,
    failure::Failure,
    output::OutputOption,
    parse::size::size_at_least_one,
};

/// Measure how fast a broker serves stored records, as packed batches that are not unpacked
///
/// JSON: as for bench produce, without latency; bytes are those of the packed batches.
#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// Topic
    #[arg(long)]
    topic: String,
    /// Read from the start to the end once: the default
    #[arg(long, conflicts_with = "seconds")]
    to_end: bool,
    /// Read from the start to the end, again and again, for so long
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<f64>,
    /// Streams at the same time; each reads all partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    streams: usize,
    /// Threads of the client, each with its own connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    threads: usize,
    /// Only this partition
    #[arg(long, value_name = "N", value_parser = partition())]
    partition: Option<i32>,
    /// Size of a message of the stream
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size_at_least_one)]
    message_bytes: usize,
    #[command(flatten)]
    output: OutputOption,
}

impl Consume {
    pub(super) fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let request = self.request();
        let started = Instant::now();
        let seconds = self.seconds.filter(|_| !self.to_end);
        let until = seconds.map(|seconds| started + Duration::from_secs_f64(seconds));
        let tally = threads::run(options, self.threads, self.streams, |client, _, tally| {
            read(client, request.clone(), until, tally)
        })?;
        tally.report(started.elapsed()).finish(self.output.output)
    }

    fn request(&self) -> ConsumeRequest {
        ConsumeRequest {
            topic: self.topic.clone(),
            partitions: self
                .partition
                .iter()
                .map(|partition| PartitionStart {
                    partition: *partition,
                    start: None,
                })
                .collect(),
            start: Some(StartPosition {
                position: Some(Position::Boundary(Boundary::Earliest.into())),
            }),
            format: RecordFormat::Batches.into(),
            max_message_bytes: i32::try_from(self.message_bytes).unwrap_or(i32::MAX),
            ..Default::default()
        }
    }
}

/// Reads to the end, or again and again until the time is over.
async fn read(
    client: Client,
    request: ConsumeRequest,
    until: Option<Instant>,
    tally: SharedTally,
) -> Result<(), Failure> {
    let over = || until.is_some_and(|until| Instant::now() >= until);
    loop {
        let mut stream = client
            .consume_service()
            .consume(request.clone())
            .await
            .map_err(refused)?
            .into_inner();
        let mut records = 0;
        while let Some(message) = stream.message().await.map_err(refused)? {
            if let Some(Event::Records(message)) = message.event {
                let (count, bytes) = sizes(&message);
                records += count;
                tally.borrow_mut().count(count, bytes);
                if over() {
                    return Ok(());
                }
            }
        }
        // An empty topic would be read again without end and without a wait.
        if until.is_none() || over() || records == 0 {
            return Ok(());
        }
    }
}

fn sizes(message: &Records) -> (u64, u64) {
    let batches = message
        .batches
        .iter()
        .filter_map(|stored| stored.batch.as_ref());
    batches.fold((0, 0), |(records, bytes), batch| {
        (
            records + u64::from(batch.record_count.unsigned_abs()),
            bytes + batch.records.len() as u64,
        )
    })
}
