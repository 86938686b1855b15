//! Replicas hold the same bytes as far as both have committed.

use crate::support::checker::dump::{Divergence, Dump, assert_equal, divergences};

fn dump(replica: &str, range: std::ops::Range<i64>, entries: &[(i64, &str)]) -> Dump {
    let entries = entries.iter();
    Dump {
        replica: replica.to_owned(),
        partition: 3,
        start: range.start,
        commit: range.end,
        entries: entries
            .map(|(offset, bytes)| (*offset, bytes.as_bytes().to_vec()))
            .collect(),
    }
}

const LOG: [(i64, &str); 3] = [(0, "a"), (2, "bc"), (4, "d")];

#[test]
fn replicas_may_differ_in_how_much_they_keep_and_have_committed() {
    let dumps = [
        dump("one", 0..5, &LOG),
        dump("behind", 0..4, &LOG[..2]),
        dump("trimmed", 3..5, &LOG[1..]),
        // What is not committed may still be taken back.
        dump("deposed", 0..2, &[(0, "a"), (2, "x")]),
    ];
    assert_eq!(divergences(&dumps), []);
    assert_equal(&dumps[..3]);
}

#[test]
fn other_bytes_missing_entries_and_other_borders_are_found() {
    let one = dump("one", 0..5, &LOG);
    let others: [(&[_], i64, Option<&str>); 3] = [
        (&[(0, "a"), (2, "bx"), (4, "d")], 2, Some("bx")),
        (&[(0, "a"), (4, "d")], 2, None),
        (&[(0, "a"), (1, "b"), (2, "bc"), (4, "d")], 1, Some("b")),
    ];
    for (entries, offset, bytes) in others {
        let found = divergences(&[one.clone(), dump("two", 0..5, entries)]);
        let held = one.entries.get(&offset).cloned();
        let expected = Divergence {
            partition: 3,
            offset,
            replicas: [
                ("one".to_owned(), held),
                (
                    "two".to_owned(),
                    bytes.map(|bytes| bytes.as_bytes().to_vec()),
                ),
            ],
        };
        assert_eq!(found, [expected]);
    }
}

#[test]
fn partitions_are_not_compared_with_each_other() {
    let other = Dump {
        partition: 4,
        ..dump("two", 0..5, &[(0, "x")])
    };
    assert_eq!(divergences(&[dump("one", 0..5, &LOG), other]), []);
}

#[test]
#[should_panic(
    expected = "replicas of partition 3 differ at 4: one has 1 bytes \"d\"; two has nothing;"
)]
fn a_difference_fails_the_test() {
    assert_equal(&[dump("one", 0..5, &LOG), dump("two", 0..5, &LOG[..2])]);
}

#[test]
#[should_panic(expected = "nothing in common")]
fn replicas_with_nothing_in_common_show_nothing() {
    assert_equal(&[dump("one", 0..5, &LOG), dump("two", 0..0, &[])]);
}
