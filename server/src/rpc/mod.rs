//! What clients call: gRPC services, one a file, and a few pages of HTTP beside them. The only room that knows
//! gRPC. Handlers translate: decode, validate, one call into the broker, encode.
//!
//! Start reading at [`Server::start`], then `produce.rs`. Errors become statuses in `status.rs` and nowhere else.

mod cluster;
mod connection;
mod consume;
mod consume_stream;
mod convert;
mod dispatch;
mod health;
mod http;
mod listener;
mod peer;
mod produce;
mod produce_stream;
mod reflection;
mod routes;
mod server;
mod status;
mod topics;
mod watch_stream;

pub use listener::{BindError, Listener};
pub use peer::PeerApi;
pub use server::{Options, Server, StartError};
