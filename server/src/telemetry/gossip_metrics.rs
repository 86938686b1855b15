//! What gossip brings in and sends out.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

/// Metrics of a node's gossip.
pub struct GossipMetrics {
    events: Counter<u64>,
    dropped: Counter<u64>,
    refused: Counter<u64>,
    announced: Counter<u64>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GossipOutcome {
    /// It is in the view.
    Applied,
    /// It came from a stranger or could not be read.
    Refused,
    /// There were too many at a time; the view is read anew instead.
    Shed,
}

impl GossipMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, help: &'static str| {
            let counter = meter.u64_counter(name).with_description(help).build();
            // A series that starts at its first event hides that event from rate().
            counter.add(0, &[]);
            counter
        };
        Self {
            events: meter
                .u64_counter("kelda_gossip_events")
                .with_description("Events about nodes that came by gossip.")
                .build(),
            dropped: counter(
                "kelda_gossip_events_dropped",
                "Events about nodes that found their queue full; the view is read anew instead.",
            ),
            refused: counter(
                "kelda_gossip_refused",
                "Times that what was heard of a node was not believed: another cluster, or noise.",
            ),
            announced: counter(
                "kelda_gossip_announcements",
                "Times that the node told others something new of itself.",
            ),
        }
    }

    /// An event of this kind came, and this became of it.
    pub fn event(&self, kind: &'static str, outcome: GossipOutcome) {
        let outcome = match outcome {
            GossipOutcome::Applied => "applied",
            GossipOutcome::Refused => "refused",
            GossipOutcome::Shed => "shed",
        };
        let labels = [
            KeyValue::new("kind", kind),
            KeyValue::new("outcome", outcome),
        ];
        self.events.add(1, &labels);
    }

    /// An event found its queue full.
    pub fn dropped(&self) {
        self.dropped.add(1, &[]);
    }

    /// What was heard of a node was not believed.
    pub fn refused(&self) {
        self.refused.add(1, &[]);
    }

    /// The node told others something new of itself.
    pub fn announced(&self) {
        self.announced.add(1, &[]);
    }
}
