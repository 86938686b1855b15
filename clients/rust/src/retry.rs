//! How often and when to try again.

use std::time::Duration;

use crate::random;

/// How a failed call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most attempts of a call, the first included. A producer goes by its delivery timeout instead, and for a
    /// consumer only attempts in a row without progress count.
    pub attempts: u32,
    /// Pause behind the first failure, which doubles with every further one.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 8,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(3),
        }
    }
}

/// Counts failures in a row and says how long to pause.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        Backoff { retry, failures: 0 }
    }

    /// A call succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A call failed: how long to pause before the next one. Between half and the whole of the doubled pause, so
    /// that clients which failed together do not come back together; never less than the broker asks for.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        self.pause_with(asked, random::number())
    }

    /// A call failed: the pause, or nothing if it was the last attempt.
    pub(crate) fn next_attempt(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = self.pause(asked);
        (self.failures < self.retry.attempts).then_some(pause)
    }

    fn pause_with(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let doubled = self
            .retry
            .backoff
            .saturating_mul(1 << self.failures.min(20))
            .min(self.retry.backoff_max);
        self.failures = self.failures.saturating_add(1);
        let half = doubled / 2;
        let jitter = half.mul_f64((random % 1000) as f64 / 1000.0);
        (half + jitter).max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_after_a_success() {
        let retry = Retry {
            attempts: 3,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_millis(350),
        };
        let mut backoff = Backoff::new(retry);
        let pauses: Vec<_> = (0..4)
            .map(|_| backoff.pause_with(None, 0).as_millis())
            .collect();
        assert_eq!(pauses, [50, 100, 175, 175]);
        backoff.reset();
        assert_eq!(backoff.pause_with(None, 999).as_micros(), 99_950);
        for _ in 0..100 {
            assert!(backoff.pause(None) <= retry.backoff_max);
        }
    }

    #[test]
    fn the_broker_may_ask_for_more() {
        let mut backoff = Backoff::new(Retry::default());
        let asked = Some(Duration::from_secs(9));
        assert_eq!(backoff.pause(asked), Duration::from_secs(9));
    }

    #[test]
    fn attempts_are_counted_with_the_first() {
        let retry = Retry {
            attempts: 3,
            ..Retry::default()
        };
        let mut backoff = Backoff::new(retry);
        let allowed = (0..5)
            .filter(|_| backoff.next_attempt(None).is_some())
            .count();
        assert_eq!(allowed, 2);
    }
}
