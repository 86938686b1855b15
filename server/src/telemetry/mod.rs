//! Telemetry: the clock, the log, metrics and trace context. OpenTelemetry is known only here.
//!
//! An idle node spends nothing on being observable: the thread that writes the log sleeps while there are no lines, and
//! those that carry other rooms' work under a name ([`Thread`]) do nothing else. Start reading at [`Metrics`], then
//! [`logging`].

pub mod clock;
mod gossip_metrics;
pub mod logging;
pub mod metrics;
mod process;
mod rpc_metrics;
mod thread;
pub mod trace_context;

pub use gossip_metrics::{GossipMetrics, GossipOutcome};
pub use metrics::Metrics;
pub use rpc_metrics::{RpcMetrics, Shed};
pub use thread::Thread;
