//! A node must not start on what is not its own, must say what to do, and must leave everything as it was.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use kelda_server::{
    config::Config,
    node::{Node, StartError},
    storage::OpenError,
};

use crate::support::{
    TestNode, config,
    orders::{Orders, TOPIC},
    panics,
};

/// Why a node does not start.
async fn refused(config: Config) -> StartError {
    panics::watch();
    match Node::start(config).await {
        Ok(_) => panic!("it must not start"),
        Err(error) => error,
    }
}

/// A directory in which a node has stored records and stopped.
async fn stored() -> (tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    let mut orders = Orders::create_on(node).await;
    orders.check().await;
    let values = orders.node.values(TOPIC, 0, 0).await;
    orders.node.node.shutdown().await;
    (directory, values)
}

/// Asserts that the directory's own node starts on it and has everything.
async fn assert_untouched(directory: &Path, values: &[String]) {
    let node = TestNode::start(config(Some(directory))).await;
    assert_eq!(node.values(TOPIC, 0, 0).await, values);
    node.node.shutdown().await;
    panics::assert_none();
}

fn assert_says(error: &StartError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
    assert!(!message.contains('\n'), "one line: {message:?}");
}

#[tokio::test]
async fn a_second_broker_on_a_data_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    let node = TestNode::start(config(Some(directory.path()))).await;
    let mut orders = Orders::create_on(node).await;
    let error = refused(config(Some(directory.path()))).await;
    assert!(matches!(
        error,
        StartError::Storage(OpenError::InUse { .. })
    ));
    assert_says(&error, &[&path, "in use by another process", "--data-dir"]);
    orders.check().await;
    let values = orders.node.values(TOPIC, 0, 0).await;
    orders.node.node.shutdown().await;
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_refused() {
    let (directory, values) = stored().await;
    let error = refused(Config {
        cluster_id: Some("another".to_owned()),
        ..config(Some(directory.path()))
    })
    .await;
    assert!(matches!(error, StartError::OtherCluster { .. }));
    let path = directory.path().display().to_string();
    assert_says(
        &error,
        &[&path, "belongs to cluster", "--data-dir", "--cluster-id"],
    );
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_database_that_was_put_into_another_clusters_directory_is_refused() {
    let (mine, values) = stored().await;
    let (other, others) = stored().await;
    let mixed = tempfile::tempdir().expect("a directory");
    let copy = |from: &Path, file: &str| {
        fs::copy(from.join(file), mixed.path().join(file)).expect("copied");
    };
    copy(mine.path(), "kelda.marker");
    copy(other.path(), "kelda.redb");
    let error = refused(config(Some(mixed.path()))).await;
    assert!(matches!(error, StartError::OtherCluster { .. }));
    let path = mixed.path().display().to_string();
    assert_says(&error, &[&path, "--data-dir"]);
    // The refusal has let go of the directory: with its own marker it starts.
    copy(other.path(), "kelda.marker");
    assert_untouched(mixed.path(), &others).await;
    assert_untouched(mine.path(), &values).await;
}

#[tokio::test]
async fn a_directory_that_has_lost_its_marker_is_refused() {
    let (directory, values) = stored().await;
    let marker = directory.path().join("kelda.marker");
    let kept = fs::read(&marker).expect("read");
    fs::remove_file(&marker).expect("removed");
    let error = refused(config(Some(directory.path()))).await;
    assert!(matches!(error, StartError::NoMarker { .. }));
    assert_says(&error, &["kelda.marker", "--data-dir"]);
    assert!(!marker.exists(), "no other one was written");
    fs::write(&marker, kept).expect("written");
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let (directory, values) = stored().await;
    let error = refused(Config {
        node_id: "node2".to_owned(),
        ..config(Some(directory.path()))
    })
    .await;
    assert!(matches!(error, StartError::OtherNode { .. }));
    let path = directory.path().display().to_string();
    assert_says(&error, &[&path, "belongs to node node1", "--node-id node1"]);
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("thesis.txt");
    fs::write(&file, "years of work").expect("written");
    let error = refused(config(Some(directory.path()))).await;
    assert!(matches!(
        error,
        StartError::Storage(OpenError::ForeignDirectory { .. })
    ));
    assert_says(&error, &["not Kelda's", "choose an empty --data-dir"]);
    let found = fs::read_dir(directory.path()).expect("listed").count();
    assert_eq!(found, 1, "nothing was put there");
    let error = refused(config(Some(&file))).await;
    assert!(matches!(error, StartError::Storage(OpenError::Io { .. })));
    assert_says(&error, &["thesis.txt", "--data-dir"]);
    assert_eq!(fs::read(&file).expect("read"), b"years of work");
    panics::assert_none();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (directory, values) = stored().await;
    let path = directory.path().join("kelda.redb");
    let image = fs::read(&path).expect("read");
    for (content, advice) in [
        (
            &b"SQLite format 3\0 and so on"[..],
            "choose another --data-dir",
        ),
        (&b""[..], "restore the data directory from a copy"),
    ] {
        fs::write(&path, content).expect("written");
        let error = refused(config(Some(directory.path()))).await;
        assert!(matches!(error, StartError::Storage(_)));
        assert_says(&error, &["kelda.redb", advice]);
        assert_eq!(fs::read(&path).expect("read"), content);
    }
    fs::remove_file(&path).expect("removed");
    let error = refused(config(Some(directory.path()))).await;
    assert_says(
        &error,
        &[
            "kelda.redb",
            "the database is missing",
            "restore the data directory from a copy",
        ],
    );
    assert!(!path.exists(), "no empty one takes its place");
    fs::write(&path, image).expect("written");
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_marker_that_can_not_be_understood_is_refused() {
    let (directory, values) = stored().await;
    let path = directory.path().join("kelda.marker");
    let marker = fs::read_to_string(&path).expect("read");
    let of = |version| {
        let version = format!("\"format_version\": {version}");
        let other = marker.replace("\"format_version\": 2", &version);
        assert_ne!(other, marker);
        other
    };
    for (content, advice) in [
        (&*of(3), "use a newer kelda"),
        (&*of(1), "choose an empty --data-dir"),
        (&marker[..20], "restore the data directory from a copy"),
    ] {
        fs::write(&path, content).expect("written");
        let error = refused(config(Some(directory.path()))).await;
        assert_says(&error, &["kelda.marker", advice]);
    }
    fs::write(&path, marker).expect("written");
    assert_untouched(directory.path(), &values).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_before_any_data_is_touched() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("data");
    let error = refused(Config {
        port,
        ..config(Some(&directory))
    })
    .await;
    assert!(matches!(error, StartError::Bind(_)));
    let named = format!("port {port} is in use");
    assert_says(&error, &[&named, "--port", "stop what uses it"]);
    assert!(!directory.exists(), "nothing was created");
    // Nor is it taken from a node that runs.
    let running = TestNode::start(config(Some(&directory))).await;
    let mut orders = Orders::create_on(running).await;
    let error = refused(Config {
        port: orders.node.node.address().port(),
        ..config(Some(&directory))
    })
    .await;
    assert!(matches!(error, StartError::Bind(_)));
    orders.check().await;
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let address = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = refused(Config {
        address: address.ip(),
        insecure: true,
        ..config(None)
    })
    .await;
    assert!(matches!(error, StartError::Bind(_)));
    assert_says(&error, &["192.0.2.1", "--address"]);
    let error = refused(Config {
        address: address.ip(),
        calls_max: 0,
        ..config(None)
    })
    .await;
    assert!(matches!(error, StartError::Config(_)));
    assert_says(&error, &["--insecure", "--calls-max"]);
}
