//! Produce: check, choose partitions, queue in front of the groups, wait for the commit.

use std::{sync::Arc, time::Instant};

use kelda_proto::{
    internal::v1::SessionStamp,
    limits::{SESSION_ID_BYTES_MAX, SESSION_RECENT_MAX, STREAM_WINDOW},
};
use tokio::sync::oneshot;

use super::{
    Acks, Broker, Error, PartitionProduced, Produce, Produced, StreamTerms, Violation,
    accumulator::{Answer, Failure, Pending, Placed},
    directory::{NotOpen, TopicHandle},
    partition::{Partition, unavailable},
    route::ROUTE_TIMEOUT,
    validate::{self, Share},
};
use crate::{
    machine::{catalog::Topic, partition::Rejection},
    telemetry::Metrics,
};

/// Bytes that a batch counts for at least, so that a flood of tiny ones is bounded too.
const PERMIT_BYTES_MIN: usize = 512;

/// How far a produce may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// To the leaders of its partitions.
    Cluster,
    /// No further: another node has handed it on.
    Here,
}

/// A produce whose place in its partitions is fixed, and which is not yet acknowledged.
#[must_use]
pub struct PendingProduce {
    shares: Vec<PendingShare>,
    acks: Acks,
    session: Option<SessionStamp>,
    expected_offset: Option<i64>,
    started: Instant,
    metrics: Arc<Metrics>,
}

struct PendingShare {
    topic: Arc<Topic>,
    number: u32,
    record_count: u32,
    bytes: usize,
    record_indexes: Vec<u32>,
    answer: Answer,
}

/// Where a batch is queued.
enum Target {
    /// In front of the group of a partition that this node led in this term.
    Here(Arc<Partition>, u64),
    /// Decided when it is queued: in front of the group of this partition if it is led here, else it is handed on.
    Cluster(Option<Arc<Partition>>),
}

impl Broker {
    /// Checks and queues a produce. When this returns, its records are behind those of every earlier produce to the
    /// same partition whose `begin_produce` had returned.
    pub async fn begin_produce(&self, call: Produce) -> Result<PendingProduce, Error> {
        self.begin(call, Reach::Cluster).await
    }

    /// As [`Broker::begin_produce`], only if this node leads the partitions.
    pub async fn begin_produce_here(&self, call: Produce) -> Result<PendingProduce, Error> {
        self.begin(call, Reach::Here).await
    }

    async fn begin(&self, call: Produce, reach: Reach) -> Result<PendingProduce, Error> {
        let started = Instant::now();
        self.check_ready()?;
        check_call(&call)?;
        let directory = self.directory();
        let topic = directory.topic(&call.topic)?;
        let partition = call
            .partition
            .map(|number| topic.slot(number).map(|_| number.unsigned_abs()));
        let shares = validate::shares(topic, partition.transpose()?, call.content).await?;
        let session = call.session.map(|session| SessionStamp {
            id: session.id,
            epoch: session.epoch,
            sequence: session.sequence,
        });
        let shares = self
            .queue(topic, shares, session.as_ref(), call.expected_offset, reach)
            .await?;
        Ok(PendingProduce {
            shares,
            acks: call.acks,
            session,
            expected_offset: call.expected_offset,
            started,
            metrics: Arc::clone(&self.shared.metrics),
        })
    }

    async fn queue(
        &self,
        topic: &TopicHandle,
        shares: Vec<Share>,
        session: Option<&SessionStamp>,
        expected_offset: Option<i64>,
        reach: Reach,
    ) -> Result<Vec<PendingShare>, Error> {
        let targets = shares
            .into_iter()
            .map(|share| Ok((self.target(topic, share.partition, reach)?, share)))
            .collect::<Result<Vec<_>, Error>>()?;
        let bytes: usize = targets
            .iter()
            .map(|(_, share)| share.batch.records.len().max(PERMIT_BYTES_MIN))
            .sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // What other nodes hand on waits for room of its own: two nodes that hand on to each other would else wait for
        // each other's.
        let in_flight = Arc::clone(match reach {
            Reach::Cluster => &self.shared.in_flight,
            Reach::Here => &self.shared.handed_in_flight,
        });
        let permit = in_flight
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| Error::NotReady)?;
        // Only now: the disk may fill up while this waits. What is handed on goes to another one.
        if targets.iter().any(|(target, _)| target.is_here()) {
            self.shared.disk.check_writable()?;
        }
        let permit = Arc::new(permit);
        let queue_share = |(target, share): (Target, Share)| {
            let (sender, answer) = oneshot::channel();
            let number = share.partition;
            let pending_share = PendingShare {
                topic: Arc::clone(&topic.topic),
                number,
                record_count: share.batch.summary.record_count,
                bytes: share.batch.records.len(),
                record_indexes: share.record_indexes,
                answer,
            };
            let pending = Pending {
                batch: share.batch,
                session: session.cloned(),
                expected_offset,
                answer: sender,
                permit: Arc::clone(&permit),
                deadline: tokio::time::Instant::now() + ROUTE_TIMEOUT,
                broker: (reach == Reach::Cluster).then(|| self.clone()),
            };
            match target {
                Target::Here(partition, term) => partition.accumulator.submit(pending, term),
                Target::Cluster(here) => {
                    let key = (topic.topic.name.as_str(), number);
                    self.enqueue(key, here.as_deref(), pending);
                }
            }
            pending_share
        };
        Ok(targets.into_iter().map(queue_share).collect())
    }

    fn target(&self, topic: &TopicHandle, number: u32, reach: Reach) -> Result<Target, Error> {
        let here = match topic.slot(number.cast_signed())? {
            Ok(partition) => Some(Arc::clone(partition)),
            Err(NotOpen::Elsewhere) => None,
            // With other replicas the partition may be led by one of them.
            Err(_) if topic.replica_count(number) > 1 => None,
            Err(_) => Some(Arc::clone(topic.partition(number.cast_signed())?)),
        };
        if reach == Reach::Cluster {
            return Ok(Target::Cluster(here));
        }
        let here = here.ok_or_else(|| self.not_led(topic, number))?;
        // The term first: if the lead is lost and won again in between, what came in the old one is refused.
        let term = here.group.group().term();
        if !here.may_lead() {
            return Err(self.not_led(topic, number));
        }
        Ok(Target::Here(here, term))
    }

    /// What a produce stream to `topic` may do, and, if that is `asked`, what its session has done.
    pub async fn produce_stream_terms(
        &self,
        topic: &str,
        session: Option<(&str, i32)>,
        asked: bool,
    ) -> Result<StreamTerms, Error> {
        self.check_ready()?;
        if let Some((id, epoch)) = session {
            check_session(id, epoch).map_err(|violation| Error::InvalidFields(vec![violation]))?;
        }
        let directory = self.directory();
        let topic = directory.topic(topic)?;
        let last_sequences = match session {
            Some((id, epoch)) if asked => self.last_sequences(topic, id, epoch).await?,
            _ => Vec::new(),
        };
        Ok(StreamTerms {
            window: if session.is_some() {
                SESSION_RECENT_MAX
            } else {
                STREAM_WINDOW
            },
            partition_count: topic.partition_count(),
            last_sequences,
        })
    }
}

fn check_session(id: &str, epoch: i32) -> Result<(), Violation> {
    if id.is_empty() || id.len() > SESSION_ID_BYTES_MAX {
        return Err(Violation::new(
            "session.id",
            format!("must have 1 to {SESSION_ID_BYTES_MAX} bytes"),
        ));
    }
    if epoch < 0 {
        return Err(Violation::new("session.epoch", "must not be negative"));
    }
    Ok(())
}

/// The bounds that do not depend on the topic, all at once.
fn check_call(call: &Produce) -> Result<(), Error> {
    let mut violations = Vec::new();
    let mut require = |holds: bool, field: &str, message: &str| {
        if !holds {
            violations.push(Violation::new(field, message));
        }
    };
    if let Some(session) = &call.session {
        require(
            call.partition.is_some(),
            "partition",
            "is needed with a session",
        );
        require(
            call.acks == Acks::Quorum,
            "acks",
            "must be ACKS_QUORUM with a session",
        );
        require(
            session.sequence >= 0,
            "session.sequence",
            "must not be negative",
        );
    }
    if let Some(expected) = call.expected_offset {
        require(
            call.partition.is_some(),
            "partition",
            "is needed with expected_offset",
        );
        require(expected >= 0, "expected_offset", "must not be negative");
    }
    if let Some(session) = &call.session {
        violations.extend(check_session(&session.id, session.epoch).err());
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidFields(violations))
    }
}

impl Target {
    /// Whether the disk of this node is written to, as it seems.
    fn is_here(&self) -> bool {
        match self {
            Self::Here(..) => true,
            Self::Cluster(here) => here.as_ref().is_some_and(|it| it.may_lead()),
        }
    }
}

impl PendingProduce {
    /// Waits until the records are as safe as `acks` says.
    ///
    /// An error of one partition's share does not undo the others.
    pub async fn wait(self) -> Result<Produced, Error> {
        let mut partitions = Vec::with_capacity(self.shares.len());
        let mut failure = None;
        let (mut records, mut bytes) = (0, 0);
        for share in self.shares {
            let placed = match self.acks {
                Acks::None => None,
                Acks::Quorum => match share.answer.await {
                    Ok(Ok(placed)) => Some(placed),
                    Ok(Err(error)) => {
                        failure.get_or_insert(explain(
                            (&share.topic.name, share.number),
                            error,
                            self.session.as_ref(),
                            self.expected_offset,
                        ));
                        continue;
                    }
                    Err(_) => {
                        failure.get_or_insert(Error::NotReady);
                        continue;
                    }
                },
            };
            records += u64::from(share.record_count);
            bytes += share.bytes as u64;
            partitions.push(produced(
                share.number,
                share.record_count,
                share.record_indexes,
                placed,
            ));
        }
        self.metrics
            .produced(records, bytes, self.started.elapsed());
        match failure {
            Some(error) => Err(error),
            None => Ok(Produced {
                partitions,
                acks: self.acks,
            }),
        }
    }
}

fn produced(
    partition: u32,
    record_count: u32,
    record_indexes: Vec<u32>,
    placed: Option<Placed>,
) -> PartitionProduced {
    PartitionProduced {
        partition,
        base_offset: placed.map(|placed| placed.base_offset),
        record_count,
        duplicate: placed.is_some_and(|placed| placed.duplicate),
        append_time_ms: placed.map_or(0, |placed| placed.append_time_ms),
        record_indexes,
    }
}

fn explain(
    place: (&str, u32),
    failure: Failure,
    session: Option<&SessionStamp>,
    expected_offset: Option<i64>,
) -> Error {
    let rejection = match failure {
        Failure::Propose(error) => return unavailable(place, &error),
        Failure::Broker(error) => return *error,
        Failure::Rejected(rejection) => rejection,
    };
    let stamp = || session.cloned().unwrap_or_default();
    match rejection {
        Rejection::UnexpectedOffset { next_offset } => Error::ExpectedOffsetMismatch {
            expected: expected_offset.unwrap_or_default(),
            next: next_offset,
        },
        Rejection::Fenced { current_epoch } => {
            let SessionStamp { id, epoch, .. } = stamp();
            Error::ProducerFenced {
                session: id,
                epoch,
                current_epoch,
            }
        }
        Rejection::SequenceOutOfOrder { expected_sequence } => {
            let SessionStamp { id, sequence, .. } = stamp();
            Error::SequenceOutOfOrder {
                session: id,
                sequence,
                expected_sequence,
            }
        }
        Rejection::DuplicateForgotten { last_sequence } => {
            let SessionStamp { id, sequence, .. } = stamp();
            Error::SequenceOutOfOrder {
                session: id,
                sequence,
                expected_sequence: last_sequence.saturating_add(1),
            }
        }
        Rejection::Malformed => Error::Internal {
            detail: "a proposed batch was malformed".to_owned(),
        },
    }
}
