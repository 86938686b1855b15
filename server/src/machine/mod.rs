//! Pure state machines: input in, effects out. No async, clock, randomness, logging or hash-map order, so that
//! every replica that applies the same commands has the same state.
//!
//! Commands come from a committed log: `apply` never fails and never panics, whatever they hold. Their rules are
//! part of the storage format, because a log written by one version is applied again by the next: a change of a
//! rule or of a constant here needs a new format version. Only [`placement`] is free to change: what it decides goes
//! into commands before they are proposed. Start reading at [`partition`].

pub mod catalog;
pub mod partition;
pub mod placement;
pub mod topic_config;

mod sessions;

/// Stored state that no sequence of commands leads to: it was damaged, or another version wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored state is not valid ({0}): restore the data directory from a copy")]
pub struct Invalid(pub &'static str);

/// Returns [`Invalid`] unless `condition` holds.
fn ensure(condition: bool, otherwise: &'static str) -> Result<(), Invalid> {
    if condition {
        Ok(())
    } else {
        Err(Invalid(otherwise))
    }
}
