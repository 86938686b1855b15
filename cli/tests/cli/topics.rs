//! `kelda topic` and `kelda cluster`.

use serde_json::json;

use crate::support::Broker;

#[test]
fn a_topic_is_created_listed_described_and_deleted() {
    let broker = Broker::ephemeral();
    let created = broker.ok(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "2",
        "--retention",
        "7d",
    ]);
    assert_eq!(
        created,
        "created topic orders (2 partitions, replication factor 1)\n"
    );
    let listed = broker.kelda(&["topic", "list", "-o", "json"]).json();
    assert_eq!(listed[0]["name"], "orders");
    assert_eq!(listed[0]["config"]["retention_ms"], 604_800_000);
    assert!(broker.ok(&["topic", "list"]).starts_with("NAME "));
    assert_eq!(
        broker
            .kelda(&["topic", "list", "--prefix", "x", "-o", "json"])
            .json(),
        json!([])
    );

    broker.produce(&["orders", "--partition", "1"], "a\nb\nc\n");
    let described = broker
        .kelda(&["topic", "describe", "orders", "-o", "json"])
        .json();
    assert_eq!(described["partitions"][1]["end_offset"], 3);
    assert!(
        broker
            .ok(&["topic", "describe", "orders"])
            .contains("PARTITION")
    );

    assert_eq!(
        broker.ok(&["topic", "delete", "orders"]),
        "deleted topic orders\n"
    );
    assert_eq!(
        broker.kelda(&["topic", "list", "-o", "json"]).json(),
        json!([])
    );
}

#[test]
fn a_topic_is_altered_and_its_fields_are_reset() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let altered = broker.kelda(&[
        "topic",
        "alter",
        "orders",
        "--retention",
        "1h",
        "--partitions",
        "3",
        "-o",
        "json",
    ]);
    assert_eq!(altered.json()["config"]["retention_ms"], 3_600_000);
    assert_eq!(altered.json()["partition_count"], 3);
    let reset = broker.kelda(&[
        "topic",
        "alter",
        "orders",
        "--reset",
        "retention",
        "-o",
        "json",
    ]);
    assert_eq!(reset.json()["config"]["retention_ms"], 604_800_000);
}

#[test]
fn old_records_are_trimmed() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--partitions", "2"]);
    broker.produce(&["orders", "--partition", "1"], "a\nb\nc\n");
    let trimmed = broker.kelda(&[
        "topic",
        "trim",
        "orders",
        "--before",
        "2",
        "--partition",
        "1",
        "-o",
        "json",
    ]);
    assert_eq!(
        trimmed.json(),
        json!([{ "partition": 1, "log_start_offset": 2, "end_offset": 3 }])
    );
    assert_eq!(broker.ok(&["consume", "orders"]), "c\n");
    broker.ok(&["topic", "trim", "orders", "--before", "latest"]);
    assert_eq!(broker.ok(&["consume", "orders"]), "");
}

#[test]
fn creating_twice_fails_unless_that_is_fine() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let error = broker.kelda(&["topic", "create", "orders"]).expect_error(1);
    assert!(error.contains("orders"), "{error}");
    let again = broker.ok(&["topic", "create", "orders", "--if-not-exists"]);
    assert!(again.contains("orders (2 partitions"), "{again}");
}

#[test]
fn a_cluster_tells_its_state() {
    let broker = Broker::ephemeral();
    let status = broker.kelda(&["cluster", "status", "-o", "json"]).json();
    assert_eq!(status["ready"], true);
    assert_eq!(status["node_count"], 1);
    assert_eq!(status["storage"]["writable"], true);
    assert!(broker.ok(&["cluster", "status"]).contains("ready:"));
    let nodes = broker.kelda(&["cluster", "nodes", "-o", "json"]).json();
    assert_eq!(nodes[0]["id"], status["node"]["id"]);
    assert!(broker.ok(&["cluster", "nodes"]).starts_with("ID "));
}
