//! How an encoded entry is cut into rows, so that the disk holds little more than its bytes.
//!
//! redb gives a row that does not fit a 4 KiB leaf a leaf of its own, and rounds that leaf up to a power of two: a
//! value of 65,536 bytes takes 128 KiB. So an entry is cut into *chunks* that fill such a leaf to at least 7/8, and
//! what is left stays with the entry's head, in a row that shares its leaf with its neighbours.

use super::keys::CHUNK_KEY_BYTES;

/// Smallest leaf of redb.
const PAGE_BYTES: usize = 4096;
/// What redb adds to the one row of a leaf: four bytes for the leaf, four for each end of key and value.
const LEAF_OVERHEAD: usize = 12;
/// Largest leaf that a chunk fills: `PAGE_BYTES << CHUNK_ORDER_MAX`.
const CHUNK_ORDER_MAX: u32 = 8;
/// An entry of up to this many bytes, or the front of a longer one, is one row of the heads table.
const HEAD_ROW_MAX: usize = PAGE_BYTES - LEAF_OVERHEAD - 16;
/// The front always holds this much: the fixed fields from which the rest can be sized.
pub(super) const FRONT_MIN: usize = super::codec::FIXED_BYTES;

/// Where the bytes of an encoded entry go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes in the row of the heads table.
    pub(super) front: usize,
    /// Bytes of each chunk behind it, in order.
    pub(super) chunks: Vec<usize>,
}

/// Bytes of a chunk that fills a leaf of `PAGE_BYTES << order`.
const fn chunk_bytes(order: u32) -> usize {
    (PAGE_BYTES << order) - LEAF_OVERHEAD - CHUNK_KEY_BYTES
}

/// Cuts an encoded entry of `total` bytes, at least [`FRONT_MIN`].
pub(super) fn layout(total: usize) -> Layout {
    let mut chunks = Vec::new();
    let mut rest = total;
    while rest > HEAD_ROW_MAX {
        let want = rest - FRONT_MIN;
        let mut order = 0;
        while order < CHUNK_ORDER_MAX && chunk_bytes(order) < want {
            order += 1;
        }
        let room = chunk_bytes(order);
        let take = if want >= room {
            room
        } else if room - want <= room / 8 {
            want
        } else {
            chunk_bytes(order - 1)
        };
        chunks.push(take);
        rest -= take;
    }
    Layout {
        front: rest,
        chunks,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pages(layout: &Layout) -> usize {
        let chunks = layout.chunks.iter();
        let leaves = chunks.map(|bytes| {
            (bytes + LEAF_OVERHEAD + CHUNK_KEY_BYTES)
                .next_power_of_two()
                .max(PAGE_BYTES)
        });
        PAGE_BYTES + leaves.sum::<usize>()
    }

    proptest! {
        #[test]
        fn every_byte_has_a_place_and_little_is_wasted(total in FRONT_MIN..20_000_000usize) {
            let layout = layout(total);
            prop_assert_eq!(layout.front + layout.chunks.iter().sum::<usize>(), total);
            prop_assert!(layout.front >= FRONT_MIN && layout.front <= HEAD_ROW_MAX);
            prop_assert!(pages(&layout) <= total + total / 7 + 2 * PAGE_BYTES);
        }
    }

    #[test]
    fn batches_of_common_sizes_take_a_known_number_of_rows() {
        assert_eq!(layout(100).chunks, Vec::<usize>::new());
        assert_eq!(layout(64 * 1024).chunks.len(), 1);
        assert_eq!(layout(64 * 1024 + 1200).chunks.len(), 1);
        assert_eq!(layout((1 << 20) + 600).chunks.len(), 1);
        assert!(pages(&layout(66 * 1024)) <= 66 * 1024 * 13 / 10);
    }
}
