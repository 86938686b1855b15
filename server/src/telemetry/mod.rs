//! Telemetry: the clock, the log, metrics and trace context. OpenTelemetry is known only here.
//!
//! Nothing in this room runs in the background but a writer of log lines, which sleeps while there are none: an idle
//! node spends nothing on being observable. Start reading at [`Metrics`], then [`logging`].

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
