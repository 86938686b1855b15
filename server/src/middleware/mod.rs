//! Tower layers, one a file. Those around the RPC services see HTTP requests and gRPC statuses, never a message;
//! those around gossip see events that come in.
//!
//! Start reading at [`stacks`], which says which layers there are, in what order and why. Errors that a layer makes
//! come from [`reply`], like those of the services.

mod deadline;
mod decode_errors;
mod events;
mod methods;
mod observe;
mod observe_events;
mod peer_identity;
mod receive;
pub mod reply;
mod shed;
mod shed_events;
pub mod stacks;
mod validate;

pub use deadline::{Deadline, DeadlineConfig};
pub use decode_errors::from_decoder;
pub use events::{Event, Unheard, Validate};
pub use methods::{Method, Methods};
pub use peer_identity::{CLUSTER_HEADER, Caller, FROM_HEADER, Known, PeerIdentity, TO_HEADER};
pub use receive::{ConnectionBytes, ReceiveBody, ReceiveConfig, Received};
pub use shed::ShedConfig;
