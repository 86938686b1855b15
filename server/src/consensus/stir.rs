//! Whether anything stirs among the groups of a node: while all of them sleep, and no node comes or goes, there is little
//! to look at.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep_until, timeout_at},
};

use super::Beat;

/// How many times rarer a node looks while all of its groups sleep, and then only at whether they still do: what changes
/// tells of itself, and memory that was left alone is dear to look at.
const ASLEEP_FACTOR: u32 = 10;

/// All groups of a node are asleep, and have been since something stirred last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep(u64);

/// Tells those that look after groups that there is something to look at.
#[derive(Debug)]
pub(super) struct Stir {
    /// How often something has stirred.
    count: watch::Sender<u64>,
    /// The count at which all groups were found asleep.
    asleep_at: AtomicU64,
}

impl Default for Stir {
    fn default() -> Self {
        Self {
            count: watch::channel(0).0,
            asleep_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl Stir {
    /// A group has woken or was opened, or a node has come or gone.
    pub(super) fn stir(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// Waits until something has stirred since the count was `before`.
    pub(super) async fn stirred(&self, before: u64) {
        // It fails only once the sender is gone, which is here.
        let _ = self
            .count
            .subscribe()
            .wait_for(|count| *count != before)
            .await;
    }

    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// All groups were found asleep by somebody who had read `count` before.
    pub(super) fn found_asleep(&self, count: u64) {
        self.asleep_at.store(count, Ordering::SeqCst);
    }

    /// If all groups sleep, a sleep that stays the same until something stirs.
    pub(super) fn asleep(&self) -> Option<Sleep> {
        let count = self.count();
        (self.asleep_at.load(Ordering::SeqCst) == count).then_some(Sleep(count))
    }

    /// Waits until what is done every `interval` is due. For whoever has found nothing to do in the sleep `idle_in` nothing is
    /// due until that has ended, by something that stirs or because `asleep` says so. May be dropped while it waits.
    pub(super) async fn rest(
        &self,
        beat: Beat,
        interval: Duration,
        idle_in: Option<Sleep>,
        asleep: impl Fn() -> Option<Sleep>,
    ) {
        if let Some(Sleep(count)) = idle_in {
            let rare = interval.saturating_mul(ASLEEP_FACTOR);
            while timeout_at(beat.next(rare), self.stirred(count))
                .await
                .is_err()
            {
                if asleep() != idle_in {
                    return;
                }
            }
        }
        sleep_until(beat.next(interval)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

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

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_in_a_sleep() {
        let (stir, beat) = (Stir::default(), Beat::begin());
        let begun = Instant::now();
        let interval = Duration::from_secs(30);
        stir.rest(beat, interval, None, || None).await;
        assert_eq!(begun.elapsed(), interval, "not all sleep");
        stir.found_asleep(stir.count());
        let sleep = stir.asleep();
        let stirring = async {
            advance(interval * ASLEEP_FACTOR * 2 + Duration::from_secs(7)).await;
            stir.stir();
        };
        tokio::join!(stir.rest(beat, interval, sleep, || sleep), stirring);
        let stirred = interval * (ASLEEP_FACTOR * 2 + 2);
        assert_eq!(begun.elapsed(), stirred, "at the next beat");
        stir.rest(beat, interval, sleep, || sleep).await;
        assert_eq!(begun.elapsed(), stirred + interval, "it had stirred");
        stir.found_asleep(stir.count());
        let sleep = stir.asleep();
        stir.rest(beat, interval, sleep, || None).await;
        let ended = interval * ASLEEP_FACTOR * 3;
        assert_eq!(begun.elapsed(), ended, "a node is silent");
    }
}
