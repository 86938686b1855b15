//! The disk alone.

use std::time::Duration;

use anyhow::Result;

use super::{KIB, MIB, size};
use crate::{
    Plan,
    raw::{Until, append_and_sync},
    report::Measure,
};

/// Longest raw run: enough for a median, and it does not fill the disk's cache for the runs behind it.
const RAW_RUN_MAX: Duration = Duration::from_secs(3);

/// Rate and time of append + fdatasync at three sizes.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    for bytes in [MIB, 64 * KIB, KIB] {
        let (mut rates, mut times) = (Vec::new(), Vec::new());
        for _ in 0..plan.repeat {
            let raw = append_and_sync(&plan.workspace, bytes, until(plan))?;
            rates.push(raw.bytes_per_second / 1e6);
            times.push(raw.p50_ms);
        }
        measures.push(Measure::new(
            format!("raw append + fdatasync, {}", size(bytes)),
            "MB/s",
            rates,
        ));
        measures.push(Measure::new(
            format!("raw append + fdatasync, {}, p50", size(bytes)),
            "ms",
            times,
        ));
    }
    Ok(measures)
}

/// How long a raw run takes that is compared with a run of Kelda.
pub(super) fn until(plan: &Plan) -> Until {
    Until {
        time: plan.run.min(RAW_RUN_MAX),
        writes: u32::MAX,
    }
}
