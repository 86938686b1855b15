//! What a scrape shows of the broker's state, read when it asks.

use std::sync::Arc;

use super::{Broker, Shared};

/// Shows the broker's state in its metrics. It does not keep the broker alive.
pub(super) fn register(broker: &Broker) {
    let register = |name: &'static str, help: &'static str, read: fn(&Broker) -> Option<i64>| {
        let shared = Arc::downgrade(&broker.shared);
        let read = move || {
            let shared: Arc<Shared> = shared.upgrade()?;
            read(&Broker { shared })
        };
        broker.shared.metrics.observe_gauge(name, help, read);
    };
    register(
        "kelda_ready",
        "Whether the node serves: 1 or 0.",
        |broker| Some(i64::from(*broker.shared.ready.borrow())),
    );
    register("kelda_topics", "Topics of the cluster.", |broker| {
        i64::try_from(broker.shared.catalog.view().topic_count()).ok()
    });
    register(
        "kelda_partitions",
        "Partitions of all topics of the cluster.",
        |broker| i64::try_from(broker.shared.catalog.view().partition_count()).ok(),
    );
    register(
        "kelda_leaderless_partitions",
        "Partitions without a leader, as far as this node knows.",
        |broker| i64::try_from(broker.leaderless_partitions()).ok(),
    );
    register(
        "kelda_quiesced_partitions",
        "Partitions with other replicas that have nothing to do: they cost neither heartbeats nor timers.",
        |broker| i64::try_from(broker.quiesced_partitions()).ok(),
    );
    register(
        "kelda_catalog_term",
        "Term of the catalog's group: each of its elections begins a new one.",
        |broker| Some(broker.shared.catalog.group().term().cast_signed()),
    );
    register(
        "kelda_partition_terms",
        "Sum of the terms of the partitions with a replica here: each of their elections adds one.",
        |broker| Some(broker.partition_terms().cast_signed()),
    );
    register(
        "kelda_storage_used_bytes",
        "Bytes that the data files occupy on the disk.",
        |broker| Some(broker.shared.disk.status().ok()?.used_bytes.cast_signed()),
    );
    register(
        "kelda_storage_free_bytes",
        "Bytes free on the disk of the data files.",
        |broker| Some(broker.shared.disk.status().ok()?.free_bytes.cast_signed()),
    );
    register(
        "kelda_storage_reusable_bytes",
        "Bytes of the data files that deleted records left and new ones take, an estimate.",
        |broker| {
            Some(
                broker
                    .shared
                    .disk
                    .status()
                    .ok()?
                    .reusable_bytes
                    .cast_signed(),
            )
        },
    );
}
