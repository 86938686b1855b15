//! One line that says what to do, and the documented exit code.

use std::net::TcpListener;

use crate::support::{Broker, run};

#[test]
fn no_broker_is_exit_code_3_and_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    for arguments in [
        &["topic", "list"][..],
        &["produce", "orders"],
        &["consume", "orders"],
        &["cluster", "status"],
        &["bench", "latency", "--topic", "t"],
    ] {
        let error = run(&address, arguments, b"line\n").expect_error(3);
        assert!(
            error.contains(&address) && error.contains("kelda dev"),
            "{error}"
        );
    }
}

#[test]
fn an_unknown_topic_or_partition_is_exit_code_4() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    for arguments in [
        &["topic", "describe", "nothing"][..],
        &["topic", "delete", "nothing"],
        &["topic", "alter", "nothing", "--retention", "1d"],
        &["topic", "trim", "nothing", "--before", "latest"],
        &["produce", "nothing"],
        &["consume", "nothing"],
        &["consume", "orders", "--partition", "7"],
        &["produce", "orders", "--partition", "7"],
        &["bench", "produce", "--topic", "nothing", "--seconds", "1"],
    ] {
        broker.kelda_with(arguments, b"line\n").expect_error(4);
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &["topic", "create", "orders", "--partitions", "0"][..],
        &["topic", "create", "orders", "--retention", "7"],
        &["topic", "alter", "orders"],
        &[
            "topic",
            "alter",
            "orders",
            "--retention",
            "1d",
            "--reset",
            "retention",
        ],
        &["consume", "orders", "--from", "yesterday"],
        &["consume", "orders", "--format", "%z"],
        &["consume", "orders", "--format", "%v", "-o", "json"],
        &["produce", "orders", "-H", "noequals"],
        &["produce", "orders", "--compression", "brotli"],
        &["frobnicate"],
    ] {
        let ended = run("127.0.0.1:1", arguments, b"");
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(
            ended.stderr.starts_with("error: "),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn what_the_broker_refuses_is_exit_code_1() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    broker
        .kelda(&["topic", "create", "no/slash"])
        .expect_error(1);
    broker
        .kelda(&["topic", "create", "many", "--replication-factor", "3"])
        .expect_error(1);
    let error = broker
        .kelda(&["consume", "orders", "--from", "17"])
        .expect_error(1);
    assert!(error.contains("17"), "{error}");
    assert_eq!(
        broker.ok(&[
            "consume",
            "orders",
            "--from",
            "17",
            "--on-out-of-range",
            "earliest"
        ]),
        ""
    );
    broker
        .kelda(&["produce", "orders", "--file", "/no/such/file"])
        .expect_error(1);
}

#[test]
fn a_record_that_is_too_large_is_exit_code_5_and_the_count_is_right() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders", "--record-bytes-max", "1KiB"]);
    let input = format!("small\n{}\n", "x".repeat(5_000));
    let ended = broker.kelda_with(&["produce", "orders", "-o", "json"], input.as_bytes());
    let acknowledged = ended.json()["acknowledged"].as_u64().expect("a number") as usize;
    ended.expect_error(5);
    assert_eq!(
        broker.ok(&["consume", "orders"]).lines().count(),
        acknowledged
    );
}

#[test]
fn a_line_longer_than_any_record_is_exit_code_5_and_named() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    let input = format!("small\n{}", "x".repeat(3 << 20));
    let error = broker
        .kelda_with(&["produce", "orders"], input.as_bytes())
        .expect_error(5);
    assert!(error.contains("line 2"), "{error}");
    assert_eq!(broker.ok(&["consume", "orders"]), "small\n");
}

#[test]
fn help_documents_the_exit_codes_and_completions_work() {
    let help = run("127.0.0.1:1", &["--help"], b"");
    assert!(help.stdout.contains("Exit codes:"), "{}", help.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = run("127.0.0.1:1", &["completions", shell], b"");
        assert!(
            script.code == 0 && script.stdout.contains("kelda"),
            "{shell}"
        );
    }
}
