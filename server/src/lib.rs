//! The Kelda broker as a library. Rooms, top to bottom; imports run downward only:
//! `node`, `config` -> `rpc` -> `broker` -> `consensus` -> `storage`, `membership`, `peers` -> `middleware` ->
//! `telemetry`, `machine` -> `types`. Start reading at `node`.

pub mod broker;
pub mod config;
pub mod consensus;
pub mod machine;
pub mod membership;
pub mod middleware;
pub mod node;
pub mod peers;
pub mod rpc;
pub mod storage;
pub mod telemetry;
pub mod types;
