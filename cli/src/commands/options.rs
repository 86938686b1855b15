//! Options that several commands have.

use clap::{ValueEnum, builder::RangedI64ValueParser};
use kelda_proto::v1::Compression as WireCompression;

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Lz4,
    Zstd,
    Gzip,
}

impl From<Compression> for WireCompression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Unspecified,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
            Compression::Gzip => Self::Gzip,
        }
    }
}

/// A parser of partition numbers.
pub(crate) fn partition() -> RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(0..)
}
