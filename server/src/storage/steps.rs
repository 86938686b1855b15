//! Storage without a thread, for simulations: everything happens on the tasks of the caller, in one order.

use super::backend::redb::guarded;
use super::queue::{Change, Operation};
use super::types::{Config, Hooks};
use super::writer::Writer;
use super::{OpenError, Storage, open};

/// A mistake that the writer makes on purpose: whoever simulates must find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mistake {
    /// None.
    #[default]
    None,
    /// Everybody is told that their operations are durable one step before they are written.
    EarlyAnswer,
    /// Votes are never written, and said to be durable.
    LostVotes,
}

/// The writer of a storage, which works when it is told to.
pub struct Steps {
    /// `None` once it has failed.
    writer: Option<Writer>,
    mistake: Mistake,
    /// Answered, and not written yet.
    answered: Vec<Operation>,
}

impl Storage {
    /// As [`Storage::open_on`], but nothing is written until [`Steps::step`] is called.
    pub fn open_stepped(
        file: impl redb::StorageBackend,
        config: Config,
        hooks: Hooks,
        mistake: Mistake,
    ) -> Result<(Storage, Steps), OpenError> {
        let backend = open::open_on(file, &config)?;
        let writer = Storage::writer(Box::new(backend), config, hooks, true)?;
        let storage = Storage::on(writer.shared().clone(), None, None);
        let steps = Steps {
            writer: Some(writer),
            mistake,
            answered: Vec::new(),
        };
        Ok((storage, steps))
    }
}

impl Steps {
    /// Makes one transaction of what waits, as the thread does, if there is something that it would not leave waiting.
    /// Returns whether there was.
    pub fn step(&mut self) -> bool {
        let Some(mut writer) = self.writer.take() else {
            return false;
        };
        if !writer.is_due() && self.answered.is_empty() {
            self.writer = Some(writer);
            return false;
        }
        let mut batch = std::mem::take(&mut self.answered);
        let stepped = guarded(|| {
            if !batch.is_empty() {
                writer.commit(&mut batch)?;
            }
            writer.take(&mut batch);
            match self.mistake {
                Mistake::None => {}
                Mistake::EarlyAnswer => {
                    answer(&mut batch);
                    self.answered.append(&mut batch);
                    return Ok(());
                }
                Mistake::LostVotes => batch.iter_mut().for_each(lose_vote),
            }
            writer.commit(&mut batch)
        });
        match stepped {
            Ok(()) => self.writer = Some(writer),
            Err(error) => writer.fail(batch, error),
        }
        true
    }
}

fn answer(batch: &mut [Operation]) {
    for operation in batch {
        if let Some(done) = operation.done.take() {
            done(Ok(()));
        }
    }
}

fn lose_vote(operation: &mut Operation) {
    if matches!(operation.change, Some((_, Change::Vote(_)))) {
        operation.change = None;
    }
}
