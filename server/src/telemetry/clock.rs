//! The wall clock, read in this one place: whoever decides by time takes it as an argument, so that tests and
//! replicas can decide alike. Durations are measured with `std::time::Instant`, which never jumps.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Now, in milliseconds since the Unix epoch; 0 if the machine's clock stands before it.
pub fn now_ms() -> i64 {
    let since_epoch = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_ms_counts_milliseconds_since_the_epoch() {
        let before = now();
        let now_ms = now_ms();
        let after = now();
        let ms = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!(ms(before) <= now_ms && now_ms <= ms(after));
    }
}
