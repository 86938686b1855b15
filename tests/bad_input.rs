//! What no client should send: each is refused with the code, reason and metadata that the contract promises, with
//! a message that says what to do, and nothing is lost or served wrong afterwards.

mod support;

mod bad_input {
    mod batches;
    mod limits;
    mod names;
    mod offsets;
    mod sessions;
    mod streams;
}
