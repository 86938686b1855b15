//! How long a fault keeps producers from getting on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The first acknowledgement of each probe since a mark.
#[derive(Default)]
pub(super) struct Gap(Mutex<Option<Marked>>);

struct Marked {
    at: Instant,
    firsts: Vec<Option<Duration>>,
}

impl Gap {
    fn marked(&self) -> MutexGuard<'_, Option<Marked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self, probes: usize) {
        *self.marked() = Some(Marked {
            at: Instant::now(),
            firsts: vec![None; probes],
        });
    }

    /// A probe got an acknowledgement for an attempt that it began then. One that it began before the mark may have
    /// been answered before the fault took effect.
    pub(super) fn acknowledged(&self, probe: usize, began: Instant) {
        if let Some(marked) = &mut *self.marked()
            && began >= marked.at
        {
            let took = marked.at.elapsed();
            marked.firsts[probe].get_or_insert(took);
        }
    }

    /// The longest, once all have one.
    pub(super) fn longest(&self) -> Option<Duration> {
        let marked = self.marked();
        let firsts = marked.as_ref().map(|marked| marked.firsts.iter().copied());
        let all: Option<Vec<Duration>> = firsts?.collect();
        all?.into_iter().max()
    }
}
