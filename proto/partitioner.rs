//! Which partition a key belongs to: the arithmetic of Kafka's default partitioner, so that a topic moved over from
//! there keeps every key in its partition. Kelda's brokers and clients both use it.

/// Kafka's seed.
const SEED: u32 = 0x9747_b28c;
/// Multiplier of MurmurHash2.
const MULTIPLIER: u32 = 0x5bd1_e995;

/// MurmurHash2 with Kafka's seed: the same bits as `org.apache.kafka.common.utils.Utils.murmur2`, which returns
/// them as a signed number.
pub fn murmur2(key: &[u8]) -> u32 {
    // Kafka's lengths are 32 bit too, and a key is never that long.
    let mut hash = SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (position, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of `key` in a topic of `partition_count` partitions: `(murmur2(key) & 0x7fffffff) % count`.
/// A count of 0 counts as 1.
pub fn partition_for_key(key: &[u8], partition_count: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partition_count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_kafka_publishes() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key) as i32, hash, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn partitions_are_below_the_count_and_negative_hashes_lose_their_sign() {
        for count in [1, 2, 3, 7, 12, 10_000] {
            for key in [&b""[..], b"21", b"foobar", b"abc", &[0xff; 9]] {
                assert!(partition_for_key(key, count) < count);
            }
        }
        // -973932308 & 0x7fffffff = 1173551340
        assert_eq!(partition_for_key(b"21", 1000), 340);
        assert_eq!(partition_for_key(b"21", 0), 0);
    }
}
