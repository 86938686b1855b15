//! Packing, checking and unpacking of record batches.
