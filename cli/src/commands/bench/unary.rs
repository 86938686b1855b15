//! A producer that sends one record in each call and waits for its ack.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kelda_client::Client;
use kelda_proto::v1::ProduceRequest;

use super::{report::Window, threads::SharedTally};
use crate::failure::Failure;

/// After this many failures in a row a producer gives up.
const FAILURES_MAX: u32 = 100;
/// Pause after a failure, so that a broker that refuses is not called without end.
const PAUSE: Duration = Duration::from_millis(1);

/// What one producer sends.
pub(super) struct Load {
    /// Sent again and again: one record.
    pub(super) request: ProduceRequest,
    /// Bytes of the record's value.
    pub(super) bytes: u64,
    /// When it counts.
    pub(super) window: Window,
}

/// Calls again and again until the window is over.
pub(super) async fn produce(
    client: Client,
    load: Arc<Load>,
    tally: SharedTally,
) -> Result<(), Failure> {
    let mut service = client.produce_service();
    let mut failures = 0;
    loop {
        let sent = Instant::now();
        if load.window.is_over(sent) || failures == FAILURES_MAX {
            return Ok(());
        }
        match service.produce(load.request.clone()).await {
            Ok(_) => {
                failures = 0;
                tally
                    .borrow_mut()
                    .done(load.window, 1, load.bytes, Some(sent));
            }
            Err(status) => {
                failures += 1;
                tally.borrow_mut().error(status.message());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
