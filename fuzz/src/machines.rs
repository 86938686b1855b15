//! Commands and states as they are stored.

use kelda_proto::internal::v1::partition_command::Command;
use kelda_proto::internal::v1::{
    CatalogCommand, CatalogState, PartitionCommand, PartitionSnapshot,
};
use kelda_server::machine::catalog::{Catalog, TopicRange};
use kelda_server::machine::partition::Partition;
use kelda_server::types::LogIndex;

use super::{decode, pieces};

/// Takes the first piece of the input as a stored snapshot, and applies the others to it as commands.
pub fn partition_machine(input: &[u8]) {
    let mut pieces = pieces(input);
    let mut partition = pieces
        .next()
        .and_then(decode::<PartitionSnapshot>)
        .and_then(|snapshot| Partition::from_snapshot(snapshot).ok())
        .unwrap_or_default();
    for (index, piece) in (1..).zip(pieces) {
        let Some(command) = decode::<PartitionCommand>(piece) else {
            continue;
        };
        let batches = match &command.command {
            Some(Command::Append(append)) => append.batches.len(),
            _ => 0,
        };
        let before = partition.clone();
        let effects = partition.apply(LogIndex(index), &command, &vec![1; batches]);
        assert_eq!(effects.outcomes.len(), batches);
        assert!(partition.next_offset() >= before.next_offset());
        assert!(partition.log_start() >= before.log_start());
        assert!(partition.log_start() <= partition.next_offset());
        let accepted: u64 = effects
            .rows
            .iter()
            .map(|row| u64::from(row.record_count))
            .sum();
        assert_eq!(before.next_offset().0 + accepted, partition.next_offset().0);

        let mut late = Partition::from_snapshot(before.snapshot()).expect("a state restores");
        assert_eq!(
            late.apply(LogIndex(index), &command, &vec![1; batches]),
            effects
        );
        assert_eq!(late, partition);
    }
}

/// Takes the first piece of the input as a stored state, and applies the others to it as commands.
pub fn catalog_machine(input: &[u8]) {
    let mut pieces = pieces(input);
    let mut catalog = pieces
        .next()
        .and_then(decode::<CatalogState>)
        .and_then(|state| Catalog::restore(state).ok())
        .unwrap_or_default();
    for piece in pieces {
        let Some(command) = decode::<CatalogCommand>(piece) else {
            continue;
        };
        let before = catalog.clone();
        if catalog.apply(&command).is_err() {
            assert_eq!(catalog, before, "a rejected command changes nothing");
        }
        let partitions = catalog
            .topics_from(TopicRange::default())
            .map(|topic| topic.partitions.len());
        assert_eq!(partitions.sum::<usize>(), catalog.partition_count());
        let restored = Catalog::restore(catalog.state());
        assert_eq!(restored.as_ref(), Ok(&catalog));
    }
}
