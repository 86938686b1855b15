//! The tables in ordered maps, for tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::{Backend, Order, Read, Visit, Write};
use crate::storage::Error;
use crate::storage::keys::Table;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Rows in memory; `None` once closed.
pub(in crate::storage) struct Memory(Mutex<Option<Rows>>);

impl Memory {
    pub(in crate::storage) fn new() -> Memory {
        Memory(Mutex::new(Some(Rows::new())))
    }
}

impl Backend for Memory {
    fn read(&self, work: &mut dyn FnMut(&dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let rows = {
            let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            guard.clone().ok_or(Error::Closed)?
        };
        work(&rows)
    }

    fn write(
        &self,
        work: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(guard.as_mut().ok_or(Error::Closed)?)
    }

    fn occupied_bytes(&self) -> u64 {
        0
    }

    fn close(&self) -> Result<(), Error> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.take().map(drop).ok_or(Error::Closed)
    }
}

impl Read for Rows {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Error> {
        let value = BTreeMap::get(self, &(table, key.to_vec()));
        Ok(value.map(|value| visit(value)).is_some())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.range((table, from.to_vec())..(table, to.to_vec()));
        loop {
            let row = match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(((_, key), value)) = row else {
                return Ok(());
            };
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
        }
    }
}

impl Write for Rows {
    fn put(&mut self, table: Table, key: &[u8], pieces: &[&[u8]]) -> Result<(), Error> {
        self.insert((table, key.to_vec()), pieces.concat());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Error> {
        self.remove(&(table, key.to_vec()));
        Ok(())
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Error> {
        self.retain(|(place, key), _| {
            *place != table || key.as_slice() < from || key.as_slice() >= to
        });
        Ok(())
    }
}
