//! What happened in a run, in order: two runs of one seed must have the same.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

/// The events of a run; clones write into the same one.
#[derive(Clone)]
pub(crate) struct Trace {
    began: Instant,
    echo: bool,
    tape: Arc<Mutex<Tape>>,
}

#[derive(Default)]
struct Tape {
    // Its keys are fixed.
    hasher: DefaultHasher,
    events: u64,
}

impl Trace {
    /// A trace that begins now; with `echo` it is printed, too.
    pub(crate) fn new(echo: bool) -> Self {
        Self {
            began: Instant::now(),
            echo,
            tape: Arc::default(),
        }
    }

    /// Notes an event.
    pub(crate) fn note(&self, event: impl fmt::Display) {
        let text = format!("{:>6} {event}", self.elapsed_ms());
        if self.echo {
            println!("{text}");
        }
        let mut tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        text.hash(&mut tape.hasher);
        tape.events += 1;
    }

    /// Milliseconds of the run's own clock.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Stands for all events so far, and how many there are.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        (tape.hasher.finish(), tape.events)
    }
}
