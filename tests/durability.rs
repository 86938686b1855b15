//! What was acknowledged is there after a restart, in order.

mod support;

use support::{TestNode, config};

#[tokio::test]
async fn acknowledged_records_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 1).await;
    assert_eq!(node.produce_values("orders", &["a", "b"]).await, 0);
    assert_eq!(node.produce_values("orders", &["c"]).await, 2);
    assert_eq!(node.values("orders", 0, 0).await, ["a", "b", "c"]);
    node.node.shutdown().await;

    let node = TestNode::start(config(Some(directory.path()))).await;
    assert_eq!(node.values("orders", 0, 1).await, ["b", "c"]);
    assert_eq!(node.produce_values("orders", &["d"]).await, 3);
    assert_eq!(node.values("orders", 0, 0).await, ["a", "b", "c", "d"]);
    node.node.shutdown().await;
}
