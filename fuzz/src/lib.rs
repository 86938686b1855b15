//! What must hold of every input, whatever its bytes. Each function takes any bytes and panics if it does not hold.
//!
//! The fuzz targets call them with inputs that they search for, `tests/decoders.rs` of the root package with random
//! ones.

mod batch;
mod entry;
mod machines;
mod requests;

pub use batch::record_batch;
pub use entry::stored_entry;
pub use machines::{catalog_machine, partition_machine};
pub use requests::requests;

use prost::Message;

/// Decodes a message. What decodes must come out the same when it is encoded and decoded again.
fn decode<M: Message + Default + PartialEq + std::fmt::Debug>(input: &[u8]) -> Option<M> {
    let message = M::decode(input).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message));
    Some(message)
}

/// Cuts the input into pieces: each starts with a byte that says how long it is.
fn pieces(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first()?;
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        input = rest;
        Some(piece)
    })
}
