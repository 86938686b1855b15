//! `kelda bench`: the figures are not judged here, but that they are figures.

use serde_json::Value;

use crate::support::Broker;

fn positive(report: &Value, fields: &[&str]) {
    for field in fields {
        assert!(
            report[field].as_f64().is_some_and(|value| value > 0.0),
            "{field}: {report}"
        );
    }
    assert_eq!(report["errors"], 0, "{report}");
}

const SHORT: [&str; 6] = ["--seconds", "0.3", "--warm-up", "100ms", "-o", "json"];

fn measure(broker: &Broker, arguments: &[&str], more: &[&str]) -> Value {
    broker.kelda(&[&["bench"], arguments, more].concat()).json()
}

#[test]
fn batches_are_measured_and_all_of_them_are_read_again() {
    let broker = Broker::ephemeral();
    let batches = [
        "produce",
        "--topic",
        "batches",
        "--create",
        "--partitions",
        "2",
        "--producers",
        "2",
    ];
    let written = measure(&broker, &batches, &SHORT);
    positive(
        &written,
        &[
            "records",
            "bytes",
            "seconds",
            "records_per_second",
            "bytes_per_second",
        ],
    );
    assert!(written["latency_ms"]["p50"].as_f64() <= written["latency_ms"]["max"].as_f64());

    let read = measure(
        &broker,
        &["consume", "--topic", "batches", "--to-end", "-o", "json"],
        &[],
    );
    positive(&read, &["records", "bytes_per_second"]);
    assert_eq!(
        read["records"], written["records_total"],
        "everything that was acknowledged is read"
    );
    let again = [
        "consume",
        "--topic",
        "batches",
        "--streams",
        "2",
        "--seconds",
        "0.3",
        "-o",
        "json",
    ];
    positive(&measure(&broker, &again, &[]), &["records"]);

    let zstd = [
        "produce",
        "--topic",
        "zstd",
        "--create",
        "--compression",
        "zstd",
    ];
    positive(&measure(&broker, &zstd, &SHORT), &["records"]);
}

#[test]
fn single_records_are_measured() {
    let broker = Broker::ephemeral();
    let unary = [
        "produce",
        "--topic",
        "unary",
        "--create",
        "--mode",
        "unary",
        "--record-bytes",
        "50",
        "--producers",
        "20",
    ];
    positive(
        &measure(&broker, &unary, &SHORT),
        &["records", "records_per_second"],
    );
    for mode in [&[][..], &["--unary"]] {
        let latency = [
            "latency",
            "--topic",
            "latency",
            "--create",
            "--count",
            "20",
            "--warm-up",
            "2",
            "-o",
            "json",
        ];
        let report = measure(&broker, &latency, mode);
        assert_eq!(report["records"], 20);
        assert!(report["latency_ms"]["p99"].as_f64() > Some(0.0), "{report}");
    }
}
