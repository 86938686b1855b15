//! `kelda bench latency`.

use std::{rc::Rc, time::Instant};

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{
    Acks, ProduceRequest, Record, produce_stream_request::Append, produce_stream_response::ack,
};

use super::{
    options::TopicOptions, payload, produce::positive, report::Tally, stream::AppendStream,
};
use crate::{
    arguments::block_on,
    client::{ClientOptions, refused},
    commands::options::partition,
    failure::Failure,
    output::OutputOption,
    parse::size::size_at_least_one,
};

/// Measure the time from sending one record to its ack, one record at a time
///
/// JSON: as for bench produce.
#[derive(Debug, Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    topic: TopicOptions,
    /// Size of a record's value
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size_at_least_one)]
    record_bytes: usize,
    /// Records to measure
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = positive)]
    count: usize,
    /// Records to send before that
    #[arg(long, value_name = "N", default_value_t = 100)]
    warm_up: usize,
    /// Send each record with a call of its own instead of over a stream
    #[arg(long)]
    unary: bool,
    /// Partition
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = partition())]
    partition: i32,
    #[command(flatten)]
    output: OutputOption,
}

impl Latency {
    pub(super) fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        block_on(async {
            let client = options.connect().await?;
            self.topic.prepare(&client).await?;
            let mut tally = Tally::new();
            let mut sender = self.sender(&client).await?;
            let record = payload::record(self.record_bytes, 1, false);
            for _ in 0..self.warm_up {
                sender.send(record.clone()).await?;
            }
            let started = Instant::now();
            for _ in 0..self.count {
                let sent = Instant::now();
                match sender.send(record.clone()).await {
                    Ok(()) => {
                        tally.count(1, self.record_bytes as u64);
                        tally.latency(sent.elapsed());
                    }
                    Err(failure) => {
                        tally.error(failure.to_string());
                        break;
                    }
                }
            }
            tally.report(started.elapsed()).finish(self.output.output)
        })
    }

    async fn sender(&self, client: &Client) -> Result<Sender, Failure> {
        let request = ProduceRequest {
            topic: self.topic.topic.clone(),
            partition: Some(self.partition),
            acks: Acks::Quorum.into(),
            ..Default::default()
        };
        Ok(if self.unary {
            Sender::Unary(client.clone(), Rc::new(request))
        } else {
            Sender::Stream(
                Box::new(AppendStream::open(client, &self.topic.topic, 1).await?),
                self.partition,
            )
        })
    }
}

/// Sends one record and waits for its ack.
enum Sender {
    Unary(Client, Rc<ProduceRequest>),
    Stream(Box<AppendStream>, i32),
}

impl Sender {
    async fn send(&mut self, record: Record) -> Result<(), Failure> {
        let records = vec![record];
        match self {
            Self::Unary(client, request) => {
                let request = ProduceRequest {
                    records,
                    ..ProduceRequest::clone(request)
                };
                client
                    .produce_service()
                    .produce(request)
                    .await
                    .map_err(refused)?;
                Ok(())
            }
            Self::Stream(stream, partition) => {
                stream.send(Append {
                    partition: Some(*partition),
                    records,
                    ..Default::default()
                })?;
                match stream.ack().await?.result {
                    Some(ack::Result::Ok(_)) => Ok(()),
                    Some(ack::Result::Error(error)) => Err(Failure::failed(error.message)),
                    None => Err(Failure::failed("the broker sent an ack without a result")),
                }
            }
        }
    }
}
