//! Randomness for session ids and jitter: good enough to be unique, not for secrets.

use std::hash::{BuildHasher, RandomState};

/// A random number. The standard library seeds its hashers from the operating system.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one(0_u8)
}
