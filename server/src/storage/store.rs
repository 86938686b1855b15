//! The room's front door: one storage a node.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::backend::Backend;
use super::backend::redb::guarded;
use super::group::GroupStore;
use super::queue::{Change, Operation, Queue};
use super::tail::Group;
use super::types::{Config, Done, Hooks, Status};
use super::writer::Writer;
use super::{Error, OpenError, open, reader, sweep};
use crate::types::GroupId;

/// The logs and states of all groups of a node. Cheap to clone; everything ends with [`Storage::close`], or when the
/// last clone and the last [`GroupStore`] are dropped.
#[derive(Clone)]
pub struct Storage {
    pub(super) handle: Arc<Handle>,
}

/// What handles and the writer thread share.
pub(super) struct Shared {
    pub(super) backend: Box<dyn Backend>,
    pub(super) queue: Queue,
    pub(super) config: Config,
    pub(super) hooks: Hooks,
    /// Memory of the tails of all groups.
    pub(super) tail_used: Arc<AtomicUsize>,
    /// The error that ended storage.
    pub(super) failure: OnceLock<Error>,
    /// There is no thread: a simulation writes step by step, and reads run on the task that asks.
    pub(super) stepped: bool,
}

impl Shared {
    /// Ends storage after an error of the disk: tells the process, once, then everybody who waits in the queue. Gives
    /// back what they were told.
    pub(super) fn fail(&self, error: Error) -> Error {
        let error = error.into_failed();
        let first = self.failure.set(error.clone()).is_ok();
        let rest = self.queue.fail(error.clone());
        if first {
            (self.hooks.on_fatal)(&error);
        }
        for operation in rest {
            operation.finish(Err(error.clone()));
        }
        error
    }
}

/// What every handle holds; when the last one goes, the writer ends.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    groups: Mutex<HashMap<GroupId, Arc<Group>>>,
    writer: Mutex<Option<JoinHandle<Result<(), Error>>>>,
    closed: AtomicBool,
    /// Held as long as the database is open, see `open.rs`.
    lock: Option<File>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close(Error::Closed);
    }
}

impl Handle {
    /// Fails once [`Storage::close`] was called or the disk failed.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        if let Some(error) = self.shared.failure.get() {
            return Err(error.clone());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Queues a change of `group`. `prepare` changes what is in memory, in the same order as the queue; it may refuse.
    /// If this fails, `done` was told.
    pub(super) async fn submit(
        &self,
        target: Option<(Arc<Group>, Change)>,
        bytes: usize,
        done: Option<Done>,
        prepare: impl FnOnce(&mut super::tail::Tail, &Change, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let queue = &self.shared.queue;
        let room = match queue.reserve(bytes).await {
            Ok(room) => room,
            Err(error) => {
                if let Some(done) = done {
                    done(Err(error.clone()));
                }
                return Err(error);
            }
        };
        let mut operation = Operation {
            change: None,
            sequence: 0,
            bytes,
            done,
            _room: room,
        };
        let pushed = match target {
            None => queue.push(operation),
            Some((group, change)) => group.clone().with(|tail| {
                let sequence = tail.next_sequence();
                let prepared = tail
                    .check(group.id)
                    .and_then(|()| prepare(tail, &change, sequence));
                operation.sequence = sequence;
                operation.change = Some((group, change));
                match prepared {
                    Ok(()) => queue.push(operation),
                    Err(error) => Err(Box::new((operation, error))),
                }
            }),
        };
        pushed.map_err(|refused| {
            let (operation, error) = *refused;
            operation.finish(Err(error.clone()));
            error
        })
    }

    /// As [`Handle::submit`], and waits until the change is durable.
    pub(super) async fn submit_durable(
        &self,
        target: Option<(Arc<Group>, Change)>,
        bytes: usize,
        prepare: impl FnOnce(&mut super::tail::Tail, &Change, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (told, durable) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| {
            // Nobody waits any more if the caller went away.
            let _ = told.send(result);
        });
        self.submit(target, bytes, Some(done), prepare).await?;
        durable.await.unwrap_or(Err(Error::Closed))
    }

    pub(super) async fn flush(&self) -> Result<(), Error> {
        self.submit_durable(None, 0, |_, _, _| Ok(())).await
    }

    /// Waits for the writer thread to end. Blocks.
    fn join(&self) -> Result<(), Error> {
        let writer = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.take().ok_or(Error::Closed)?
        };
        let result = writer
            .join()
            .unwrap_or_else(|_| Err(Error::damaged("the writer panicked")));
        if let Some(lock) = &self.lock {
            // Dropping it would do, but a clone of this handle may live on.
            let _ = lock.unlock();
        }
        result
    }
}

impl Storage {
    /// Opens the storage in `config.data_dir`, creating it if the directory is empty. Blocks.
    pub fn open(config: Config, hooks: Hooks) -> Result<Storage, OpenError> {
        let opened = open::open(&config)?;
        Storage::start(Box::new(opened.backend), opened.lock, config, hooks)
    }

    /// Opens the storage on a custom file, for simulations. `config.data_dir` is not touched. Blocks.
    pub fn open_on(
        file: impl redb::StorageBackend,
        config: Config,
        hooks: Hooks,
    ) -> Result<Storage, OpenError> {
        let backend = open::open_on(file, &config)?;
        Storage::start(Box::new(backend), None, config, hooks)
    }

    pub(super) fn start(
        backend: Box<dyn Backend>,
        lock: Option<File>,
        config: Config,
        hooks: Hooks,
    ) -> Result<Storage, OpenError> {
        let path = open::shown_path(&config);
        let writer = Storage::writer(backend, config, hooks, false)?;
        let shared = writer.shared().clone();
        let thread = std::thread::Builder::new()
            .name("kelda-writer".to_owned())
            .spawn(move || writer.run_guarded())
            .map_err(|source| OpenError::Io { path, source })?;
        Ok(Storage::on(shared, Some(thread), lock))
    }

    /// A writer that goes on with what a restart has interrupted.
    pub(super) fn writer(
        backend: Box<dyn Backend>,
        config: Config,
        hooks: Hooks,
        stepped: bool,
    ) -> Result<Writer, OpenError> {
        let path = open::shown_path(&config);
        let mut unfinished = Vec::new();
        backend
            .read(&mut |view| {
                unfinished = sweep::unfinished(view)?;
                Ok(())
            })
            .map_err(|error| open::corrupt(&path, &error))?;
        let shared = Arc::new(Shared {
            backend,
            queue: Queue::new(),
            config,
            hooks,
            tail_used: Arc::default(),
            failure: OnceLock::new(),
            stepped,
        });
        Ok(Writer::new(shared, unfinished))
    }

    pub(super) fn on(
        shared: Arc<Shared>,
        writer: Option<JoinHandle<Result<(), Error>>>,
        lock: Option<File>,
    ) -> Storage {
        Storage {
            handle: Arc::new(Handle {
                shared,
                groups: Mutex::default(),
                writer: Mutex::new(writer),
                closed: AtomicBool::new(false),
                lock,
            }),
        }
    }

    /// Every group that has any row, ascending. Blocks.
    pub fn groups(&self) -> Result<Vec<GroupId>, Error> {
        self.handle.check_open()?;
        let mut groups = Vec::new();
        self.handle.shared.backend.read(&mut |view| {
            groups = reader::groups(view)?;
            Ok(())
        })?;
        Ok(groups)
    }

    /// A handle of one group, which need not exist yet. All handles of one group share what is in memory.
    pub fn group(&self, id: GroupId) -> GroupStore {
        let groups = &self.handle.groups;
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        let used = &self.handle.shared.tail_used;
        let group = groups
            .entry(id)
            .or_insert_with(|| Arc::new(Group::new(id, used.clone())));
        GroupStore::new(self.handle.clone(), group.clone())
    }

    /// Deletes everything of a group, in bounded steps; a restart in between goes on with it. Handles of the group
    /// give [`Error::Deleted`] from the call on; when this returns, [`Storage::group`] gives an empty one.
    pub async fn delete_group(&self, id: GroupId) -> Result<(), Error> {
        self.delete(id, None).await
    }

    /// As [`Storage::delete_group`], but for the vote, which becomes this one: there is no moment without either.
    pub async fn empty_group(&self, id: GroupId, vote: Bytes) -> Result<(), Error> {
        self.delete(id, Some(vote)).await
    }

    async fn delete(&self, id: GroupId, vote: Option<Bytes>) -> Result<(), Error> {
        self.handle.check_open()?;
        let group = self.group(id).into_group();
        let target = Some((group, Change::Delete { vote }));
        let deleted = self.handle.submit_durable(target, 0, |tail, _, _| {
            tail.delete();
            Ok(())
        });
        deleted.await?;
        let groups = &self.handle.groups;
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.remove(&id);
        Ok(())
    }

    /// Waits until everything submitted before, [`GroupStore::apply`] included, is durable.
    pub async fn flush(&self) -> Result<(), Error> {
        self.handle.check_open()?;
        self.handle.flush().await
    }

    /// Room on the disk. Blocks for a moment.
    pub fn status(&self) -> Result<Status, Error> {
        self.handle.check_open()?;
        let config = &self.handle.shared.config;
        let occupied = self.handle.shared.backend.occupied_bytes();
        open::status(config, occupied).map_err(|error| Error::Read(Arc::new(error)))
    }

    /// Writes what waits, ends the writer thread and closes the database. Everything after gives [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        if self.handle.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        self.handle.shared.queue.close(Error::Closed);
        let handle = self.handle.clone();
        let joined = tokio::task::spawn_blocking(move || guarded(|| handle.join()));
        joined.await.unwrap_or(Err(Error::Closed))
    }
}

#[cfg(test)]
impl Storage {
    /// Waits until no purged or deleted row is on disk.
    pub(super) async fn swept(&self) {
        let mut left = true;
        while left {
            self.flush().await.unwrap();
            let mut visit = |view: &dyn super::backend::Read| {
                left = !sweep::unfinished(view)?.is_empty();
                Ok(())
            };
            self.handle.shared.backend.read(&mut visit).unwrap();
        }
    }

    /// Rows of a group in the tables of its log and state.
    pub(super) fn rows_of(&self, group: GroupId) -> usize {
        use super::keys::{self, Table};
        let mut rows = 0;
        let (low, high) = (keys::group(group), keys::group_end(group));
        let mut count = |view: &dyn super::backend::Read| {
            for table in [Table::Heads, Table::Chunks, Table::Offsets, Table::State] {
                let order = super::backend::Order::Ascending;
                view.scan(table, &low, &high, order, &mut |_, _| {
                    rows += 1;
                    std::ops::ControlFlow::Continue(())
                })?;
            }
            Ok(())
        };
        self.handle.shared.backend.read(&mut count).unwrap();
        rows
    }
}
