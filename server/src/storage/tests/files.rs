//! Data directories: whose they are, what is in them, how much room they take.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::model::observe;
use super::support::*;
use crate::storage::{FORMAT_VERSION, Marker, OpenError, Storage, write_marker};
use crate::types::{GroupId, NodeId};

fn open(dir: &Path) -> Result<Storage, OpenError> {
    Storage::open(config(Some(dir)), hooks())
}

fn refusal(dir: &Path) -> OpenError {
    match open(dir) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

fn marker(dir: &Path) {
    let marker = Marker {
        format_version: FORMAT_VERSION,
        cluster_id: "c".to_owned(),
        node_id: NodeId(1),
        node_name: "n".to_owned(),
    };
    write_marker(dir, &marker).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let storage = open(&dir.path().join("data")).unwrap();
        for id in 0..3 {
            let group = storage.group(GroupId(id));
            if round > 0 {
                assert_eq!(observe(&group).await.unwrap(), expected.remove(0));
            }
            let first = round * 20;
            let written = entries(1, first..first + 20, &[10, 9_000]);
            append(&group, written.clone()).await.unwrap();
            group
                .apply(applied("a", rows(first * 2, &written)))
                .await
                .unwrap();
            group
                .save_vote(Bytes::from(format!("{round}")))
                .await
                .unwrap();
            group.purge(self::id(1, first), Bytes::new()).await.unwrap();
            expected.push(observe(&group).await.unwrap());
        }
        assert_eq!(storage.groups().unwrap().len(), 3);
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::InUse { path } if path == dir.path()));
    append(&first.group(GROUP), entries(1, 0..2, &[10]))
        .await
        .unwrap();
    first.close().await.unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    assert!(matches!(
        refusal(dir.path()),
        OpenError::ForeignDirectory { .. }
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kelda.redb"), payload(1, 100_000)).unwrap();
    assert!(matches!(
        refusal(dir.path()),
        OpenError::NotADatabase { .. }
    ));
    fs::write(dir.path().join("kelda.redb"), "").unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Corrupt { .. }));
}

#[test]
fn a_database_of_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = redb::Database::create(dir.path().join("kelda.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("other");
    write.open_table(table).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(
        refusal(dir.path()),
        OpenError::NotADatabase { .. }
    ));
}

#[tokio::test]
async fn a_wiped_database_beside_a_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    marker(dir.path());
    open(dir.path()).unwrap().close().await.unwrap();
    fs::remove_file(dir.path().join("kelda.redb")).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with("kelda.redb")));
    assert!(!dir.path().join("kelda.redb").exists());
}

/// Changes the table that says what a database is.
fn change_format(dir: &Path, change: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>)) {
    let database = redb::Database::open(dir.join("kelda.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&[u8], &[u8]>::new("format");
    change(&mut write.open_table(table).unwrap());
    write.commit().unwrap();
}

#[tokio::test]
async fn a_newer_or_older_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    let refusal_of = |version: u32| {
        change_format(dir.path(), |table| {
            let version = version.to_be_bytes();
            table.insert(&b"version"[..], &version[..]).unwrap();
        });
        refusal(dir.path())
    };
    let supported_is = |it: u32| it == FORMAT_VERSION;
    assert!(matches!(
        refusal_of(FORMAT_VERSION + 1),
        OpenError::NewerFormat { found: 3, supported, .. } if supported_is(supported)
    ));
    // One of version 1 need not have a census: it is old, not damaged.
    change_format(dir.path(), |table| {
        table.remove(&b"census"[..]).unwrap();
    });
    assert!(matches!(
        refusal_of(1),
        OpenError::OlderFormat { found: 1, supported, .. } if supported_is(supported)
    ));
    assert!(matches!(refusal_of(0), OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn a_database_that_has_lost_its_census_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    change_format(dir.path(), |table| {
        assert!(table.remove(&b"census"[..]).unwrap().is_some());
    });
    let error = refusal(dir.path());
    assert!(
        matches!(&error, OpenError::Corrupt { detail, .. } if detail.contains("how many groups")),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_that_was_never_finished_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kelda.redb.new"), "half").unwrap();
    open(dir.path()).unwrap().close().await.unwrap();
    assert!(!dir.path().join("kelda.redb.new").exists());
}

/// Bytes on disk for each byte of payload after appending entries with these parts.
async fn bytes_on_disk(entries_count: u64, lengths: &[usize]) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let group = storage.group(GROUP);
    // Groups in front and behind, so that no append is at the end of a table.
    for id in [0, 99] {
        append(&storage.group(GroupId(id)), entries(1, 0..4, &[100]))
            .await
            .unwrap();
    }
    let mut batches = 0;
    for index in 0..entries_count {
        let mut written = entries(1, index..index + 1, lengths);
        written[0].header = Bytes::from(payload(index, 20 + 8 * lengths.len()));
        append(&group, written.clone()).await.unwrap();
        group
            .apply(applied("state", rows(batches, &written)))
            .await
            .unwrap();
        batches += lengths.len() as u64;
    }
    let empty = {
        let dir = tempfile::tempdir().unwrap();
        let storage = open(dir.path()).unwrap();
        storage.status().unwrap().used_bytes
    };
    let used = storage.status().unwrap().used_bytes - empty;
    storage.close().await.unwrap();
    let payload = lengths.iter().sum::<usize>() as u64 * entries_count;
    used as f64 / payload as f64
}

#[tokio::test]
async fn large_batches_take_at_most_1_3_bytes_on_disk_a_byte() {
    for (entries, lengths) in [
        (200, vec![65_536]),
        (200, vec![67_500]),
        (200, vec![1_030; 64]),
        (40, vec![100_000, 200_000]),
        (20, vec![(1 << 20) + 700]),
    ] {
        let ratio = bytes_on_disk(entries, &lengths).await;
        assert!(
            ratio <= 1.3,
            "{ratio:.3} for {} parts of {}",
            lengths.len(),
            lengths[0]
        );
    }
}

#[tokio::test]
async fn small_records_take_at_most_three_bytes_on_disk_a_byte() {
    for parts in [100, 200] {
        // 50 bytes and the framing of a record and its batch.
        let ratio = bytes_on_disk(300, &vec![62; parts]).await * 62.0 / 50.0;
        assert!(ratio <= 3.0, "{ratio:.3} for {parts} records an entry");
    }
}

#[tokio::test]
async fn purged_room_is_used_again() {
    const KEPT: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let group = storage.group(GROUP);
    let mut peak = 0;
    for round in 0..12 {
        for index in round * KEPT..(round + 1) * KEPT {
            let written = entries(1, index..index + 1, &[65_536]);
            append(&group, written.clone()).await.unwrap();
            group
                .apply(applied("a", rows(index, &written)))
                .await
                .unwrap();
            if index >= KEPT && index % 8 == 0 {
                group
                    .purge(id(1, index - KEPT), Bytes::new())
                    .await
                    .unwrap();
            }
        }
        storage.swept().await;
        peak = peak.max(storage.status().unwrap().used_bytes);
    }
    let kept = KEPT * 65_536;
    assert!(peak <= kept * 2, "{peak} bytes for {kept}");
    storage.close().await.unwrap();
}
