//! Opening: whose directory it is, one process at a time, and a database of a version we know.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, StorageError};

use super::backend::redb::{Redb, guarded};
use super::backend::{self, Backend};
use super::founder::{FOUNDER_FILE, FOUNDER_TEMPORARY};
use super::keys::{FORMAT_KEY, OCCUPIED_KEY, Table};
use super::marker::{MARKER_FILE, MARKER_TEMPORARY, check_format, read_marker};
use super::token::{TOKEN_FILE, TOKEN_TEMPORARY};
use super::types::{Config, Status};
use super::{Error, FORMAT_VERSION, OpenError};

/// The database.
const DATABASE_FILE: &str = "kelda.redb";
/// The database until it is complete, so that a crash while it is made leaves nothing half-made behind.
const DATABASE_TEMPORARY: &str = "kelda.redb.new";
/// Locked by the process that works here. redb locks its file too, but only once there is one.
const LOCK_FILE: &str = "kelda.lock";
/// What a data directory may hold before it is ours: file systems put the last one there.
const OWN_FILES: [&str; 10] = [
    DATABASE_FILE,
    DATABASE_TEMPORARY,
    LOCK_FILE,
    MARKER_FILE,
    MARKER_TEMPORARY,
    TOKEN_FILE,
    TOKEN_TEMPORARY,
    FOUNDER_FILE,
    FOUNDER_TEMPORARY,
    "lost+found",
];
/// First bytes of every redb file.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Bytes of a block as counted by the operating system.
const STAT_BLOCK_BYTES: u64 = 512;

pub(super) struct Opened {
    pub(super) backend: Redb,
    pub(super) lock: Option<File>,
}

/// Opens or creates the database of `config`.
pub(super) fn open(config: &Config) -> Result<Opened, OpenError> {
    let Some(dir) = &config.data_dir else {
        return Ok(Opened {
            backend: open_on(InMemoryBackend::new(), config)?,
            lock: None,
        });
    };
    let io = |source| OpenError::Io {
        path: dir.clone(),
        source,
    };
    make_dir(dir).map_err(io)?;
    let marker = read_marker(dir)?;
    let path = dir.join(DATABASE_FILE);
    let exists = path.try_exists().map_err(io)?;
    if marker.is_none() && !exists && holds_foreign_files(dir).map_err(io)? {
        return Err(OpenError::ForeignDirectory { path: dir.clone() });
    }
    let lock = lock(dir)?;
    // Asked again, now that nobody else can make one.
    let backend = if path.try_exists().map_err(io)? {
        open_existing(&path, config)?
    } else if marker.is_some() {
        return Err(OpenError::Corrupt {
            path,
            detail: "the marker is here, the database is missing".to_owned(),
        });
    } else {
        create(dir, &path, config)?
    };
    Ok(Opened {
        backend,
        lock: Some(lock),
    })
}

/// Opens or creates the database in a file of the caller's making.
pub(super) fn open_on(file: impl redb::StorageBackend, config: &Config) -> Result<Redb, OpenError> {
    let path = shown_path(config);
    let backend = open_database(&path, || builder(config).create_with_backend(file))?;
    prepare(&path, &backend)?;
    Ok(backend)
}

/// Path of the database for messages.
pub(super) fn shown_path(config: &Config) -> PathBuf {
    match &config.data_dir {
        Some(dir) => dir.join(DATABASE_FILE),
        None => PathBuf::from("memory"),
    }
}

/// What to say about a database that cannot be read.
pub(super) fn corrupt(path: &Path, error: &Error) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

/// Room on the disk of the data directory, where the rows occupy at most so many bytes.
pub(super) fn status(config: &Config, occupied_bytes: u64) -> io::Result<Status> {
    let floor_bytes = config.free_floor_bytes;
    let Some(dir) = &config.data_dir else {
        return Ok(Status {
            used_bytes: 0,
            free_bytes: u64::MAX,
            reusable_bytes: 0,
            floor_bytes,
        });
    };
    let disk = rustix::fs::statvfs(dir)?;
    let mut blocks = 0;
    for name in OWN_FILES {
        match fs::metadata(dir.join(name)) {
            Ok(file) if file.is_file() => blocks += file.blocks(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let used_bytes = blocks * STAT_BLOCK_BYTES;
    Ok(Status {
        used_bytes,
        // What was allocated counts, not how long the file is: redb leaves holes at its end.
        reusable_bytes: used_bytes.saturating_sub(occupied_bytes),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        floor_bytes,
    })
}

/// Makes the data directory so that it survives a power loss with what is in it.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.try_exists()? {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_dir(parent)?;
    fs::create_dir(dir)?;
    File::open(parent)?.sync_all()
}

fn holds_foreign_files(dir: &Path) -> io::Result<bool> {
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        if !OWN_FILES.iter().any(|own| name == *own) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let locked = file.and_then(|file| match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    });
    match locked {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(OpenError::InUse {
            path: dir.to_owned(),
        }),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn builder(config: &Config) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(config.cache_bytes);
    builder
}

fn open_existing(path: &Path, config: &Config) -> Result<Redb, OpenError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = MAGIC.len() as u64;
        file.take(length).read_to_end(&mut start)
    });
    read.map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    if start.is_empty() {
        return Err(OpenError::Corrupt {
            path: path.to_owned(),
            detail: "it is empty".to_owned(),
        });
    }
    if start != MAGIC {
        return Err(OpenError::NotADatabase {
            path: path.to_owned(),
        });
    }
    let backend = open_database(path, || builder(config).open(path))?;
    prepare(path, &backend)?;
    Ok(backend)
}

fn create(dir: &Path, path: &Path, config: &Config) -> Result<Redb, OpenError> {
    let temporary = dir.join(DATABASE_TEMPORARY);
    let io = |source| OpenError::Io {
        path: temporary.clone(),
        source,
    };
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let backend = open_database(path, || builder(config).create(&temporary))?;
    prepare(path, &backend)?;
    fs::rename(&temporary, path).map_err(io)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
    Ok(backend)
}

/// Runs redb's own opening, which can panic on a damaged file.
fn open_database(
    path: &Path,
    open: impl FnOnce() -> Result<Database, DatabaseError>,
) -> Result<Redb, OpenError> {
    let opened = guarded(|| Ok(open())).map_err(|error| corrupt(path, &error))?;
    let path = path.to_owned();
    opened.map(Redb::new).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => OpenError::Corrupt {
                path,
                detail: source.to_string(),
            },
            _ => OpenError::Io { path, source },
        },
        other => OpenError::Corrupt {
            path,
            detail: other.to_string(),
        },
    })
}

/// Makes the tables of a new database, checks the version of an old one.
fn prepare(path: &Path, backend: &Redb) -> Result<(), OpenError> {
    let failed = |error: Error| match error {
        Error::Read(source) => OpenError::Io {
            path: path.to_owned(),
            source: io::Error::new(source.kind(), source.to_string()),
        },
        other => corrupt(path, &other),
    };
    if backend.is_new().map_err(failed)? {
        return make_tables(backend).map_err(failed);
    }
    if !backend.has_table(Table::Format).map_err(failed)? {
        return Err(OpenError::NotADatabase {
            path: path.to_owned(),
        });
    }
    let (mut found, mut occupied) = (None, None);
    let read = backend.read(&mut |view| {
        found = backend::get(view, Table::Format, FORMAT_KEY)?;
        occupied = backend::get(view, Table::Format, OCCUPIED_KEY)?;
        Ok(())
    });
    read.map_err(failed)?;
    let version = found.and_then(|value| value.try_into().ok());
    let version = version.ok_or_else(|| OpenError::Corrupt {
        path: path.to_owned(),
        detail: "its format version is missing".to_owned(),
    })?;
    // Before anything whose meaning depends on it.
    check_format(u32::from_be_bytes(version), path)?;
    backend.resume_account(occupied);
    backend.resume_census().map_err(failed)
}

/// Makes every table and notes the version.
pub(super) fn make_tables(backend: &dyn Backend) -> Result<(), Error> {
    backend.write(&mut |write| {
        for table in Table::ALL {
            // Looking a row up makes the table.
            write.get(table, &[], &mut |_| {})?;
        }
        let version = FORMAT_VERSION.to_be_bytes();
        write.put(Table::Format, FORMAT_KEY, &[&version])
    })
}
