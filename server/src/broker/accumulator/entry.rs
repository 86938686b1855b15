//! Batches put into a command, and their answers when it has ended.

use bytes::BytesMut;
use kelda_proto::{
    batch::crc32c,
    internal::v1::{BatchHeader, PartitionCommand, partition_command},
    limits::BATCH_RECORDS_MAX,
};

use super::{Failure, Pending, Placed};
use crate::{
    consensus::{Command, Group, Proposal, ProposeError, Reply},
    machine::partition::{Outcome, Rejection},
    storage::Part,
    types::Offset,
};

/// A joined batch is closed at this size.
const JOINED_BYTES: usize = 128 << 10;

/// What is proposed at a time, and in which term.
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) command: Command,
    pub(super) batches: Vec<Proposed>,
}

/// A batch of an entry.
pub(super) struct Proposed {
    pending: Pending,
    /// The part of the entry that it is, or is in.
    part: usize,
    /// Records of the part in front of this batch's.
    records_before: u64,
}

/// What became of an entry.
pub(super) enum End {
    /// It was taken, or may have been. Its batches are answered, but for these, which lack one that should be in front.
    Answered(Vec<(Pending, Rejection)>),
    /// It was certainly not taken, since this node does not lead. Its batches are not answered.
    Refused(Vec<Pending>, ProposeError),
}

impl Entry {
    /// Puts batches into one command, small ones joined.
    pub(super) fn build(term: u64, taken: Vec<Pending>, append_time_ms: i64) -> Self {
        let mut open: Vec<Open> = Vec::new();
        let mut proposed = Vec::with_capacity(taken.len());
        for pending in taken {
            if !open.last().is_some_and(|last| last.takes(&pending)) {
                open.push(Open::new(&pending));
            }
            let part = open.len() - 1;
            let records_before = open[part].add(&pending, append_time_ms);
            proposed.push(Proposed {
                pending,
                part,
                records_before,
            });
        }
        let (batches, parts) = open.into_iter().map(Open::close).unzip();
        let append = partition_command::Append {
            append_time_ms,
            batches,
        };
        let command = PartitionCommand {
            command: Some(partition_command::Command::Append(append)),
        };
        Self {
            term,
            command: Command::partition(&command, parts),
            batches: proposed,
        }
    }
}

/// A part under construction: one batch, or several joined.
struct Open {
    header: BatchHeader,
    parts: Vec<Part>,
    bytes: usize,
    can_join: bool,
}

impl Open {
    /// An empty one that `first` may be added to.
    fn new(first: &Pending) -> Self {
        Self {
            header: BatchHeader {
                compression: first.batch.compression.into(),
                record_count: 0,
                max_timestamp_ms: 0,
                session: first.session.clone(),
                expected_offset: first.expected_offset,
            },
            parts: Vec::new(),
            bytes: 0,
            can_join: first.can_join(),
        }
    }

    fn takes(&self, pending: &Pending) -> bool {
        let records =
            self.header.record_count as usize + pending.batch.summary.record_count as usize;
        self.can_join
            && pending.can_join()
            && self.bytes + pending.bytes() <= JOINED_BYTES
            && records <= BATCH_RECORDS_MAX
    }

    /// Adds a batch; returns how many records are in front of it.
    fn add(&mut self, pending: &Pending, append_time_ms: i64) -> u64 {
        let before = self.header.record_count.into();
        let summary = &pending.batch.summary;
        self.bytes += pending.bytes();
        self.header.record_count += summary.record_count;
        self.header.max_timestamp_ms = self
            .header
            .max_timestamp_ms
            .max(summary.max_timestamp_seen_ms(append_time_ms));
        self.parts.push(Part {
            bytes: pending.batch.records.clone(),
            crc32c: pending.batch.crc32c,
        });
        before
    }

    /// The encodings of two record sets behind each other are the encoding of their concatenation.
    fn close(mut self) -> (BatchHeader, Part) {
        if self.parts.len() == 1
            && let Some(only) = self.parts.pop()
        {
            return (self.header, only);
        }
        let mut joined = BytesMut::with_capacity(self.bytes);
        for part in &self.parts {
            joined.extend_from_slice(&part.bytes);
        }
        let bytes = joined.freeze();
        let crc32c = crc32c(&bytes);
        (self.header, Part { bytes, crc32c })
    }
}

/// Waits for what becomes of an entry, and answers its batches unless it is refused.
pub(super) async fn answer(group: &Group, proposal: Proposal, batches: Vec<Proposed>) -> End {
    let outcome = tokio::select! {
        outcome = proposal.wait() => outcome,
        // Whether it is carried out after all is known once the others can be reached. Nobody should wait for that.
        () = group.left_alone() => Err(ProposeError::Indefinite),
    };
    let outcomes = match outcome {
        Ok(Reply::Partition(outcomes)) => outcomes,
        Ok(_) => return fail(batches, &ProposeError::Indefinite),
        Err(error) => return fail(batches, &error),
    };
    let mut gaps = Vec::new();
    for batch in batches {
        let result = match outcomes.get(batch.part) {
            Some(Outcome::Appended {
                base_offset,
                append_time_ms,
            }) => Ok(Placed {
                base_offset: Offset(base_offset.0 + batch.records_before),
                append_time_ms: *append_time_ms,
                duplicate: false,
            }),
            Some(Outcome::Duplicate {
                base_offset,
                append_time_ms,
                ..
            }) => Ok(Placed {
                base_offset: *base_offset,
                append_time_ms: *append_time_ms,
                duplicate: true,
            }),
            Some(Outcome::Rejected(gap @ Rejection::SequenceOutOfOrder { .. })) => {
                gaps.push((batch.pending, *gap));
                continue;
            }
            Some(Outcome::Rejected(rejection)) => Err(Failure::Rejected(*rejection)),
            None => Err(Failure::Propose(ProposeError::Indefinite)),
        };
        batch.pending.answer(result);
    }
    End::Answered(gaps)
}

/// The end of an entry that failed.
pub(super) fn fail(batches: Vec<Proposed>, error: &ProposeError) -> End {
    let batches = batches.into_iter().map(|batch| batch.pending);
    if matches!(error, ProposeError::NotLeader { .. }) {
        return End::Refused(batches.collect(), error.clone());
    }
    batches.for_each(|it| it.fail(Failure::Propose(error.clone())));
    End::Answered(Vec::new())
}
