//! Tower layers around the RPC services, one a file. They see HTTP requests and gRPC statuses, never a message.
//!
//! Start reading at [`stacks`], which says which layers there are, in what order and why. Errors that a layer makes
//! come from [`reply`], like those of the services.

mod deadline;
mod decode_errors;
mod methods;
mod observe;
mod receive;
pub mod reply;
mod shed;
pub mod stacks;

pub use deadline::{Deadline, DeadlineConfig};
pub use decode_errors::from_decoder;
pub use methods::{Method, Methods};
pub use receive::{ConnectionBytes, ReceiveBody, ReceiveConfig, Received};
pub use shed::ShedConfig;
