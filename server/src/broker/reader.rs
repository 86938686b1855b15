//! Readers of partitions, wherever they are led: from the replica here, or from the leader.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Bounds, Broker, Error, Fetch, Fetched, ReadBatch, Start,
    fetch::LocalReader,
    remote::{LEADERS_AT_ONCE, RemoteReader},
    route::Place,
};
use crate::types::Offset;

/// Reads one partition. Clones share where they read from.
#[derive(Clone)]
pub struct PartitionReader {
    broker: Broker,
    topic: Arc<str>,
    number: i32,
    source: Arc<Mutex<Source>>,
}

#[derive(Clone)]
enum Source {
    Here(LocalReader),
    There(RemoteReader),
}

impl Broker {
    /// Readers of some partitions of a topic; of all if none is named.
    pub async fn readers(
        &self,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<PartitionReader>, Error> {
        self.check_ready()?;
        let count = self.directory().topic(topic)?.slots().len();
        let numbers: Vec<i32> = if partitions.is_empty() {
            (0..).take(count).collect()
        } else {
            partitions.to_vec()
        };
        let opening = numbers.into_iter().map(|number| self.reader(topic, number));
        let readers = stream::iter(opening).buffered(LEADERS_AT_ONCE);
        readers.try_collect().await
    }

    async fn reader(&self, topic: &str, number: i32) -> Result<PartitionReader, Error> {
        let source = match self.place_of(topic, number).await? {
            Place::Here(partition) => {
                let metrics = Arc::clone(&self.shared.metrics);
                Source::Here(LocalReader::new(partition, metrics))
            }
            Place::There(..) | Place::Nowhere => {
                Source::There(RemoteReader::open(self.clone(), topic, number).await?)
            }
        };
        Ok(PartitionReader {
            broker: self.clone(),
            topic: topic.into(),
            number,
            source: Arc::new(Mutex::new(source)),
        })
    }

    /// Reads from one partition, waiting for records if there are none.
    pub async fn fetch(&self, call: Fetch) -> Result<Fetched, Error> {
        let started = Instant::now();
        let reader = self.reader(&call.topic, call.partition).await?;
        let fetched = match reader.source() {
            Source::Here(local) => match fetch_here(local, &call, started).await {
                // The replica here was moved away meanwhile.
                Err(Error::NotLeader { .. }) => reader.go_on_there().await?.fetch(&call).await?,
                fetched => fetched?,
            },
            Source::There(remote) => remote.fetch(&call).await?,
        };
        self.shared.metrics.fetch_answered(started.elapsed());
        Ok(fetched)
    }
}

async fn fetch_here(
    mut reader: LocalReader,
    call: &Fetch,
    started: Instant,
) -> Result<Fetched, Error> {
    let offset = reader.resolve(Start::Offset(call.offset)).await?;
    let deadline = started + call.max_wait;
    let fetched = reader.long_poll(offset, call, deadline).await?;
    reader.count(&fetched.batches);
    Ok(fetched)
}

impl PartitionReader {
    /// Number of the partition.
    pub fn partition(&self) -> u32 {
        self.number.unsigned_abs()
    }

    /// What there is to read, as far as the reader has seen.
    pub fn bounds(&self) -> Bounds {
        match self.source() {
            Source::Here(reader) => reader.bounds(),
            Source::There(reader) => reader.bounds(),
        }
    }

    /// The offset that a start means.
    pub async fn resolve(&self, start: Start) -> Result<Offset, Error> {
        match self.source() {
            Source::Here(reader) => match reader.resolve(start).await {
                Err(Error::NotLeader { .. }) => self.go_on_there().await?.resolve(start).await,
                resolved => resolved,
            },
            Source::There(reader) => reader.resolve(start).await,
        }
    }

    /// Committed batches from the one that holds `from`, while they begin below `to`; about `bytes_max` of them, but
    /// at least one if there is one.
    pub async fn read(
        &self,
        from: Offset,
        to: Offset,
        bytes_max: usize,
    ) -> Result<Vec<ReadBatch>, Error> {
        match self.source() {
            Source::Here(reader) => match reader.read(from, to, bytes_max).await {
                Err(Error::NotLeader { .. }) => {
                    let reader = self.go_on_there().await?;
                    reader.read(from, to, bytes_max).await
                }
                read => read,
            },
            Source::There(reader) => reader.read(from, to, bytes_max).await,
        }
    }

    /// Waits until there is a record behind `offset`, or `offset` is no longer there. Safe to cancel.
    pub async fn wait_for_end_above(&mut self, offset: Offset) -> Result<Bounds, Error> {
        match self.source() {
            Source::Here(mut reader) => match reader.wait_for_end_above(offset).await {
                Err(Error::NotLeader { .. }) => {
                    let reader = self.go_on_there().await?;
                    reader.wait_for_end_above(offset).await
                }
                waited => waited,
            },
            Source::There(reader) => reader.wait_for_end_above(offset).await,
        }
    }

    fn source(&self) -> Source {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.clone()
    }

    /// Reads from the leader from now on: the replica here was moved away.
    async fn go_on_there(&self) -> Result<RemoteReader, Error> {
        let reader = RemoteReader::open(self.broker.clone(), &self.topic, self.number).await?;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        *source = Source::There(reader.clone());
        Ok(reader)
    }
}
