//! Files that were cut or changed behind storage's back: it must refuse, or answer rightly, or say that it cannot.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::disk::Random;
use super::model::observe;
use super::support::*;
use crate::storage::{Error, GroupStore, Hooks, Search, Storage};
use crate::types::{GroupId, Offset};

const ENTRIES: u64 = 30;

fn quiet() -> Hooks {
    Hooks {
        on_fatal: std::sync::Arc::new(|_| {}),
        ..Hooks::default()
    }
}

fn written() -> Vec<crate::storage::Entry> {
    let lengths = |index| match index % 5 {
        0 => vec![10, 20],
        1 => vec![5_000],
        2 => vec![300; 20],
        3 => vec![30_000, 7],
        _ => vec![],
    };
    let entries = (0..ENTRIES).map(|index| entry(1, index, &lengths(index)));
    entries.collect()
}

/// A database with two groups, not closed in order, as after a crash.
async fn make(dir: &Path) {
    let storage = Storage::open(config(Some(dir)), hooks()).unwrap();
    for id in [1, 2] {
        let group = storage.group(GroupId(id));
        let written = written();
        for entries in written.chunks(7) {
            append(&group, entries.to_vec()).await.unwrap();
        }
        let mut all = applied("state", rows(0, &written));
        for key in 0..40u8 {
            let value = Some(Bytes::from(payload(key.into(), 100)));
            all.state_rows.push((Bytes::from(vec![key]), value));
        }
        group.apply(all).await.unwrap();
        group.save_vote(Bytes::from_static(b"vote")).await.unwrap();
        group
            .purge(self::id(1, 4), Bytes::from_static(b"snapshot"))
            .await
            .unwrap();
    }
    storage.swept().await;
    fs::copy(dir.join("kelda.redb"), dir.join("copy")).unwrap();
    storage.close().await.unwrap();
    fs::rename(dir.join("copy"), dir.join("kelda.redb")).unwrap();
}

/// An answer that is not the right one must be an error.
fn right<T: PartialEq + std::fmt::Debug>(found: Result<T, Error>, expected: &T) -> bool {
    match found {
        Ok(found) => {
            assert_eq!(&found, expected);
            true
        }
        Err(_) => false,
    }
}

async fn check(group: &GroupStore) -> usize {
    let written = written();
    let rows = rows(0, &written);
    let rows: Vec<_> = rows.iter().filter(|row| row.index.0 > 4).collect();
    let mut errors = 0;
    let state = group.load().await;
    let loaded = state.map(|state| {
        let rows = state.state_rows.len();
        (
            state.vote,
            state.last,
            state.purged,
            state.snapshot,
            state.applied,
            rows,
        )
    });
    let expected = (
        Some(Bytes::from_static(b"vote")),
        Some(id(1, ENTRIES - 1)),
        Some(id(1, 4)),
        Some(Bytes::from_static(b"snapshot")),
        Some(Bytes::from_static(b"state")),
        40,
    );
    errors += usize::from(!right(loaded, &expected));
    for entry in &written[5..] {
        let at = entry.id.index;
        let read = group.read(at, index(at.0 + 1), usize::MAX).await;
        errors += usize::from(!right(read, &vec![entry.clone()]));
        let heads = group.read_heads(at, index(at.0 + 1), 1).await;
        let heads = heads.map(|heads| heads.iter().map(|head| head.id).collect());
        errors += usize::from(!right(heads, &vec![entry.id]));
    }
    for row in rows {
        let find = group.find(Search::Contains(row.base_offset)).await;
        errors += usize::from(!right(find, &Some(*row)));
        let read = group
            .read_batches(row.base_offset, Offset(row.base_offset.0 + 1), 1)
            .await;
        let read = read.map(|batches| batches.into_iter().map(|batch| batch.part).collect());
        let expected = &written[row.index.0 as usize].parts[row.part as usize];
        errors += usize::from(!right(read, &vec![expected.clone()]));
    }
    errors
}

/// Opens what is in `dir` and checks everything that can be read. Returns whether the damage was noticed.
async fn noticed(dir: &Path) -> bool {
    let storage = match Storage::open(config(Some(dir)), quiet()) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return true;
        }
    };
    let mut errors = 0;
    if let Ok(groups) = storage.groups() {
        assert_eq!(groups, [GroupId(1), GroupId(2)]);
    }
    for id in [1, 2] {
        let group = storage.group(GroupId(id));
        errors += check(&group).await;
        // Writing on may fail, but must neither hang nor panic.
        let _ = append(&group, entries(1, ENTRIES..ENTRIES + 1, &[100])).await;
    }
    let _ = storage.close().await;
    errors > 0
}

#[tokio::test]
async fn an_intact_copy_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    assert!(!noticed(dir.path()).await);
    let storage = Storage::open(config(Some(dir.path())), hooks()).unwrap();
    observe(&storage.group(GroupId(1))).await.unwrap();
}

/// Without the census such a group looked as if it had never been there, and its log began anew.
#[tokio::test]
async fn rows_that_turn_up_under_another_group_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    let path = dir.path().join("kelda.redb");
    let image = fs::read(&path).unwrap();
    let mut moved = 0;
    for kind in 1..=6 {
        let key = [0, 0, 0, 0, 0, 0, 0, 2, kind];
        let places = image.windows(key.len()).enumerate();
        for (at, _) in places.filter(|(_, bytes)| *bytes == key) {
            let mut image = image.clone();
            // Group 514.
            image[at + 6] = 2;
            fs::write(&path, &image).unwrap();
            moved += usize::from(noticed(dir.path()).await);
        }
    }
    assert!(moved >= 6, "only {moved} rows");
}

#[tokio::test]
async fn cut_files_are_refused_or_give_errors() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    let path = dir.path().join("kelda.redb");
    let image = fs::read(&path).unwrap();
    let mut random = Random::new(1);
    for _ in 0..15 {
        let length = random.below(image.len() as u64) as usize;
        fs::write(&path, &image[..length]).unwrap();
        noticed(dir.path()).await;
    }
}

#[tokio::test]
async fn flipped_bits_are_refused_or_give_errors_or_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    let path = dir.path().join("kelda.redb");
    let image = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
    let flips = 40;
    let mut random = Random::new(2);
    let mut count = 0;
    for _ in 0..flips {
        let mut image = image.clone();
        for _ in 0..=random.below(3) {
            let mut at = used[random.below(used.len() as u64) as usize];
            if random.chance(50) {
                // The front of a page, where the tree keeps its own numbers.
                at = at / 4096 * 4096 + random.below(64) as usize;
            }
            image[at] ^= 1 << random.below(8);
        }
        fs::write(&path, &image).unwrap();
        count += usize::from(noticed(dir.path()).await);
    }
    assert!(count > 10, "only {count} of {flips} noticed");
}
