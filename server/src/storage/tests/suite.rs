//! One suite for both backends: what the rooms above rely on.

use bytes::Bytes;

use super::support::*;
use crate::storage::{Applied, Error, GroupStore, Search, Storage};
use crate::types::{GroupId, LogIndex, Offset};

/// Runs a test on every backend.
macro_rules! suite {
    ($($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            for storage in both() {
                cases::$name(&storage).await;
                storage.close().await.unwrap();
            }
        })*
    };
}

suite! {
    an_empty_group_has_nothing
    entries_are_readable_at_once_and_durable_after_the_callback
    entries_that_left_memory_are_read_from_the_tables
    heads_tell_the_same_in_memory_and_in_the_tables
    truncation_takes_effect_at_once_and_for_good
    a_purge_hides_and_then_deletes_the_front
    a_purge_beyond_the_end_moves_the_end
    votes_snapshots_and_states_are_loaded_again
    batches_are_found_by_offset
    searches_agree_with_a_linear_scan
    batches_without_memory_are_read_from_the_tables
    a_deleted_group_leaves_nothing
    an_emptied_group_leaves_a_vote_and_nothing_else
    an_append_that_leaves_a_gap_is_refused
    a_log_may_begin_behind_zero
    groups_are_listed_without_the_deleted
    everything_after_close_is_refused
}

/// A second storage on the same tables cannot be had on every backend: this empties the memory instead.
async fn forget_tail(storage: &Storage, group: &GroupStore) {
    storage.flush().await.unwrap();
    group.forget();
}

mod cases {
    use super::*;

    pub(super) async fn an_empty_group_has_nothing(storage: &Storage) {
        let group = storage.group(GROUP);
        let state = group.load().await.unwrap();
        assert!(state.last.is_none() && state.vote.is_none() && state.state_rows.is_empty());
        assert!(group.read(index(0), END, 1 << 20).await.unwrap().is_empty());
        assert!(
            group
                .find(Search::Contains(Offset(0)))
                .await
                .unwrap()
                .is_none()
        );
        assert!(storage.groups().unwrap().is_empty());
    }

    pub(super) async fn entries_are_readable_at_once_and_durable_after_the_callback(
        storage: &Storage,
    ) {
        let group = storage.group(GROUP);
        group.load().await.unwrap();
        let written = entries(1, 0..5, &[100, 0, 70_000]);
        let (told, result) = done();
        group.append(written.clone(), told).await.unwrap();
        assert_eq!(
            group.read(index(0), END, usize::MAX).await.unwrap(),
            written
        );
        assert_eq!(
            group.read(index(2), index(4), usize::MAX).await.unwrap(),
            written[2..4]
        );
        assert_eq!(group.read(index(2), END, 1).await.unwrap(), written[2..3]);
        result.await.unwrap().unwrap();
        let state = group.load().await.unwrap();
        assert_eq!(state.last, Some(id(1, 4)));
    }

    pub(super) async fn entries_that_left_memory_are_read_from_the_tables(storage: &Storage) {
        let group = storage.group(GROUP);
        let lengths = [0, 1, 50, 4_000, 4_100, 65_536, 70_000, 1 << 20];
        for (at, length) in (0..).zip(lengths) {
            append(&group, vec![entry(1, at, &[length, 3, length])])
                .await
                .unwrap();
        }
        forget_tail(storage, &group).await;
        for (at, length) in (0..).zip(lengths) {
            let read = group.read(index(at), index(at + 1), 1).await.unwrap();
            assert_eq!(read, [entry(1, at, &[length, 3, length])]);
        }
        let all = group.read(index(0), END, usize::MAX).await.unwrap();
        assert_eq!(all.len(), lengths.len());
        assert_eq!(group.read(index(1), END, 5_000).await.unwrap().len(), 2);
        append(&group, entries(1, 8..10, &[10])).await.unwrap();
        let mixed = group.read(index(6), END, usize::MAX).await.unwrap();
        let indexes: Vec<_> = mixed.iter().map(|entry| entry.id.index.0).collect();
        assert_eq!(indexes, [6, 7, 8, 9]);
    }

    pub(super) async fn heads_tell_the_same_in_memory_and_in_the_tables(storage: &Storage) {
        let group = storage.group(GROUP);
        let mut written = entries(1, 0..4, &[100, 5_000]);
        written[1].header = Bytes::from(payload(9, 40_000));
        written[2] = entry(1, 2, &[8; 3_000]);
        append(&group, written.clone()).await.unwrap();
        let held = group.read_heads(index(0), END, 100).await.unwrap();
        forget_tail(storage, &group).await;
        let stored = group.read_heads(index(0), END, 100).await.unwrap();
        assert_eq!(held, stored);
        assert_eq!(stored[1].header, written[1].header);
        assert_eq!(stored[2].part_lengths, [8; 3_000]);
        assert_eq!(
            group.read_heads(index(1), END, 2).await.unwrap(),
            held[1..3]
        );
        assert_eq!(
            group.read(index(0), END, usize::MAX).await.unwrap(),
            written
        );
    }

    pub(super) async fn truncation_takes_effect_at_once_and_for_good(storage: &Storage) {
        let group = storage.group(GROUP);
        append(&group, entries(1, 0..10, &[5_000])).await.unwrap();
        for forget in [false, true] {
            if forget {
                forget_tail(storage, &group).await;
            }
            group.truncate(index(6)).await.unwrap();
            assert!(group.read(index(6), END, 1).await.unwrap().is_empty());
            let state = group.load().await.unwrap();
            assert_eq!(state.last, Some(id(1, 5)));
            append(&group, entries(1, 6..10, &[5_000])).await.unwrap();
        }
        group.truncate(index(3)).await.unwrap();
        append(&group, entries(2, 3..5, &[9_000])).await.unwrap();
        forget_tail(storage, &group).await;
        let read = group.read(index(0), END, usize::MAX).await.unwrap();
        let ids: Vec<_> = read.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [id(1, 0), id(1, 1), id(1, 2), id(2, 3), id(2, 4)]);
        group.truncate(index(0)).await.unwrap();
        assert!(group.load().await.unwrap().last.is_none());
    }

    pub(super) async fn a_purge_hides_and_then_deletes_the_front(storage: &Storage) {
        let group = storage.group(GROUP);
        let written = entries(1, 0..20, &[10, 10]);
        append(&group, written.clone()).await.unwrap();
        group.apply(applied("a", rows(0, &written))).await.unwrap();
        for forget in [false, true] {
            let upto = if forget { 12 } else { 8 };
            let snapshot = Bytes::from(format!("snapshot {upto}"));
            group.purge(id(1, upto), snapshot.clone()).await.unwrap();
            if forget {
                forget_tail(storage, &group).await;
            }
            let state = group.load().await.unwrap();
            assert_eq!(state.purged, Some(id(1, upto)));
            assert_eq!(state.last, Some(id(1, 19)));
            assert_eq!(state.snapshot, Some(snapshot));
            assert!(group.read(index(upto), END, 1).await.unwrap().is_empty());
            let read = group.read(index(upto + 1), END, usize::MAX).await.unwrap();
            assert_eq!(read, written[upto as usize + 1..]);
            let first = group.find(Search::Contains(Offset(0))).await.unwrap();
            assert_eq!(first.unwrap().index, index(upto + 1));
            let batches = group
                .read_batches(Offset(0), Offset(u64::MAX), 1)
                .await
                .unwrap();
            assert_eq!(batches[0].row, first.unwrap());
        }
        // An older purge changes nothing but the snapshot.
        group
            .purge(id(1, 3), Bytes::from_static(b"older"))
            .await
            .unwrap();
        assert_eq!(group.load().await.unwrap().purged, Some(id(1, 12)));
        storage.swept().await;
        assert_eq!(storage.rows_of(GROUP), 7 + 7);
    }

    pub(super) async fn a_purge_beyond_the_end_moves_the_end(storage: &Storage) {
        let group = storage.group(GROUP);
        append(&group, entries(1, 0..5, &[10])).await.unwrap();
        group
            .purge(id(3, 99), Bytes::from_static(b"far"))
            .await
            .unwrap();
        let state = group.load().await.unwrap();
        assert_eq!(
            (state.last, state.purged),
            (Some(id(3, 99)), Some(id(3, 99)))
        );
        append(&group, entries(3, 100..102, &[10])).await.unwrap();
        assert_eq!(group.load().await.unwrap().last, Some(id(3, 101)));
        assert_eq!(
            group.read(index(100), END, usize::MAX).await.unwrap().len(),
            2
        );
    }

    pub(super) async fn votes_snapshots_and_states_are_loaded_again(storage: &Storage) {
        let group = storage.group(GROUP);
        group.save_vote(Bytes::from_static(b"first")).await.unwrap();
        group
            .save_vote(Bytes::from_static(b"second"))
            .await
            .unwrap();
        let row = |key: &'static str, value: Option<&'static str>| {
            let value = value.map(|value| Bytes::from_static(value.as_bytes()));
            (Bytes::from_static(key.as_bytes()), value)
        };
        let first = vec![row("b", Some("1")), row("a", Some("2")), row("", Some("3"))];
        let second = vec![row("b", Some("4")), row("a", None), row("z", None)];
        for state_rows in [first, second] {
            let state = Bytes::from(format!("state of {}", state_rows.len()));
            let rows = Vec::new();
            group
                .apply(Applied {
                    state,
                    rows,
                    state_rows,
                })
                .await
                .unwrap();
        }
        let state = group.load().await.unwrap();
        assert_eq!(state.vote.as_deref(), Some(&b"second"[..]));
        assert_eq!(state.applied.as_deref(), Some(&b"state of 3"[..]));
        let expected = [("", "3"), ("b", "4")].map(|(key, value)| {
            (
                Bytes::from_static(key.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        });
        assert_eq!(state.state_rows, expected);
    }

    pub(super) async fn batches_are_found_by_offset(storage: &Storage) {
        let group = storage.group(GROUP);
        let written = entries(1, 0..6, &[10, 20, 30]);
        append(&group, written.clone()).await.unwrap();
        group.apply(applied("a", rows(0, &written))).await.unwrap();
        let read = group
            .read_batches(Offset(45), Offset(91), usize::MAX)
            .await
            .unwrap();
        let bases: Vec<_> = read.iter().map(|batch| batch.row.base_offset.0).collect();
        assert_eq!(bases, [40, 50, 60, 70, 80, 90]);
        assert_eq!(read[0].part, written[1].parts[1]);
        assert_eq!(read[0].header, written[1].header);
        assert_eq!(
            group
                .read_batches(Offset(45), Offset(91), 50)
                .await
                .unwrap()
                .len(),
            2
        );
        assert!(
            group
                .read_batches(Offset(180), Offset(999), 25)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            group
                .read_batches(Offset(45), Offset(40), 25)
                .await
                .unwrap()
                .is_empty()
        );
    }

    pub(super) async fn batches_without_memory_are_read_from_the_tables(storage: &Storage) {
        let group = storage.group(GROUP);
        let written = entries(1, 0..40, &[1000, 2000, 30_000]);
        append(&group, written.clone()).await.unwrap();
        let rows = rows(0, &written);
        group
            .apply(applied("a", rows[..60].to_vec()))
            .await
            .unwrap();
        forget_tail(storage, &group).await;
        // The entries are on disk, the rows of the second half in memory only.
        group
            .apply(applied("b", rows[60..].to_vec()))
            .await
            .unwrap();
        for from in [0, 5, 599, 600, 700] {
            let read = group
                .read_batches(Offset(from), Offset(u64::MAX), usize::MAX)
                .await
                .unwrap();
            let found: Vec<_> = read.iter().map(|batch| batch.row).collect();
            assert_eq!(found, rows[from as usize / 10..]);
            for batch in read {
                let entry = &written[batch.row.index.0 as usize];
                assert_eq!(batch.part, entry.parts[batch.row.part as usize]);
            }
        }
        let some = group
            .read_batches(Offset(0), Offset(u64::MAX), 33_000)
            .await
            .unwrap();
        assert_eq!(some.len(), 3);
    }

    pub(super) async fn searches_agree_with_a_linear_scan(storage: &Storage) {
        let group = storage.group(GROUP);
        let written: Vec<_> = (0..60u64)
            .map(|at| entry(1, at, &vec![1; at as usize % 4]))
            .collect();
        append(&group, written.clone()).await.unwrap();
        let rows = rows(0, &written);
        group
            .apply(applied("a", rows[..50].to_vec()))
            .await
            .unwrap();
        forget_tail(storage, &group).await;
        group
            .apply(applied("b", rows[50..].to_vec()))
            .await
            .unwrap();
        for purged in [None, Some(3), Some(40), Some(58)] {
            if let Some(purged) = purged {
                group.purge(id(1, purged), Bytes::new()).await.unwrap();
            }
            let visible = rows
                .iter()
                .filter(|row| purged.is_none_or(|purged| row.index.0 > purged));
            let visible: Vec<_> = visible.collect();
            for step in 0..=(rows.len() as u64 + 2) {
                for search in [
                    Search::Contains(Offset(step * 10 + 3)),
                    Search::AppendTimeFrom(999 + step as i64),
                    Search::TimestampFrom(1999 + step as i64),
                    Search::EndBytesAbove(step * 100),
                    Search::Place {
                        index: LogIndex(step / 2),
                        part: step as u32 % 3,
                    },
                ] {
                    let expected = visible.iter().find(|row| search.matches(row));
                    let found = group.find(search).await.unwrap();
                    assert_eq!(found.as_ref(), expected.copied(), "{search:?} {purged:?}");
                }
            }
        }
    }

    pub(super) async fn a_deleted_group_leaves_nothing(storage: &Storage) {
        let group = storage.group(GROUP);
        let neighbour = storage.group(GroupId(GROUP.0 + 1));
        let written = entries(1, 0..30, &[700_000]);
        append(&neighbour, entries(1, 0..3, &[100])).await.unwrap();
        append(&group, written.clone()).await.unwrap();
        let mut all = applied("a", rows(0, &written));
        all.state_rows = vec![(Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")))];
        group.apply(all).await.unwrap();
        group.save_vote(Bytes::from_static(b"vote")).await.unwrap();
        storage.delete_group(GROUP).await.unwrap();
        assert!(matches!(group.load().await, Err(Error::Deleted(GROUP))));
        assert_eq!(storage.rows_of(GROUP), 0);
        let again = storage.group(GROUP);
        assert!(again.load().await.unwrap().vote.is_none());
        append(&again, entries(9, 0..2, &[10])).await.unwrap();
        assert_eq!(again.load().await.unwrap().last, Some(id(9, 1)));
        assert_eq!(neighbour.load().await.unwrap().last, Some(id(1, 2)));
    }

    pub(super) async fn an_emptied_group_leaves_a_vote_and_nothing_else(storage: &Storage) {
        let group = storage.group(GROUP);
        let written = entries(1, 0..30, &[700_000]);
        append(&group, written.clone()).await.unwrap();
        let mut all = applied("a", rows(0, &written));
        all.state_rows = vec![(Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")))];
        group.apply(all).await.unwrap();
        group.save_vote(Bytes::from_static(b"old")).await.unwrap();
        let vote = Bytes::from_static(b"new");
        storage.empty_group(GROUP, vote.clone()).await.unwrap();
        assert!(matches!(group.load().await, Err(Error::Deleted(GROUP))));
        assert_eq!(storage.rows_of(GROUP), 0);
        assert_eq!(storage.groups().unwrap(), [GROUP]);
        let again = storage.group(GROUP);
        let state = again.load().await.unwrap();
        assert_eq!(state.vote, Some(vote));
        assert!(state.last.is_none() && state.applied.is_none() && state.state_rows.is_empty());
        append(&again, entries(9, 0..2, &[10])).await.unwrap();
        assert_eq!(again.load().await.unwrap().last, Some(id(9, 1)));
        storage.delete_group(GROUP).await.unwrap();
        assert_eq!(storage.groups().unwrap(), []);
    }

    pub(super) async fn an_append_that_leaves_a_gap_is_refused(storage: &Storage) {
        let group = storage.group(GROUP);
        append(&group, entries(1, 0..3, &[10])).await.unwrap();
        let gap = append(&group, entries(1, 4..5, &[10])).await;
        assert!(matches!(gap, Err(Error::NotContiguous { .. })));
        let within = vec![entry(1, 3, &[1]), entry(1, 5, &[1])];
        let within = append(&group, within).await;
        assert!(matches!(within, Err(Error::NotContiguous { .. })));
        append(&group, entries(1, 3..4, &[10])).await.unwrap();
    }

    pub(super) async fn a_log_may_begin_behind_zero(storage: &Storage) {
        let group = storage.group(GROUP);
        group.load().await.unwrap();
        let written = entries(1, 5..8, &[10]);
        append(&group, written.clone()).await.unwrap();
        for _ in 0..2 {
            let read = group.read(index(5), END, usize::MAX).await.unwrap();
            assert_eq!(read, written);
            forget_tail(storage, &group).await;
        }
    }

    pub(super) async fn groups_are_listed_without_the_deleted(storage: &Storage) {
        for id in [0u64, 3, 1 << 40] {
            let group = storage.group(GroupId(id));
            group.save_vote(Bytes::new()).await.unwrap();
        }
        storage.delete_group(GroupId(3)).await.unwrap();
        assert_eq!(storage.groups().unwrap(), [GroupId(0), GroupId(1 << 40)]);
    }

    pub(super) async fn everything_after_close_is_refused(storage: &Storage) {
        let other = both();
        drop(other);
        let group = storage.group(GROUP);
        append(&group, entries(1, 0..2, &[10])).await.unwrap();
        let clone = storage.clone();
        let second = both();
        for storage in second {
            let group = storage.group(GROUP);
            storage.close().await.unwrap();
            assert!(matches!(storage.close().await, Err(Error::Closed)));
            assert!(matches!(group.load().await, Err(Error::Closed)));
            assert!(matches!(
                append(&group, entries(1, 0..1, &[1])).await,
                Err(Error::Closed)
            ));
            assert!(matches!(storage.flush().await, Err(Error::Closed)));
            assert!(matches!(storage.groups(), Err(Error::Closed)));
        }
        clone.flush().await.unwrap();
    }
}
