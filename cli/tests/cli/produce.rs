//! `kelda produce`.

use std::io::Write;

use serde_json::Value;

use crate::support::{Broker, json};

#[test]
fn lines_come_back_with_keys_headers_and_offsets() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    let arguments = [
        "orders",
        "--key-separator",
        ":",
        "-H",
        "source=test",
        "-H",
        "empty=",
        "-o",
        "json",
    ];
    let summary = json(&broker.produce(&arguments, "alice:1\nbob:2\n:3\nfour"));
    assert_eq!(
        (
            &summary["sent"],
            &summary["acknowledged"],
            &summary["failed"]
        ),
        (&4.into(), &4.into(), &0.into())
    );

    let out = broker.ok(&["consume", "orders", "--format", "%o|%p|%t|%k|%K|%v|%h\\n"]);
    let expected = "0|0|orders|alice|5|1|source=test,empty=\n\
                    1|0|orders|bob|3|2|source=test,empty=\n\
                    2|0|orders||0|3|source=test,empty=\n\
                    3|0|orders||-1|four|source=test,empty=\n";
    assert_eq!(out, expected);
}

#[test]
fn a_key_and_a_partition_hold_for_every_line() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--partitions", "3"]);
    broker.produce(&["orders", "--key", "k", "--partition", "2"], "a\nb\n");
    assert_eq!(
        broker.ok(&["consume", "orders", "--format", "%p %o %k %v\\n"]),
        "2 0 k a\n2 1 k b\n"
    );
}

#[test]
fn equal_keys_share_a_partition_and_keep_their_order() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--partitions", "4"]);
    let input: String = (0..2_000)
        .map(|number| format!("key{}:{number}\n", number % 10))
        .collect();
    broker.produce(&["orders", "--key-separator", ":"], &input);
    let out = broker.ok(&["consume", "orders", "--format", "%k %p %v\\n"]);
    let mut last: std::collections::HashMap<String, (String, i64)> =
        std::collections::HashMap::new();
    for line in out.lines() {
        let mut words = line.split(' ').map(str::to_owned);
        let (Some(key), Some(partition), Some(value)) = (words.next(), words.next(), words.next())
        else {
            panic!("three words: {line}")
        };
        let value: i64 = value.parse().expect("a number");
        if let Some((before, least)) = last.insert(key, (partition.clone(), value)) {
            assert_eq!(before, partition, "a key stays in its partition");
            assert_eq!(least + 10, value, "in the order in which it was sent");
        }
    }
    assert_eq!(out.lines().count(), 2_000);
    assert_eq!(last.len(), 10);
}

#[test]
fn a_file_is_sent_in_order_with_any_compression() {
    let broker = Broker::ephemeral();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let input: String = (0..20_000)
        .map(|number| format!("{{\"order\":{number}}}\n"))
        .collect();
    file.write_all(input.as_bytes()).expect("writes");
    let path = file.path().to_str().expect("the path is text");
    for compression in ["none", "lz4", "zstd", "gzip"] {
        broker.ok(&["topic", "create", compression]);
        let out = broker.produce(
            &[
                compression,
                "--file",
                path,
                "--compression",
                compression,
                "-o",
                "json",
            ],
            "",
        );
        assert_eq!(json(&out)["acknowledged"], 20_000);
        assert!(
            broker.ok(&["consume", compression]) == input,
            "what comes back is what was sent"
        );
    }
}

#[test]
fn nothing_to_send_is_a_success() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    let summary: Value = json(&broker.produce(&["orders", "-o", "json"], ""));
    assert_eq!(
        (&summary["sent"], &summary["acknowledged"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn acks_none_counts_what_was_taken() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    let summary = json(&broker.produce(&["orders", "--acks", "none", "-o", "json"], "a\nb\n"));
    assert_eq!(summary["acknowledged"], 2);
}
