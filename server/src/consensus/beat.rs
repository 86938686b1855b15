//! When a node looks at things that nothing told it of. Looks that are due in the same second are made in the same
//! moment: a processor that was idle pays more for waking up, with caches that have gone cold, than for the look.

use std::time::Duration;

use tokio::time::Instant;

/// The beat of a node. Copies beat together.
#[derive(Clone, Copy, Debug)]
pub struct Beat(Instant);

impl Beat {
    /// Begins now.
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// When what is done every `interval` is due next: at a multiple of it since the beginning.
    pub fn next(self, interval: Duration) -> Instant {
        let interval = interval.max(Duration::from_millis(1));
        let now = Instant::now();
        let into = (now - self.0).as_nanos() % interval.as_nanos();
        let left = interval.as_nanos() - into;
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_every_so_often_is_due_together() {
        let beat = Beat::begin();
        let begun = Instant::now();
        let seconds = Duration::from_secs;
        advance(Duration::from_millis(1500)).await;
        assert_eq!(beat.next(seconds(10)), begun + seconds(10));
        assert_eq!(beat.next(seconds(5)), begun + seconds(5));
        sleep_until(beat.next(seconds(10))).await;
        assert_eq!(beat.next(seconds(10)), begun + seconds(20), "not at once");
        assert_eq!(beat.next(seconds(5)), begun + seconds(15));
    }
}
