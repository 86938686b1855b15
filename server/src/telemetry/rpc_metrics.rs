//! Rate, errors and durations of RPCs. Names and labels follow OpenTelemetry's conventions for RPC servers
//! (`rpc.method`, `rpc.response.status_code`) as Prometheus spells them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue, StringValue, Value,
    metrics::{Counter, Histogram, Meter, UpDownCounter},
};

use super::metrics::DURATION_BOUNDS;

/// Metrics of the RPCs that a node answers.
pub struct RpcMetrics {
    duration: Histogram<f64>,
    in_flight: Arc<AtomicI64>,
    open_streams: UpDownCounter<i64>,
    shed: Counter<u64>,
}

/// What was turned away because too much was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// A unary call.
    Call,
    /// A stream.
    Stream,
    /// A connection.
    Connection,
    /// A request that was on its way in.
    Request,
}

impl Shed {
    const ALL: [Self; 4] = [Self::Call, Self::Stream, Self::Connection, Self::Request];

    fn label(self) -> KeyValue {
        let kind = match self {
            Self::Call => "call",
            Self::Stream => "stream",
            Self::Connection => "connection",
            Self::Request => "request",
        };
        KeyValue::new("kind", kind)
    }
}

impl RpcMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let in_flight = Arc::new(AtomicI64::new(0));
        let read = Arc::clone(&in_flight);
        meter
            .i64_observable_gauge("kelda_rpc_in_flight")
            .with_description("RPCs that have not ended, streams included.")
            .with_callback(move |observer| observer.observe(read.load(Relaxed), &[]))
            .build();
        let shed = meter
            .u64_counter("kelda_shed")
            .with_description("Calls, streams, connections and half-received requests turned away by overload limits.")
            .build();
        for kind in Shed::ALL {
            // A series that starts at its first event hides that event from rate().
            shed.add(0, &[kind.label()]);
        }
        Self {
            duration: meter
                .f64_histogram("kelda_rpc_duration_seconds")
                .with_description("Time from an RPC's headers to the end of its response.")
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build(),
            in_flight,
            open_streams: meter
                .i64_up_down_counter("kelda_open_streams")
                .with_description("Streaming RPCs that have not ended.")
                .build(),
            shed,
        }
    }

    /// An RPC has begun. Each call of this is followed by one of [`RpcMetrics::ended`].
    pub fn began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// An RPC has ended with this gRPC code, by its name in capitals.
    pub fn ended(&self, method: &Arc<str>, code: &'static str, elapsed: Duration) {
        self.in_flight.fetch_sub(1, Relaxed);
        let labels = [
            method_label(method),
            KeyValue::new("rpc_response_status_code", code),
        ];
        self.duration.record(elapsed.as_secs_f64(), &labels);
    }

    /// A stream was opened. Each call of this is followed by one of [`RpcMetrics::closed`].
    pub fn opened(&self, method: &Arc<str>) {
        self.open_streams.add(1, &[method_label(method)]);
    }

    /// A stream was closed.
    pub fn closed(&self, method: &Arc<str>) {
        self.open_streams.add(-1, &[method_label(method)]);
    }

    /// Something was turned away.
    pub fn shed(&self, kind: Shed) {
        self.shed.add(1, &[kind.label()]);
    }
}

/// Counts a reference, copies no text.
fn method_label(method: &Arc<str>) -> KeyValue {
    let method = StringValue::from(Arc::clone(method));
    KeyValue::new("rpc_method", Value::String(method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn an_rpc_is_in_flight_until_it_ends_and_is_counted_by_method_and_code() {
        let metrics = Metrics::new("1");
        let method = Arc::from("kelda.v1.ProduceService/Produce");
        metrics.rpc().began();
        metrics.rpc().began();
        metrics
            .rpc()
            .ended(&method, "NOT_FOUND", Duration::from_millis(3));
        metrics.rpc().shed(Shed::Stream);
        let text = metrics.render();
        for line in [
            "kelda_rpc_in_flight 1",
            "kelda_rpc_duration_seconds_count{rpc_method=\"kelda.v1.ProduceService/Produce\",\
             rpc_response_status_code=\"NOT_FOUND\"} 1",
            "kelda_shed_total{kind=\"stream\"} 1",
            "kelda_shed_total{kind=\"connection\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
