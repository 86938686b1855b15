//! Words for stacks whose requests are events that somebody else sent: nobody waits for an answer.

/// An event that can be counted.
pub trait Event {
    /// What kind of event it is: one of a few words.
    fn kind(&self) -> &'static str;
}

/// Judges events, and reads them on the way.
pub trait Validate<Q> {
    /// An event that was read.
    type Valid;
    /// Why it is refused.
    type Refusal;

    /// Judges an event.
    fn validate(&self, event: Q) -> Result<Self::Valid, Self::Refusal>;
}

/// Why an event had no effect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard<R> {
    /// It was not valid.
    #[error("refused: {0}")]
    Refused(R),
    /// There were too many.
    #[error("too many events")]
    Shed,
}

/// There were too many events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many events")]
pub struct Overloaded;

impl<R> From<Overloaded> for Unheard<R> {
    fn from(_: Overloaded) -> Self {
        Self::Shed
    }
}
