//! `kelda produce`: lines to records of a topic.

mod input;
mod lines;
mod progress;
mod record;
mod summary;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use kelda_client::{Producer, ProducerOptions};
use kelda_proto::{
    limits::BATCH_BYTES_DEFAULT,
    v1::{Acks as WireAcks, Header, Record},
};
use tokio::time::{MissedTickBehavior, interval};

use self::{
    input::{Blocks, Input},
    progress::Progress,
    record::Template,
    summary::{Counts, Stop},
};
use crate::{
    client::ClientOptions,
    commands::options::Compression,
    failure::Failure,
    output::OutputOption,
    parse::{duration::duration, format::unescape, header::header, size::size_at_least_one},
};

/// How often it is looked whether records have failed, and the progress is shown, while input is slow.
const TICK: Duration = Duration::from_millis(250);

/// Write lines as records of a topic, and wait until all are acknowledged
///
/// Each line is the value of a record, without its line feed. Ends at the first failure. The summary goes to
/// standard error, or with -o json to standard output: topic, sent, acknowledged, failed (not written, or that is
/// not known), seconds, bytes (of keys and values sent), error.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// Topic
    topic: String,
    /// Read this file instead of standard input
    #[arg(long, short = 'F', value_name = "FILE")]
    file: Option<PathBuf>,
    /// Key of every record
    #[arg(long, short, value_name = "KEY")]
    key: Option<String>,
    /// What separates key and value in a line; \t is a tab. A line without it has the key of --key, or none
    #[arg(long, short = 'K', value_name = "SEPARATOR", value_parser = separator)]
    key_separator: Option<Bytes>,
    /// Header of every record; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<Header>,
    /// Write to this partition only [default: by key; without key in turn, a batch at a time]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    partition: Option<u32>,
    /// What to wait for: fsync on a majority of the replicas, or only the leader's memory
    #[arg(long, value_enum, default_value_t = Acks::Quorum, value_name = "ACKS")]
    acks: Acks,
    /// Compression of batches
    #[arg(long, value_enum, default_value_t = Compression::None, value_name = "KIND")]
    compression: Compression,
    /// Size of a full batch before compression
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = batch_size)]
    batch_bytes: usize,
    /// How long to try to get a record acknowledged, over lost connections and restarts of the broker
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    delivery_timeout: Duration,
    #[command(flatten)]
    output: OutputOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    Quorum,
    None,
}

impl Produce {
    pub(crate) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let input = Input::open(self.file.as_deref())?;
        let client = options.connect().await?;
        let producer = client
            .producer(&self.topic, self.producer_options())
            .await?;
        let mut progress = Progress::new(input.bytes);
        let mut counts = Counts::start();
        let stop = send(
            input.read(self.template()),
            &producer,
            &mut counts,
            &mut progress,
        )
        .await;
        let settled = tokio::select! {
            // A failure shows in the summary too, where it is counted.
            _ = producer.flush() => stop,
            _ = tokio::signal::ctrl_c() => Stop::Interrupted,
        };
        progress.finish();
        counts
            .end(&self.topic, producer.summary(), settled)
            .finish(self.output.output)
    }

    fn producer_options(&self) -> ProducerOptions {
        ProducerOptions {
            partition: self.partition,
            acks: match self.acks {
                Acks::Quorum => WireAcks::Quorum,
                Acks::None => WireAcks::None,
            },
            compression: self.compression.into(),
            batch_bytes: self.batch_bytes,
            delivery_timeout: self.delivery_timeout,
            ..ProducerOptions::default()
        }
    }

    fn template(&self) -> Template {
        Template {
            key: self.key.clone().map(Bytes::from),
            separator: self.key_separator.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// Sends blocks until there are no more, or something stops it.
async fn send(
    mut blocks: Blocks,
    producer: &Producer,
    counts: &mut Counts,
    progress: &mut Progress,
) -> Stop {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let block = tokio::select! {
            // Each branch may be cancelled: a block is either taken or still in the channel.
            block = blocks.recv() => block,
            _ = tick.tick() => Some(Ok(Vec::new())),
            _ = &mut interrupt => return Stop::Interrupted,
        };
        let posted = match block {
            None => return Stop::End,
            Some(Err(error)) => return Stop::input(&error),
            Some(Ok(records)) => tokio::select! {
                // Cancelled only to end: what was posted is counted by the producer, the rest was never sent.
                posted = post(records, producer, counts) => posted,
                _ = &mut interrupt => return Stop::Interrupted,
            },
        };
        if let Err(stop) = posted {
            return stop;
        }
        // With their line feeds, so that the end of a file is the end of the bar.
        progress.update(counts.bytes + counts.lines, counts.lines);
        if producer.summary().failed > 0 {
            return Stop::End;
        }
    }
}

/// Hands records to the producer, as fast as it takes them.
async fn post(records: Vec<Record>, producer: &Producer, counts: &mut Counts) -> Result<(), Stop> {
    for record in records {
        producer
            .post(&record)
            .await
            .map_err(|error| Stop::refused(counts.lines + 1, error))?;
        counts.sent(&record);
    }
    Ok(())
}

fn separator(text: &str) -> Result<Bytes, String> {
    unescape(text).and_then(|bytes| {
        if bytes.is_empty() {
            Err("must not be empty".to_owned())
        } else {
            Ok(bytes)
        }
    })
}

fn batch_size(text: &str) -> Result<usize, String> {
    let fits = |bytes: &usize| *bytes <= BATCH_BYTES_DEFAULT;
    let size = size_at_least_one(text)?;
    Some(size)
        .filter(fits)
        .ok_or_else(|| format!("must be at most {BATCH_BYTES_DEFAULT}"))
}
