//! The contract of Kelda: what clients, nodes and the disk say, and the code that both ends must agree on.
//!
//! [`v1`] is generated from `proto/kelda/v1` (clients), [`internal`] from `proto/kelda/internal/v1` (nodes and
//! disk). Beside them: [`batch`] packs and checks record batches, [`codec`] guards what is decoded, [`partitioner`] places keys, [`limits`] holds the
//! numbers that both sides know.

pub mod batch;
pub mod codec;
pub mod limits;
pub mod partitioner;

/// Messages, clients and servers of package `kelda.v1`.
#[allow(
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("kelda.v1");
}

/// Messages of package `kelda.internal.v1`.
pub mod internal {
    /// The only version there is.
    #[allow(
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        unused_qualifications,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("kelda.internal.v1");
    }
}

/// All files of `proto/` as an encoded `google.protobuf.FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `domain` of the `google.rpc.ErrorInfo` in every status that a broker makes.
pub const ERROR_DOMAIN: &str = "kelda";
