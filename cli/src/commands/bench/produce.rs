//! `kelda bench produce`.

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use kelda_proto::v1::{
    Acks, Compression as WireCompression, ProduceRequest, produce_stream_request::Append,
};

use super::{
    options::TopicOptions,
    payload,
    report::{Tally, Window},
    stream, threads, unary,
};
use crate::{
    arguments::block_on,
    client::ClientOptions,
    commands::options::{Compression, partition},
    failure::Failure,
    output::OutputOption,
    parse::{duration::duration, size::size_at_least_one},
};

/// Measure how fast a broker takes records
///
/// JSON: records, bytes (of the records' values), seconds, records_per_second, bytes_per_second, latency_ms {p50,
/// p90, p99, p999, max}, records_total and bytes_total (with warm-up and end), errors, first_error.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    topic: TopicOptions,
    /// batch: packed batches over streams; unary: one record in each call
    #[arg(long, value_enum, default_value_t = Mode::Batch)]
    mode: Mode,
    /// Size of a record's value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size_at_least_one)]
    record_bytes: usize,
    /// Size of a batch's values, in mode batch
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = size_at_least_one)]
    batch_bytes: usize,
    /// Batches of a stream that are not yet acknowledged, in mode batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    in_flight: usize,
    /// Producers at work at the same time: streams or callers [default: 1 in mode batch, 200 in mode unary]
    #[arg(long, value_name = "N", value_parser = positive)]
    producers: Option<usize>,
    /// Threads of the client, each with its own connections
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = positive)]
    threads: usize,
    /// Partition [default: stream by stream in turn, or the broker's choice in mode unary]
    #[arg(long, value_name = "N", value_parser = partition())]
    partition: Option<i32>,
    /// Compression of the batches, in mode batch
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// How long to measure
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    #[command(flatten)]
    output: OutputOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Batch,
    Unary,
}

impl Produce {
    pub(super) fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        block_on(async { self.topic.prepare(&options.connect().await?).await })?;
        let window = Window::after(self.warm_up, Duration::from_secs_f64(self.seconds));
        let tally = match self.mode {
            Mode::Batch => self.batches(options, window)?,
            Mode::Unary => self.calls(options, window)?,
        };
        tally.report(window.length()).finish(self.output.output)
    }

    fn batches(&self, options: &ClientOptions, window: Window) -> Result<Tally, Failure> {
        let compression = WireCompression::from(self.compression);
        let batch = payload::packed(self.record_bytes, self.batch_bytes, compression)?;
        let records = batch.record_count as u64;
        let load = Arc::new(stream::Load {
            topic: self.topic.topic.clone(),
            append: Append {
                partition: self.partition,
                batch: Some(batch),
                ..Default::default()
            },
            records,
            bytes: records * self.record_bytes as u64,
            in_flight: self.in_flight,
            window,
        });
        let producers = self.producers.unwrap_or(1);
        threads::run(options, self.threads, producers, |client, number, tally| {
            stream::produce(client, number, Arc::clone(&load), tally)
        })
    }

    fn calls(&self, options: &ClientOptions, window: Window) -> Result<Tally, Failure> {
        let load = Arc::new(unary::Load {
            request: ProduceRequest {
                topic: self.topic.topic.clone(),
                partition: self.partition,
                records: vec![payload::record(self.record_bytes, 1, false)],
                acks: Acks::Quorum.into(),
                ..Default::default()
            },
            bytes: self.record_bytes as u64,
            window,
        });
        let producers = self.producers.unwrap_or(200);
        threads::run(options, self.threads, producers, |client, _, tally| {
            unary::produce(client, Arc::clone(&load), tally)
        })
    }
}

/// A number of at least 1.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

/// A time between a millisecond and a day.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds between 0.001 and 86400".to_owned())
}
