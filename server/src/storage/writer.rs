//! The writer thread: takes what waits in the queue, makes one transaction of it, and tells everybody who waited.
//!
//! Nothing else writes. Operations reach the disk in the order of the queue; callbacks fire in that order, after the
//! commit. An error ends it all: nothing is acknowledged after a failed write.

mod changes;
mod evict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Error;
use super::backend::Write;
use super::backend::redb::guarded;
use super::keys::Pending;
use super::queue::{Change, Operation, Taken};
use super::store::Shared;
use super::sweep::{self, Step};
use super::types::CommitReport;
use crate::types::GroupId;
use evict::Recency;

/// Bytes of operations in one transaction, about.
const TRANSACTION_BYTES: usize = 8 << 20;
/// Bytes that one step of a deletion takes out, about: twice what is written beside it, so that deletions keep up with
/// appends, within these bounds. The most, if nothing is written.
const SWEEP_BYTES_MIN: usize = 1 << 20;
const SWEEP_BYTES_MAX: usize = 8 << 20;

/// State of the writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    recency: Recency,
    sweeps: BTreeMap<GroupId, Sweep>,
}

/// A deletion under way.
#[derive(Default)]
struct Sweep {
    pending: Pending,
    waiting: Vec<Operation>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, unfinished: Vec<(GroupId, Pending)>) -> Writer {
        let sweeps = unfinished.into_iter().map(|(group, pending)| {
            let waiting = Vec::new();
            (group, Sweep { pending, waiting })
        });
        Writer {
            sweeps: sweeps.collect(),
            recency: Recency::default(),
            shared,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// As [`Writer::run`]; a panic of ours counts as a failed write, because the queue would never move again.
    pub(super) fn run_guarded(self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let mut told = false;
        let result = guarded(|| {
            let result = self.run();
            told = true;
            result
        });
        if let (false, Err(error)) = (told, &result) {
            shared.fail(error.clone());
        }
        result
    }

    /// Works until the queue is closed and empty, then closes the database.
    fn run(mut self) -> Result<(), Error> {
        let mut batch = Vec::new();
        loop {
            let hurry = !self.sweeps.is_empty();
            let taken = self.shared.queue.take(&mut batch, TRANSACTION_BYTES, hurry);
            if taken == Taken::End {
                for sweep in std::mem::take(&mut self.sweeps).into_values() {
                    // It goes on at the next start.
                    sweep
                        .waiting
                        .into_iter()
                        .for_each(|operation| operation.finish(Err(Error::Closed)));
                }
                return self.shared.backend.close();
            }
            if let Err(error) = self.commit(&mut batch) {
                self.fail(batch, error.clone());
                return Err(error);
            }
        }
    }

    /// Whether there is something to write now.
    #[cfg(feature = "simulation")]
    pub(super) fn is_due(&self) -> bool {
        !self.sweeps.is_empty() || self.shared.queue.is_ready()
    }

    /// Takes what the next transaction is made of, without waiting.
    #[cfg(feature = "simulation")]
    pub(super) fn take(&self, batch: &mut Vec<Operation>) {
        self.shared.queue.take(batch, TRANSACTION_BYTES, true);
    }

    /// Writes the operations of `batch`, and a step of a deletion if one is pending, and tells who waited.
    pub(super) fn commit(&mut self, batch: &mut Vec<Operation>) -> Result<(), Error> {
        self.finish_deletions_in_the_way(batch)?;
        let bytes: usize = batch.iter().map(|operation| operation.bytes).sum();
        let step = self.plan(match bytes {
            0 => SWEEP_BYTES_MAX,
            bytes => bytes
                .saturating_mul(2)
                .clamp(SWEEP_BYTES_MIN, SWEEP_BYTES_MAX),
        })?;
        let mut report = CommitReport {
            operations: batch.len() as u64,
            ..CommitReport::default()
        };
        if step.is_some() || batch.iter().any(|operation| operation.change.is_some()) {
            let started = Instant::now();
            self.shared.backend.write(&mut |write| {
                // The step first: it may end a deletion that an operation of the batch begins anew.
                run_step(write, step.as_ref())?;
                for operation in batch.iter() {
                    changes::write(write, operation, &mut report)?;
                }
                Ok(())
            })?;
            report.duration = started.elapsed();
            (self.shared.hooks.on_commit)(report);
        }
        if let Some(step) = step {
            self.stepped(&step);
        }
        for operation in batch.drain(..) {
            self.finish(operation);
        }
        self.recency.evict(&self.shared);
        Ok(())
    }

    /// A group that is written to again, while rows of its deleted former self are on disk, has to wait for them.
    fn finish_deletions_in_the_way(&mut self, batch: &[Operation]) -> Result<(), Error> {
        for operation in batch {
            let Some((group, change)) = &operation.change else {
                continue;
            };
            while !matches!(change, Change::Delete { .. })
                && self
                    .sweeps
                    .get(&group.id)
                    .is_some_and(|sweep| sweep.pending == Pending::Delete)
            {
                let step = self.plan_for(group.id, Pending::Delete, SWEEP_BYTES_MAX)?;
                self.shared
                    .backend
                    .write(&mut |write| run_step(write, Some(&step)))?;
                self.stepped(&step);
            }
        }
        Ok(())
    }

    fn plan(&self, bytes_max: usize) -> Result<Option<Step>, Error> {
        let Some((group, sweep)) = self.sweeps.first_key_value() else {
            return Ok(None);
        };
        self.plan_for(*group, sweep.pending, bytes_max).map(Some)
    }

    fn plan_for(&self, group: GroupId, pending: Pending, bytes_max: usize) -> Result<Step, Error> {
        let mut step = None;
        self.shared.backend.read(&mut |view| {
            step = Some(sweep::plan(view, group, pending, bytes_max)?);
            Ok(())
        })?;
        step.ok_or_else(|| Error::damaged("a deletion could not be planned"))
    }

    fn stepped(&mut self, step: &Step) {
        if step.last
            && let Some(sweep) = self.sweeps.remove(&step.group)
        {
            for operation in sweep.waiting {
                operation.finish(Ok(()));
            }
        }
    }

    /// Notes that an operation is on disk and tells who waited.
    fn finish(&mut self, operation: Operation) {
        if let Some((group, change)) = &operation.change {
            group.with(|tail| tail.durable(operation.sequence));
            match change {
                Change::Append(_) | Change::Apply(_) => self.recency.touch(group),
                Change::Purge { .. } => {
                    self.sweeps.entry(group.id).or_default();
                }
                Change::Delete { .. } => {
                    self.recency.forget(group.id);
                    let sweep = self.sweeps.entry(group.id).or_default();
                    sweep.pending = Pending::Delete;
                    sweep.waiting.push(operation);
                    return;
                }
                Change::Vote(_) | Change::Truncate(_) => {}
            }
        }
        operation.finish(Ok(()));
    }

    /// Tells the process first, then everybody who waits.
    pub(super) fn fail(self, batch: Vec<Operation>, error: Error) {
        let error = self.shared.fail(error);
        let sweeping = self.sweeps.into_values().flat_map(|sweep| sweep.waiting);
        for operation in batch.into_iter().chain(sweeping) {
            operation.finish(Err(error.clone()));
        }
    }
}

fn run_step(write: &mut dyn Write, step: Option<&Step>) -> Result<(), Error> {
    step.map_or(Ok(()), |step| sweep::run(write, step))
}
