//! Membership: which nodes there are, where they are reached and whether they live, by gossip. memberlist is known
//! only here.
//!
//! It is a hint, to find nodes and to be quick about their end; who belongs to the cluster is for the catalog to say,
//! and nothing that must not be lost depends on it. What comes in passes the `gate` (is it of this cluster?) before
//! memberlist believes it, and the gossip stack before it is in the [`View`]. Start reading at [`Gossip`].

mod announcement;
mod config;
mod conflicts;
mod delegate;
#[cfg(test)]
pub(crate) mod fake;
mod gate;
mod gossip;
mod intake;
mod peers;
mod publish;
mod seeds;
mod tcp;
#[cfg(test)]
mod tests;
mod thread;
mod view;

use std::{collections::BTreeSet, sync::Arc};

use futures::future::BoxFuture;
use tokio::sync::watch;

pub use announcement::{ANNOUNCEMENT_BYTES_MAX, Announcement, Error, Founding};
pub use config::{Config, Key};
pub use gossip::{Gossip, StartError};
pub use thread::Thread;
pub use view::{Liveness, Node, View};

/// What the rest of a node knows of gossip.
pub trait Membership: Send + Sync {
    /// The nodes that were heard of, this one included. Watchers are woken only by changes.
    fn watch(&self) -> watch::Receiver<Arc<View>>;

    /// Tells the others this of this node from now on. They hear of it soon, but not more often than the
    /// configuration says; of several announcements at once they hear the last.
    fn announce(&self, announcement: Announcement) -> Result<(), Error>;

    /// Meets these nodes too, each `host:port`, and goes on trying; they take the place of those that were named before.
    fn seek(&self, nodes: BTreeSet<String>);

    /// Tells the others that this node leaves, and takes no part any more. Answers when they know, or after a few
    /// seconds. May be called again.
    fn leave(&self) -> BoxFuture<'_, ()>;
}
