//! Looks after the balance, on the node that leads the catalog: at once when nodes come, go or are emptied, as soon as
//! moves end, and now and then for what changes slowly.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::carry_out::Pace;
use crate::broker::Broker;

/// Changes within this time are looked at together.
const GATHER: Duration = Duration::from_millis(500);

/// Runs until the broker ends; looks at everything every `interval`.
pub(in crate::broker) async fn run(broker: Broker, interval: Duration) {
    let mut catalog = broker.shared.catalog.watch();
    let mut versions = broker.shared.reports.versions();
    let mut loads = broker.shared.reports.loads();
    let group = broker.shared.catalog.group().clone();
    let groups = &broker.shared.groups;
    let mut due = groups.beat().next(interval);
    let mut rested = false;
    loop {
        catalog.borrow_and_update();
        versions.borrow_and_update();
        loads.borrow_and_update();
        let leader = group.leader();
        let is_due = rested || Instant::now() >= due;
        if is_due {
            due = groups.beat().next(interval);
        }
        // Leaders and load move by themselves, above all while nodes restart: they are not chased.
        let pace = if is_due { Pace::All } else { Pace::Urgent };
        let asleep = groups.asleep();
        let balanced = look(&broker, pace).await;
        let idle_in = asleep.filter(|_| balanced);
        let rest = async {
            if idle_in.is_none() {
                return sleep_until(due).await;
            }
            tokio::select! {
                () = groups.rest(interval, idle_in) => {}
                _ = loads.changed() => sleep_until(groups.beat().next(interval)).await,
            }
        };
        // Each only tells that something has changed, and all of it is looked at then.
        rested = tokio::select! {
            changed = catalog.changed() => if changed.is_err() { return } else { false },
            changed = versions.changed() => if changed.is_err() { return } else { false },
            () = group.leader_changed(leader) => false,
            () = rest => true,
        };
        if rested {
            continue;
        }
        if idle_in.is_some() {
            // The look that was due had been put off, since there was nothing to do.
            due = groups.beat().next(interval);
        }
        sleep_until(due.min(Instant::now() + GATHER)).await;
    }
}

/// Whether there was nothing to move, for this node: only the catalog's leader moves, once all have reported to it.
async fn look(broker: &Broker, pace: Pace) -> bool {
    // Whether this node really leads is asked only if there is something to do: it would keep the catalog awake.
    let noted = broker.noted().filter(|it| it.complete);
    if noted.is_none_or(|overview| broker.is_balanced(&overview)) {
        return true;
    }
    let overview = broker.overview_here().await.filter(|it| it.complete);
    let Some(overview) = overview else {
        return false;
    };
    let begun = broker.begin_moves(&overview, pace).await;
    tracing::debug!(moves = begun.len(), "balance was looked after");
    for made in &begun {
        tracing::info!(
            topic = made.topic,
            partition = made.partition,
            before = ?made.replicas_before,
            after = ?made.replicas_after,
            leader_before = made.leader_before,
            leader_after = made.leader_after,
            reason = made.reason().as_str_name(),
            "partition is moved"
        );
    }
    false
}
