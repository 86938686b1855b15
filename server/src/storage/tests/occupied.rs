//! What the rows occupy, as the transactions keep account of it, beside what redb has in use.

use redb::backends::InMemoryBackend;

use super::disk::Random;
use super::support::config;
use crate::storage::backend::Backend;
use crate::storage::backend::redb::Redb;
use crate::storage::keys::{self, Table};
use crate::storage::open;
use crate::types::{GroupId, LogIndex};

/// What redb needs for itself, and pages that the last transactions left and the next one frees.
const SLACK_BYTES: u64 = 128 << 10;
const GROUPS: u64 = 10;
const ROWS: u64 = 20;

/// Writes rows of less than `bytes_max` to many groups in turn, as the log does.
fn fill(backend: &Redb, bytes_max: u64) {
    let mut random = Random::new(bytes_max);
    for index in (0..ROWS).map(LogIndex) {
        let write = backend.write(&mut |write| {
            for group in (0..GROUPS).map(GroupId) {
                let value = vec![1; random.below(bytes_max) as usize];
                write.put(Table::Heads, &keys::head(group, index), &[&value])?;
            }
            Ok(())
        });
        write.unwrap();
    }
}

fn delete_below(backend: &Redb, index: u64) {
    let delete = backend.write(&mut |write| {
        for group in (0..GROUPS).map(GroupId) {
            let high = keys::head(group, LogIndex(index));
            write.delete_range(Table::Heads, &keys::group(group), &high)?;
        }
        Ok(())
    });
    delete.unwrap();
    // Frees the pages.
    backend.write(&mut |_| Ok(())).unwrap();
}

fn assert_covered(backend: &Redb) {
    let (most, real) = (backend.occupied_bytes(), backend.allocated_bytes());
    println!("{real} of {most}");
    assert!(real <= most + SLACK_BYTES, "{real} of {most}");
}

#[test]
fn rows_occupy_no_more_than_the_account_says_and_deleted_ones_nothing() {
    for bytes_max in [40, 700, 1500, 3000, 5000, 100_000] {
        let backend = open::open_on(InMemoryBackend::new(), &config(None)).unwrap();
        let empty = backend.occupied_bytes();
        fill(&backend, bytes_max);
        assert_covered(&backend);
        // Every row is replaced.
        fill(&backend, bytes_max);
        assert_covered(&backend);
        delete_below(&backend, ROWS / 2);
        assert_covered(&backend);
        delete_below(&backend, ROWS);
        assert_covered(&backend);
        assert_eq!(backend.occupied_bytes(), empty);
    }
}

#[test]
fn the_account_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Some(dir.path()));
    let opened = open::open(&config).unwrap();
    fill(&opened.backend, 5000);
    let before = opened.backend.occupied_bytes();
    opened.backend.close().unwrap();
    drop(opened);
    let opened = open::open(&config).unwrap();
    assert_eq!(opened.backend.occupied_bytes(), before);
    let status = open::status(&config, before).unwrap();
    assert!(status.reusable_bytes < status.used_bytes);
}
