//! The pages beside gRPC, and reflection.

use kelda_server::node::Node;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{PATIENCE, channel, create_topic, node, produce};

/// Status line and headers, and the body, of one HTTP/1.1 request.
async fn http(node: &Node, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer));
    read.await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn health_is_a_page() {
    let node = node().await;
    let (head, body) = http(&node, "GET", "/health").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, r#"{"status":"serving"}"#);
    node.shutdown().await;
}

#[tokio::test]
async fn the_status_of_the_cluster_is_a_page() {
    let node = node().await;
    create_topic(&channel(&node).await, "orders", 3).await;
    let (head, body) = http(&node, "GET", "/cluster/status").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["cluster_id"], node.cluster_id());
    assert_eq!(status["ready"], true);
    assert_eq!(status["topic_count"], 1);
    assert_eq!(status["partition_count"], 3);
    assert_eq!(status["node"]["address"], node.address().to_string());
    node.shutdown().await;
}

#[tokio::test]
async fn metrics_count_what_clients_do() {
    let node = node().await;
    let channel = channel(&node).await;
    create_topic(&channel, "orders", 1).await;
    for _ in 0..3 {
        produce(&channel, "orders", 0, "value").await;
    }
    let (head, body) = http(&node, "GET", "/metrics").await;
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    for line in [
        "kelda_produce_records_total 3",
        "kelda_produce_duration_seconds_count 3",
        "kelda_rpc_duration_seconds_count{rpc_method=\"kelda.v1.ProduceService/Produce\",\
         rpc_response_status_code=\"OK\"} 3",
        "kelda_rpc_in_flight 0",
        "kelda_ready 1",
        "kelda_topics 1",
        "kelda_partitions 1",
        "kelda_leaderless_partitions 0",
    ] {
        assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "kelda_storage_used_bytes",
        "kelda_storage_free_bytes",
        "kelda_storage_reusable_bytes",
    ] {
        assert!(body.contains(&format!("\n{name} ")), "{name}: {body}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn what_is_no_page_says_which_are() {
    let node = node().await;
    let (head, body) = http(&node, "GET", "/nothing").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(body.contains("/health"), "{body}");
    let (head, _) = http(&node, "POST", "/health").await;
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    node.shutdown().await;
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let node = node().await;
    let channel = channel(&node).await;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let names = format!("{:?}", answer.message_response);

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let names_alpha = format!("{:?}", answer.message_response);
    for service in [
        "kelda.v1.ProduceService",
        "kelda.v1.ConsumeService",
        "kelda.v1.TopicService",
        "kelda.v1.ClusterService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(names.contains(service), "{service} is not in {names}");
        assert!(names_alpha.contains(service), "{service} in v1alpha");
    }
    node.shutdown().await;
}
