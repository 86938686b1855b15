//! Whether anything stirs among the groups of a node: while all of them sleep, and no node comes or goes, there is nothing
//! to look at.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What wakes those that look after groups.
#[derive(Debug)]
pub(super) struct Stir {
    notify: Notify,
    count: AtomicU64,
    /// The count at which all groups were found asleep.
    asleep_at: AtomicU64,
}

impl Default for Stir {
    fn default() -> Self {
        Self {
            notify: Notify::new(),
            count: AtomicU64::new(0),
            asleep_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl Stir {
    /// A group has woken or was opened, or a node has come or gone.
    pub(super) fn stir(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Waits until something has stirred since this was called last.
    pub(super) async fn stirred(&self) {
        self.notify.notified().await;
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// All groups were found asleep by somebody who had read `count` before.
    pub(super) fn found_asleep(&self, count: u64) {
        self.asleep_at.store(count, Ordering::SeqCst);
    }

    /// If all groups sleep, a number that stays the same until something stirs.
    pub(super) fn asleep(&self) -> Option<u64> {
        let count = self.count();
        (self.asleep_at.load(Ordering::SeqCst) == count).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sleeps_until_something_stirs_also_while_it_is_looked_at() {
        let stir = Stir::default();
        assert_eq!(stir.asleep(), None, "nobody has looked");
        stir.found_asleep(stir.count());
        let sleeping = stir.asleep();
        assert!(sleeping.is_some());
        assert_eq!(stir.asleep(), sleeping);
        let before = stir.count();
        stir.stir();
        assert_eq!(stir.asleep(), None);
        stir.found_asleep(before);
        assert_eq!(stir.asleep(), None, "what woke meanwhile was not seen");
        stir.found_asleep(stir.count());
        assert_ne!(stir.asleep(), sleeping);
    }
}
