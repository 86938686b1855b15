//! The free-space floor: with less room no records are taken, because a full disk would end the process.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Error;
use crate::storage::{Status, Storage};

/// How old a look at the disk may be. The floor must leave room for what can be written in that time.
const MAX_AGE: Duration = Duration::from_millis(250);

pub(super) struct Disk {
    storage: Storage,
    last: Mutex<Option<(Instant, Status)>>,
}

impl Disk {
    pub(super) fn new(storage: Storage) -> Self {
        Self {
            storage,
            last: Mutex::new(None),
        }
    }

    /// Room on the disk, at most a quarter of a second old. Looked up on demand, so an idle node does nothing.
    pub(super) fn status(&self) -> Result<Status, Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, status)) = *last
            && when.elapsed() < MAX_AGE
        {
            return Ok(status);
        }
        let status = self.storage.status().map_err(|error| Error::Internal {
            detail: error.to_string(),
        })?;
        *last = Some((Instant::now(), status));
        Ok(status)
    }

    /// Refuses when there is no room for records.
    pub(super) fn check_writable(&self) -> Result<(), Error> {
        let status = self.status()?;
        if status.writable() {
            return Ok(());
        }
        Err(Error::DiskFull {
            free_bytes: status.free_bytes,
            reusable_bytes: status.reusable_bytes,
            floor_bytes: status.floor_bytes,
        })
    }
}
