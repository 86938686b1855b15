//! All metrics of a node, kept with the OpenTelemetry API and read as Prometheus text.
//!
//! Durations are OpenTelemetry histograms: recording one was measured at 20 ns without labels and 80 ns with two,
//! and at 160 and 240 ns when two threads do nothing but record into the same one. That is noise beside a request,
//! so there is no home-made histogram. Counters of every record and byte are plain atomics that are read when a
//! scrape asks.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Registry, TextEncoder};

use super::{GossipMetrics, RpcMetrics, logging, process};

/// Bounds of duration histograms in seconds: from a cached read to a hopeless wait.
pub(super) const DURATION_BOUNDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Series that one instrument may have; more share one that is named so.
const SERIES_MAX: usize = 512;

/// The metrics of one node. Made once, passed to whoever counts something; recording never blocks and never fails.
pub struct Metrics {
    registry: Registry,
    /// Keeps the instruments' pipeline alive.
    _provider: SdkMeterProvider,
    meter: Meter,
    counts: Arc<Counts>,
    produce_duration: Histogram<f64>,
    fetch_duration: Histogram<f64>,
    commit_duration: Histogram<f64>,
    rpc: RpcMetrics,
    gossip: GossipMetrics,
}

/// Counters that every request touches.
#[derive(Default)]
struct Counts {
    produce_records: AtomicU64,
    produce_bytes: AtomicU64,
    fetch_records: AtomicU64,
    fetch_bytes: AtomicU64,
    commit_entries: AtomicU64,
    commit_bytes: AtomicU64,
    peer_messages: AtomicU64,
}

impl Metrics {
    /// Makes the metrics of a node that runs this version of the software.
    pub fn new(version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .without_units()
            .build()
            .expect("an empty registry takes a collector");
        // An instrument takes memory for all its series when it is made; the default of 2,000 series each would be a
        // tenth of an idle node. The most there are is one for each method and status code.
        let few_series = |_: &Instrument| {
            let stream = Stream::builder().with_cardinality_limit(SERIES_MAX);
            stream.build().ok()
        };
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_view(few_series)
            .build();
        let meter = provider.meter("kelda");
        let counts = Arc::new(Counts::default());
        register_counts(&meter, &counts);
        register_dropped_lines(&meter);
        register_build_info(&meter, version);
        process::register(&meter);
        let duration = |name: &'static str, help: &'static str| {
            meter
                .f64_histogram(name)
                .with_description(help)
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build()
        };
        Arc::new(Self {
            produce_duration: duration(
                "kelda_produce_duration_seconds",
                "Time from taking records to acknowledging them.",
            ),
            fetch_duration: duration(
                "kelda_fetch_duration_seconds",
                "Time to answer a fetch, waiting for records included.",
            ),
            commit_duration: duration(
                "kelda_storage_commit_duration_seconds",
                "Time of one storage commit, fsync included.",
            ),
            rpc: RpcMetrics::new(&meter),
            gossip: GossipMetrics::new(&meter),
            registry,
            _provider: provider,
            meter,
            counts,
        })
    }

    /// Everything, in the text format of Prometheus 0.0.4.
    pub fn render(&self) -> String {
        // The encoder fails only on families that it finds inconsistent; nothing is a truer answer than half.
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }

    /// Records of one request were acknowledged, after `elapsed`.
    pub fn produced(&self, records: u64, bytes: u64, elapsed: Duration) {
        self.counts.produce_records.fetch_add(records, Relaxed);
        self.counts.produce_bytes.fetch_add(bytes, Relaxed);
        self.produce_duration.record(elapsed.as_secs_f64(), &[]);
    }

    /// Records were handed to a reader, by a fetch or a stream.
    pub fn fetched(&self, records: u64, bytes: u64) {
        self.counts.fetch_records.fetch_add(records, Relaxed);
        self.counts.fetch_bytes.fetch_add(bytes, Relaxed);
    }

    /// A fetch was answered after `elapsed`.
    pub fn fetch_answered(&self, elapsed: Duration) {
        self.fetch_duration.record(elapsed.as_secs_f64(), &[]);
    }

    /// Storage made entries of this many bytes durable in one commit.
    pub fn storage_committed(&self, entries: u64, bytes: u64, elapsed: Duration) {
        self.counts.commit_entries.fetch_add(entries, Relaxed);
        self.counts.commit_bytes.fetch_add(bytes, Relaxed);
        self.commit_duration.record(elapsed.as_secs_f64(), &[]);
    }

    /// A message to another node is on its way.
    pub fn peer_message_sent(&self) {
        self.counts.peer_messages.fetch_add(1, Relaxed);
    }

    /// Rate, errors and durations of RPCs.
    pub fn rpc(&self) -> &RpcMetrics {
        &self.rpc
    }

    /// What gossip brings in and sends out.
    pub fn gossip(&self) -> &GossipMetrics {
        &self.gossip
    }

    /// Shows what `read` says at each scrape, and nothing where it says nothing. It must be quick and not block, and
    /// must not keep a reference to whatever owns these metrics: give it a `Weak`.
    pub fn observe_gauge(
        &self,
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        read: impl Fn() -> Option<i64> + Send + Sync + 'static,
    ) {
        self.meter
            .i64_observable_gauge(name)
            .with_description(help)
            .with_callback(move |observer| {
                if let Some(value) = read() {
                    observer.observe(value, &[]);
                }
            })
            .build();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Shows the atomics as counters. The exporter adds `_total` to their names.
fn register_counts(meter: &Meter, counts: &Arc<Counts>) {
    let register = |name: &'static str, help: &'static str, read: fn(&Counts) -> &AtomicU64| {
        let counts = Arc::clone(counts);
        meter
            .u64_observable_counter(name)
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&counts).load(Relaxed), &[]))
            .build();
    };
    register(
        "kelda_produce_records",
        "Records acknowledged to producers.",
        |c| &c.produce_records,
    );
    register(
        "kelda_produce_bytes",
        "Payload bytes acknowledged to producers.",
        |c| &c.produce_bytes,
    );
    register("kelda_fetch_records", "Records handed to readers.", |c| {
        &c.fetch_records
    });
    register(
        "kelda_fetch_bytes",
        "Payload bytes handed to readers.",
        |c| &c.fetch_bytes,
    );
    register(
        "kelda_storage_commit_entries",
        "Log entries made durable.",
        |c| &c.commit_entries,
    );
    register(
        "kelda_storage_commit_bytes",
        "Bytes of log entries made durable.",
        |c| &c.commit_bytes,
    );
    register(
        "kelda_peer_messages",
        "Messages to other nodes: those of groups, the answers to theirs, and calls.",
        |c| &c.peer_messages,
    );
}

/// Shows how much of the log nobody took.
fn register_dropped_lines(meter: &Meter) {
    meter
        .u64_observable_counter("kelda_log_lines_dropped")
        .with_description("Log lines dropped, since nobody read what was written before.")
        .with_callback(|observer| observer.observe(logging::dropped(), &[]))
        .build();
}

/// Shows the version as a label, the usual way to join it to other series.
fn register_build_info(meter: &Meter, version: &str) {
    let labels = [KeyValue::new("version", version.to_owned())];
    meter
        .u64_observable_gauge("kelda_build_info")
        .with_description("Always 1; the label tells the version.")
        .with_callback(move |observer| observer.observe(1, &labels))
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|l| l == line)
    }

    #[test]
    fn a_new_node_shows_every_counter_at_zero_and_no_noise() {
        let text = Metrics::new("1.2.3").render();
        for line in [
            "# HELP kelda_produce_records_total Records acknowledged to producers.",
            "# TYPE kelda_produce_records_total counter",
            "kelda_produce_records_total 0",
            "kelda_produce_bytes_total 0",
            "kelda_fetch_records_total 0",
            "kelda_fetch_bytes_total 0",
            "kelda_storage_commit_entries_total 0",
            "kelda_storage_commit_bytes_total 0",
            "kelda_peer_messages_total 0",
            "kelda_log_lines_dropped_total 0",
            "kelda_build_info{version=\"1.2.3\"} 1",
            "kelda_rpc_in_flight 0",
            "kelda_shed_total{kind=\"call\"} 0",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_open_fds gauge",
            "# TYPE process_start_time_seconds gauge",
        ] {
            assert!(has_line(&text, line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("otel_scope"), "{text}");
        assert!(!text.contains("target_info"), "{text}");
    }

    #[test]
    fn what_was_recorded_is_shown() {
        let metrics = Metrics::new("1");
        metrics.produced(3, 300, Duration::from_millis(2));
        metrics.produced(1, 50, Duration::from_secs(20));
        metrics.fetched(4, 350);
        metrics.fetch_answered(Duration::from_micros(90));
        metrics.storage_committed(2, 4096, Duration::from_millis(1));
        let text = metrics.render();
        for line in [
            "kelda_produce_records_total 4",
            "kelda_produce_bytes_total 350",
            "kelda_fetch_records_total 4",
            "kelda_fetch_bytes_total 350",
            "# TYPE kelda_produce_duration_seconds histogram",
            "kelda_produce_duration_seconds_bucket{le=\"0.001\"} 0",
            "kelda_produce_duration_seconds_bucket{le=\"0.0025\"} 1",
            "kelda_produce_duration_seconds_bucket{le=\"10\"} 1",
            "kelda_produce_duration_seconds_bucket{le=\"+Inf\"} 2",
            "kelda_produce_duration_seconds_count 2",
            "kelda_fetch_duration_seconds_bucket{le=\"0.0001\"} 1",
            "kelda_storage_commit_entries_total 2",
            "kelda_storage_commit_bytes_total 4096",
            "kelda_storage_commit_duration_seconds_count 1",
        ] {
            assert!(has_line(&text, line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_family_is_described_once_however_many_series_it_has() {
        let metrics = Metrics::new("1");
        metrics.rpc().opened(&"a/B".into());
        metrics.rpc().opened(&"a/C".into());
        let text = metrics.render();
        let described = |name: &str| text.matches(&format!("# TYPE {name} ")).count();
        assert_eq!(described("kelda_open_streams"), 1, "{text}");
        assert!(
            has_line(&text, "kelda_open_streams{rpc_method=\"a/B\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn a_gauge_is_read_at_each_scrape_while_there_is_something_to_read() {
        let metrics = Metrics::new("1");
        let topics = Arc::new(AtomicU64::new(2));
        let weak = Arc::downgrade(&topics);
        metrics.observe_gauge("kelda_topics", "Topics.", move || {
            Some(weak.upgrade()?.load(Relaxed).cast_signed())
        });
        assert!(has_line(&metrics.render(), "kelda_topics 2"));
        topics.store(5, Relaxed);
        assert!(has_line(&metrics.render(), "kelda_topics 5"));
        assert!(has_line(&metrics.render(), "# HELP kelda_topics Topics."));
        drop(topics);
        assert!(!metrics.render().contains("kelda_topics"));
    }

    #[test]
    fn two_nodes_in_one_process_do_not_share_metrics() {
        let (one, other) = (Metrics::new("1"), Metrics::new("1"));
        one.fetched(1, 1);
        assert!(has_line(&one.render(), "kelda_fetch_records_total 1"));
        assert!(has_line(&other.render(), "kelda_fetch_records_total 0"));
    }
}
