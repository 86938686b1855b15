//! How much of its file redb needs for the rows: an estimate on the high side.
//!
//! redb keeps the pages of deleted rows in its file and takes them again before it grows. How many there are it tells
//! only by walking every tree, so each transaction keeps account instead: of what its rows can take in pages.
//! A small row between two that fill their leaves may have a leaf to itself, which the account does not see: half of the
//! floor of free space stands in for that.

/// Smallest page of redb.
const PAGE_BYTES: u64 = 4096;
/// What redb adds to a leaf and to each row in it.
const LEAF_OVERHEAD: u64 = 4;
const ROW_OVERHEAD: u64 = 8;
/// What a leaf costs the branches above it, at most.
const BRANCH_COST: u64 = 256;
/// redb merges leaves that are less than a third full.
const LEAVES_PER_FULL_LEAF: u64 = 3;

/// Changes of what the rows occupy, in one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    added: u64,
    removed: u64,
}

impl Account {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.added += row_cost(key.len() + value.len());
    }

    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.removed += row_cost(key.len() + value.len());
    }

    /// What the rows occupy after the transaction.
    pub(super) fn after(self, before: u64) -> u64 {
        before
            .saturating_add(self.added)
            .saturating_sub(self.removed)
    }
}

/// Bytes of pages that a row of `bytes` takes: the most, if its neighbours are about as large.
fn row_cost(bytes: usize) -> u64 {
    let row = ROW_OVERHEAD + bytes as u64;
    if row < PAGE_BYTES / LEAVES_PER_FULL_LEAF {
        return row * LEAVES_PER_FULL_LEAF + row / 2;
    }
    // In the worst case it has a leaf of its own.
    let leaf = (LEAF_OVERHEAD + row).next_power_of_two();
    leaf.max(PAGE_BYTES) + BRANCH_COST
}
