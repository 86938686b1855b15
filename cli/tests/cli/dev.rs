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

/// A port that is free together with those that three nodes of a cluster take. Apart from those of other tests.
fn cluster_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = u16::try_from(std::process::id() % 100).expect("it is small");
    let candidates = (0..100).map(|step| 31_100 + 5 * ((start + step) % 100));
    let mut free = candidates.filter(|port| {
        let mut ports = (0..3).flat_map(|node| [port + node, port + node + 1000]);
        ports.all(is_free)
    });
    free.next().expect("some ports are free")
}

#[test]
fn dev_runs_a_cluster_of_three_nodes_that_stop_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("the path is text");
    let port = cluster_port().to_string();
    let start = || Broker::start(&["--nodes", "3", "--data-dir", path, "--cluster-port", &port]);
    let addresses = |broker: &Broker| -> Vec<String> {
        let line = broker.greeting.lines().nth(1).expect("the addresses");
        let words = line.split_whitespace();
        words
            .filter(|it| it.starts_with("127."))
            .map(str::to_owned)
            .collect()
    };
    let broker = start();
    assert!(broker.greeting.starts_with("ready"), "{}", broker.greeting);
    assert_eq!(addresses(&broker).len(), 3, "{}", broker.greeting);
    let nodes = broker.kelda(&["cluster", "nodes", "-o", "json"]).json();
    let names = nodes.as_array().expect("a list").iter();
    let mut names: Vec<_> = names.map(|node| node["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [Some("node1"), Some("node2"), Some("node3")]);
    broker.ok(&[
        "topic",
        "create",
        "demo",
        "--partitions",
        "3",
        "--replication-factor",
        "3",
    ]);
    broker.produce(&["demo"], "one\n");
    for address in addresses(&broker) {
        let consumed = run(&address, &["consume", "demo"], b"");
        assert_eq!(
            (consumed.code, &*consumed.stdout),
            (0, "one\n"),
            "{consumed:?}"
        );
    }
    kill_process(broker.pid(), Signal::INT).expect("the broker runs");
    assert_eq!(broker.wait(), Some(0));
    for name in ["node1", "node2", "node3"] {
        assert!(directory.path().join(name).join("kelda.marker").exists());
    }
    let broker = start();
    assert_eq!(broker.ok(&["consume", "demo"]), "one\n");
}

#[test]
fn dev_with_nodes_and_seeds_is_a_mistake() {
    let error = run("", &["dev", "--nodes", "3", "--seeds", "127.0.0.1:1"], b"").expect_error(2);
    assert!(
        error.contains("--nodes") && error.contains("--seeds"),
        "{error}"
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
