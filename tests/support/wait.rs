//! Waiting for conditions, with a limit.

use std::time::{Duration, Instant};

use super::PATIENCE;

/// Pause between two looks at a condition that nothing announces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The output of a future that must end soon.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Looks until there is something to see.
pub(crate) async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
