//! The tables in redb. The only file that names the library.

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{
    CommitError, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageError, TableDefinition, TableError, TableHandle, TransactionError,
    WriteTransaction,
};

use super::census::Census;
use super::occupied::Account;
use super::{Backend, Order, Read, Visit, Write};
use crate::storage::Error;
use crate::storage::keys::{CENSUS_KEY, OCCUPIED_KEY, Table};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// A redb database.
pub(in crate::storage) struct Redb {
    /// `None` once closed.
    database: RwLock<Option<Database>>,
    /// See [`Backend::occupied_bytes`]. A row of its own keeps it, too.
    occupied: AtomicU64,
    /// As the row of its own has it.
    census: Mutex<Census>,
}

impl Redb {
    pub(in crate::storage) fn new(database: Database) -> Redb {
        Redb {
            database: RwLock::new(Some(database)),
            occupied: AtomicU64::new(0),
            census: Mutex::default(),
        }
    }

    /// Checks the rows that say which groups there are against the row that counts them.
    pub(in crate::storage) fn resume_census(&self) -> Result<(), Error> {
        self.read(&mut |view| {
            let found = Census::take(view)?;
            let row = super::get(view, Table::Format, CENSUS_KEY)?;
            found.check(row.as_deref())?;
            *self.census.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(())
        })
    }

    /// Takes up the account of an existing database from the row that kept it. Without one nothing counts as free.
    pub(in crate::storage) fn resume_account(&self, row: Option<Vec<u8>>) {
        let bytes = row.and_then(|row| row.try_into().ok());
        let occupied = bytes.map_or(u64::MAX, u64::from_be_bytes);
        self.occupied.store(occupied, Ordering::Relaxed);
    }

    /// Whether nothing was ever written.
    pub(in crate::storage) fn is_new(&self) -> Result<bool, Error> {
        self.tables().map(|tables| tables.is_empty())
    }

    /// Whether `table` was made.
    pub(in crate::storage) fn has_table(&self, table: Table) -> Result<bool, Error> {
        let tables = self.tables()?;
        Ok(tables.iter().any(|name| name == table.name()))
    }

    fn tables(&self) -> Result<Vec<String>, Error> {
        guarded(|| {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = guard.as_ref().ok_or(Error::Closed)?;
            let transaction = database.begin_read().map_err(transaction_error)?;
            let tables = transaction.list_tables().map_err(storage_error)?;
            Ok(tables.map(|table| table.name().to_owned()).collect())
        })
    }
}

#[cfg(test)]
impl Redb {
    /// Bytes of the pages that redb has in use. Walks every tree.
    pub(in crate::storage) fn allocated_bytes(&self) -> u64 {
        let guard = self.database.read().unwrap();
        let transaction = guard.as_ref().unwrap().begin_write().unwrap();
        let stats = transaction.stats().unwrap();
        transaction.abort().unwrap();
        stats.allocated_pages() * stats.page_size() as u64
    }
}

/// Runs `work` and turns a panic within redb, which a damaged file can cause, into an error.
pub(in crate::storage) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What redb leaves behind is its own business: a poisoned lock gives an error at the next call, and storage ends
    // after the first failed write.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::damaged(text.unwrap_or("redb panicked")))
    })
}

impl Backend for Redb {
    fn read(&self, work: &mut dyn FnMut(&dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        guarded(|| {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = guard.as_ref().ok_or(Error::Closed)?;
            let transaction = database.begin_read().map_err(transaction_error)?;
            work(&Snapshot { transaction })
        })
    }

    fn write(
        &self,
        work: &mut dyn FnMut(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        guarded(|| {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = guard.as_ref().ok_or(Error::Closed)?;
            let mut transaction = database.begin_write().map_err(transaction_error)?;
            transaction
                .set_durability(Durability::Immediate)
                .map_err(|error| Error::damaged(&error))?;
            // Opens in milliseconds after a crash, instead of walking the whole file.
            transaction.set_quick_repair(true);
            let census = *self.census.lock().unwrap_or_else(PoisonError::into_inner);
            let mut changes = Changes::new(&transaction, census);
            work(&mut changes)?;
            let before = self.occupied.load(Ordering::Relaxed);
            let occupied = changes.account.after(before);
            changes.put(Table::Format, OCCUPIED_KEY, &[&occupied.to_be_bytes()])?;
            let census = changes.census;
            changes.put(Table::Format, CENSUS_KEY, &[&census.encode()])?;
            drop(changes);
            transaction.commit().map_err(|error| match error {
                CommitError::Storage(error) => storage_error(error),
                other => Error::damaged(&other),
            })?;
            self.occupied.store(occupied, Ordering::Relaxed);
            *self.census.lock().unwrap_or_else(PoisonError::into_inner) = census;
            Ok(())
        })
    }

    fn occupied_bytes(&self) -> u64 {
        self.occupied.load(Ordering::Relaxed)
    }

    fn close(&self) -> Result<(), Error> {
        guarded(|| {
            let mut guard = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let database = guard.take().ok_or(Error::Closed)?;
            database.close().map_err(|error| Error::damaged(&error))
        })
    }
}

struct Snapshot {
    transaction: ReadTransaction,
}

impl Snapshot {
    fn open(&self, table: Table) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
        self.transaction
            .open_table(definition(table))
            .map_err(table_error)
    }
}

impl Read for Snapshot {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Error> {
        get_in(&self.open(table)?, key, visit)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        scan_in(&self.open(table)?, from, to, order, visit)
    }
}

type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// A write transaction with the tables it has touched: opening one is not free.
struct Changes<'t> {
    transaction: &'t WriteTransaction,
    tables: RefCell<[Option<OpenTable<'t>>; Table::ALL.len()]>,
    /// Where values of several pieces are joined. redb's `insert_reserve` fills the place with zeros twice before it
    /// hands it out; joining in memory that stays in the processor's cache is cheaper.
    joined: Vec<u8>,
    account: Account,
    census: Census,
}

/// Memory kept for the next value of several pieces.
const JOINED_BYTES_KEPT: usize = 512 << 10;

impl<'t> Changes<'t> {
    fn new(transaction: &'t WriteTransaction, census: Census) -> Changes<'t> {
        Changes {
            transaction,
            tables: RefCell::default(),
            joined: Vec::new(),
            account: Account::default(),
            census,
        }
    }

    fn with<T>(
        &self,
        table: Table,
        work: impl FnOnce(&mut OpenTable<'t>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tables = self.tables.borrow_mut();
        let slot = &mut tables[table as usize];
        let open = match slot {
            Some(open) => open,
            None => slot.insert(
                self.transaction
                    .open_table(definition(table))
                    .map_err(table_error)?,
            ),
        };
        work(open)
    }
}

impl Read for Changes<'_> {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Error> {
        self.with(table, |open| get_in(open, key, visit))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.with(table, |open| scan_in(open, from, to, order, visit))
    }
}

impl Write for Changes<'_> {
    fn put(&mut self, table: Table, key: &[u8], pieces: &[&[u8]]) -> Result<(), Error> {
        let mut joined = std::mem::take(&mut self.joined);
        let value = match pieces {
            [one] => one,
            several => {
                joined.clear();
                several
                    .iter()
                    .for_each(|piece| joined.extend_from_slice(piece));
                joined.as_slice()
            }
        };
        let (mut account, mut census) = (self.account, self.census);
        account.add(key, value);
        census.add(table, key, value);
        self.with(table, |open| {
            if let Some(old) = open.insert(key, value).map_err(storage_error)? {
                account.remove(key, old.value());
                census.remove(table, key, old.value());
            }
            Ok(())
        })?;
        (self.account, self.census) = (account, census);
        if joined.capacity() <= JOINED_BYTES_KEPT {
            self.joined = joined;
        }
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), Error> {
        let (mut account, mut census) = (self.account, self.census);
        self.with(table, |open| {
            if let Some(old) = open.remove(key).map_err(storage_error)? {
                account.remove(key, old.value());
                census.remove(table, key, old.value());
            }
            Ok(())
        })?;
        (self.account, self.census) = (account, census);
        Ok(())
    }

    fn delete_range(&mut self, table: Table, from: &[u8], to: &[u8]) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        let (mut account, mut census) = (self.account, self.census);
        self.with(table, |open| {
            let mut delete = |key: &[u8], value: &[u8]| {
                account.remove(key, value);
                census.remove(table, key, value);
                false
            };
            open.retain_in(from..to, &mut delete).map_err(storage_error)
        })?;
        (self.account, self.census) = (account, census);
        Ok(())
    }
}

fn get_in(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    visit: &mut dyn FnMut(&[u8]),
) -> Result<bool, Error> {
    match table.get(key).map_err(storage_error)? {
        Some(value) => {
            visit(value.value());
            Ok(true)
        }
        None => Ok(false),
    }
}

fn scan_in(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: &[u8],
    to: &[u8],
    order: Order,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    // An empty or turned range panics in redb.
    if from >= to {
        return Ok(());
    }
    let mut rows = table.range(from..to).map_err(storage_error)?;
    loop {
        let row = match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        };
        let Some(row) = row else { return Ok(()) };
        let (key, value) = row.map_err(storage_error)?;
        if let ControlFlow::Break(()) = visit(key.value(), value.value()) {
            return Ok(());
        }
    }
}

fn transaction_error(error: TransactionError) -> Error {
    match error {
        TransactionError::Storage(error) => storage_error(error),
        other => Error::damaged(&other),
    }
}

fn table_error(error: TableError) -> Error {
    match error {
        TableError::Storage(error) => storage_error(error),
        other => Error::damaged(&other),
    }
}

fn storage_error(error: StorageError) -> Error {
    match error {
        StorageError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::damaged("the file is shorter than it should be")
        }
        StorageError::Io(error) => Error::Read(Arc::new(error)),
        // redb refuses everything after the first error of the disk.
        error @ StorageError::PreviousIo => {
            Error::Read(Arc::new(io::Error::other(error.to_string())))
        }
        StorageError::DatabaseClosed => Error::Closed,
        other => Error::damaged(&other),
    }
}
