//! `kelda consume`: records of a topic to standard output.

mod view;
mod writer;

use std::{future::poll_fn, pin::pin, task::Poll};

use clap::{Args, ValueEnum};
use kelda_client::{Consumer, Event};
use kelda_proto::v1::{ConsumeRequest, OutOfRangePolicy, PartitionStart, StartPosition};

use self::writer::Writer;
use crate::{
    client::ClientOptions,
    commands::options::partition,
    failure::{Exit, Failure},
    output::{Output, OutputOption},
    parse::{
        format::{Format, Located},
        start::start,
    },
};

/// Read records of a topic, from the start to the end unless told otherwise
///
/// With -o json each record is one object on one line: topic, partition, offset, timestamp_ms, key, value, headers
/// [{key, value}]. A key or value that is no UTF-8 text is null and stands in key_base64 or value_base64.
#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// Topic
    topic: String,
    /// Where to start: earliest, latest, an offset, or @ and a time (@2026-01-31T12:00:00Z, @1769860800000)
    #[arg(long, value_name = "PLACE", default_value = "earliest", value_parser = start)]
    from: StartPosition,
    /// Only this partition; may be repeated
    #[arg(long = "partition", short, value_name = "N", value_parser = partition())]
    partitions: Vec<i32>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    max: Option<u64>,
    /// Go on with new records at the end
    #[arg(long, short)]
    follow: bool,
    /// Fields: %k key, %v or %s value, %o offset, %p partition, %t topic, %h headers, %T timestamp in ms, %K and %V
    /// lengths, %% percent sign; escapes: \n \r \t \0 \\ \xNN [default: %v\n]
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse)]
    format: Option<Format>,
    /// What to do if the start is not in the log, or retention overtakes the reader
    #[arg(long, value_enum, default_value_t = OutOfRange::Fail, value_name = "WHAT")]
    on_out_of_range: OutOfRange,
    #[command(flatten)]
    output: OutputOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutOfRange {
    /// Fail.
    Fail,
    /// Go on at the oldest record.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// How a record is written.
enum Form {
    Text(Format),
    Json,
}

impl Consume {
    pub(crate) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let form = self.form()?;
        let client = options.connect().await?;
        let mut consumer = client.consume(self.request()).await?;
        let mut writer = Writer::new();
        let copied = tokio::select! {
            // Cancelled at any point: what has been gathered is whole records, and is flushed below.
            copied = self.copy(&form, &mut consumer, &mut writer) => copied,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        writer.flush().await?;
        copied
    }

    fn form(&self) -> Result<Form, Failure> {
        match (self.output.output, &self.format) {
            (Output::Json, Some(_)) => Err(Failure::new(
                Exit::Usage,
                "--format and -o json exclude each other",
            )),
            (Output::Json, None) => Ok(Form::Json),
            (Output::Text, format) => Ok(Form::Text(format.clone().unwrap_or_default())),
        }
    }

    fn request(&self) -> ConsumeRequest {
        let policy = match self.on_out_of_range {
            OutOfRange::Fail => OutOfRangePolicy::Fail,
            OutOfRange::Earliest => OutOfRangePolicy::Earliest,
            OutOfRange::Latest => OutOfRangePolicy::Latest,
        };
        let partitions = self.partitions.iter().map(|partition| PartitionStart {
            partition: *partition,
            start: None,
        });
        ConsumeRequest {
            topic: self.topic.clone(),
            partitions: partitions.collect(),
            start: Some(self.from),
            follow: self.follow,
            on_out_of_range: policy.into(),
            ..Default::default()
        }
    }

    /// Writes records until there are no more to come, enough are written or nobody reads them.
    async fn copy(
        &self,
        form: &Form,
        consumer: &mut Consumer,
        writer: &mut Writer,
    ) -> Result<(), Failure> {
        let mut left = self.max.unwrap_or(u64::MAX);
        while left > 0 && !writer.is_closed() {
            let Some(event) = next(consumer, writer).await? else {
                return Ok(());
            };
            match event {
                Event::Records {
                    partition, records, ..
                } => {
                    for consumed in records
                        .iter()
                        .take(usize::try_from(left).unwrap_or(usize::MAX))
                    {
                        let located = Located {
                            topic: &self.topic,
                            partition,
                            offset: consumed.offset,
                            record: &consumed.record,
                        };
                        form.write(&located, writer.buffer());
                        writer.step().await?;
                    }
                    left = left.saturating_sub(records.len() as u64);
                }
                Event::Gap {
                    partition,
                    from_offset,
                    to_offset,
                } => {
                    eprintln!(
                        "note: partition {partition} goes on at offset {to_offset} instead of {from_offset}"
                    );
                }
                Event::Heartbeat { .. } | Event::End { .. } => {}
            }
        }
        Ok(())
    }
}

impl Form {
    fn write(&self, located: &Located<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Text(format) => format.write(located, out),
            Self::Json => view::write(located, out),
        }
    }
}

/// The next event. If it is not there yet, what has been gathered is written while waiting for it.
async fn next(consumer: &mut Consumer, writer: &mut Writer) -> Result<Option<Event>, Failure> {
    let mut next = pin!(consumer.next());
    if let Poll::Ready(event) = poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
        return Ok(event?);
    }
    writer.flush().await?;
    Ok(next.await?)
}
