//! `kelda dev`.

use std::{fs, net::TcpListener};

use rustix::process::{Signal, kill_process};

use crate::support::{Broker, run};

/// Runs a broker that must not start, and returns what it says.
fn refused(arguments: &[&str], code: i32) -> String {
    run(
        "",
        &[&["serve", "--cluster-port", "0"], arguments].concat(),
        b"",
    )
    .expect_error(code)
}

#[test]
fn dev_says_that_it_is_ready_and_what_to_try() {
    let broker = Broker::ephemeral();
    assert!(broker.greeting.starts_with("ready"), "{}", broker.greeting);
    for command in ["kelda produce", "kelda consume", "grpcurl"] {
        assert!(
            broker.greeting.contains(command),
            "{command}: {}",
            broker.greeting
        );
    }
    assert_eq!(
        broker.ok(&["topic", "list", "-o", "json"]).trim(),
        "[]",
        "nothing is created behind the user's back"
    );
}

#[test]
fn data_outlives_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = Broker::on(directory.path());
    broker.ok(&["topic", "create", "orders"]);
    broker.produce(&["orders"], "one\ntwo\n");
    broker.kill();
    let broker = Broker::on(directory.path());
    assert_eq!(broker.ok(&["consume", "orders"]), "one\ntwo\n");
}

#[test]
fn a_signal_ends_a_broker_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let broker = Broker::ephemeral();
        broker.ok(&["topic", "create", "orders"]);
        let mut reader = broker.spawn(&["consume", "orders", "--follow"]);
        kill_process(broker.pid(), signal).expect("the broker runs");
        assert_eq!(broker.wait(), Some(0));
        reader.kill().expect("the reader goes on trying");
        reader.wait().expect("the reader ends");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let error = refused(&["--ephemeral", "--port", &port], 1);
    assert!(error.contains("--port") && error.contains(&port), "{error}");
}

#[test]
fn a_data_directory_in_use_or_of_another_node_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("the path is text");
    let broker = Broker::on(directory.path());
    let error = refused(&["--port", "0", "--data-dir", path], 1);
    assert!(error.contains("--data-dir"), "{error}");
    broker.kill();
    let error = refused(
        &["--port", "0", "--data-dir", path, "--node-id", "other"],
        1,
    );
    assert!(error.contains("--node-id"), "{error}");
    let error = refused(
        &["--port", "0", "--data-dir", path, "--cluster-id", "other"],
        1,
    );
    assert!(error.contains("--cluster-id"), "{error}");
}

#[test]
fn mistakes_in_the_configuration_are_exit_code_2() {
    let error = refused(&["--address", "0.0.0.0", "--node-id", "a b"], 2);
    assert!(
        error.contains("--insecure") && error.contains("--node-id"),
        "{error}"
    );
    refused(&["--log", "loud"], 2);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kelda.toml");
    fs::write(&file, "prot = 1\n").expect("writes");
    let error = refused(&["--config", file.to_str().expect("the path is text")], 2);
    assert!(error.contains("prot"), "{error}");
    refused(&["--config", "/no/such/file.toml"], 2);
}
