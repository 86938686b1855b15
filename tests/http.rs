//! What is on the port beside the four services: pages, gRPC-Web, health and reflection.

mod support;

use futures::stream;
use kelda_proto::v1::{
    ConsumeRequest, ConsumeResponse, GetStatusRequest, ListNodesRequest, ProduceRequest,
    ProduceResponse, consume_response::Event,
};
use prost::Message;
use serde_json::{Value, json};
use support::{
    TestNode, config,
    pages::Page,
    reader::{Reader, follow, to_end, values},
    record,
    wait::{eventually, soon},
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const SERVICES: [&str; 4] = [
    "kelda.v1.ProduceService",
    "kelda.v1.ConsumeService",
    "kelda.v1.TopicService",
    "kelda.v1.ClusterService",
];

#[tokio::test]
async fn the_health_page_says_that_the_node_serves() {
    let node = TestNode::ephemeral().await;
    let page = node.get("/health").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let health: Value = serde_json::from_slice(&page.body).expect("JSON");
    assert_eq!(health["status"], "serving");
}

#[tokio::test]
async fn the_status_page_says_what_the_rpc_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(config(Some(directory.path()))).await;
    node.create_topic("orders", 3).await;
    node.create_topic("returns", 1).await;
    let page = node.get("/cluster/status").await;
    assert_eq!(page.status, 200);
    let status: Value = serde_json::from_slice(&page.body).expect("JSON");
    let told = node.cluster().get_status(GetStatusRequest {}).await;
    let told = told.expect("answered").into_inner();

    assert_eq!(status["cluster_id"], told.cluster_id);
    assert_eq!(told.cluster_id, node.node.cluster_id());
    assert!(told.ready && status["ready"] == true);
    assert_eq!(told.catalog_leader, 1);
    assert_eq!(status["catalog_leader"], 1);
    for (name, expected, given) in [
        ("node_count", 1, told.node_count),
        ("topic_count", 2, told.topic_count),
        ("partition_count", 4, told.partition_count),
        (
            "leaderless_partition_count",
            0,
            told.leaderless_partition_count,
        ),
    ] {
        assert_eq!((given, &status[name]), (expected, &Value::from(expected)));
    }
    let me = told.node.expect("the node tells of itself");
    assert_eq!(me.address, node.node.address().to_string());
    assert_eq!(me.name, "node1");
    assert_eq!(status["node"]["address"], me.address);
    assert_eq!(status["node"]["version"], me.version);
    // Leaders are counted as they are reported to the catalog's leader.
    eventually("the list says what the status says", async || {
        let nodes = node.cluster().list_nodes(ListNodesRequest {}).await;
        let nodes = nodes.expect("answered").into_inner().nodes;
        (nodes == [me.clone()]).then_some(())
    })
    .await;
    let storage = told.storage.expect("the storage is told of");
    assert!(storage.writable && storage.used_bytes > 0);
    assert!(storage.free_bytes > storage.floor_bytes);
    assert_eq!(status["storage"]["writable"], true);
    assert_eq!(status["storage"]["floor_bytes"], storage.floor_bytes);
    let limits = told.limits.expect("limits are told");
    assert_eq!(limits.request_bytes_max, 16 << 20);
    assert_eq!(status["limits"]["request_bytes_max"], 16 << 20);
    let start = told.start_time.expect("the start is told");
    assert_eq!(
        status["start_time_ms"],
        start.seconds * 1000 + i64::from(start.nanos) / 1_000_000
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plan_page_says_what_would_be_moved() {
    let node = TestNode::ephemeral().await;
    let page = node.get("/admin/assignment-plan").await;
    assert_eq!(page.status, 200);
    let plan: Value = serde_json::from_slice(&page.body).expect("JSON");
    assert_eq!(plan, json!({ "moves": [], "moving_partition_count": 0 }));
}

#[tokio::test]
async fn other_pages_and_methods_are_refused_in_words() {
    let node = TestNode::ephemeral().await;
    let missing = node.get("/nothing").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("/metrics"), "{}", missing.text());
    let posted = node.post("/health", "text/plain", b"").await;
    assert_eq!(posted.status, 405);
}

#[tokio::test]
async fn metrics_have_the_names_and_types_that_dashboards_use_and_they_move() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let page = node.get("/metrics").await;
    assert_eq!(page.status, 200);
    let content_type = page.header("content-type").expect("given");
    assert!(content_type.starts_with("text/plain; version=0.0.4"));
    let counters = [
        "kelda_produce_records_total",
        "kelda_produce_bytes_total",
        "kelda_fetch_records_total",
        "kelda_fetch_bytes_total",
        "kelda_produce_duration_seconds_count",
        "kelda_fetch_duration_seconds_count",
        "kelda_storage_commit_duration_seconds_count",
        "kelda_storage_commit_entries_total",
        "kelda_storage_commit_bytes_total",
    ];
    let mut before = Vec::new();
    for counter in counters {
        // A histogram is shown from its first value on.
        before.push(node.metric(counter).await.unwrap_or_default());
    }
    let opened = Reader::open(&node.channel, follow("orders")).await;
    let mut reader = opened.expect("opened");
    node.produce_values("orders", &["a", "b", "c"]).await;
    assert_eq!(node.values("orders", 0, 0).await.len(), 3);
    assert_eq!(reader.values().await.len(), 3);
    let mut moved = Vec::new();
    for (counter, before) in counters.into_iter().zip(before) {
        let after = node.metric(counter).await.expect("it is shown");
        moved.push(after - before);
        assert!(after > before, "{counter} moves");
    }
    assert_eq!(moved[0], 3.0, "records in");
    assert_eq!(moved[2], 6.0, "records out: to a fetch and to a stream");
    assert_eq!(moved[3], 2.0 * moved[1], "bytes out and in");
    assert_eq!(moved[4], 1.0, "one produce");

    let open = "kelda_open_streams{rpc_method=\"kelda.v1.ConsumeService/Consume\"}";
    assert_eq!(node.metric(open).await, Some(1.0));
    let calls = "kelda_rpc_duration_seconds_count{rpc_method=\"kelda.v1.ProduceService/Produce\",\
                 rpc_response_status_code=\"OK\"}";
    eventually("the call is counted once it has ended", async || {
        (node.metric(calls).await == Some(1.0)).then_some(())
    })
    .await;
    let text = node.get("/metrics").await.text();
    for (name, kind) in [
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("kelda_produce_records_total", "counter"),
        ("kelda_produce_bytes_total", "counter"),
        ("kelda_fetch_records_total", "counter"),
        ("kelda_fetch_bytes_total", "counter"),
        ("kelda_produce_duration_seconds", "histogram"),
        ("kelda_fetch_duration_seconds", "histogram"),
        ("kelda_storage_commit_duration_seconds", "histogram"),
        ("kelda_rpc_duration_seconds", "histogram"),
        ("kelda_open_streams", "gauge"),
        ("kelda_shed_total", "counter"),
    ] {
        let line = format!("# TYPE {name} {kind}");
        assert!(text.lines().any(|given| given == line), "{line}\n{text}");
    }
    let resident = node.metric("process_resident_memory_bytes").await;
    assert!(resident.expect("it is shown") > 1e6);
}

/// The messages and the trailers of a gRPC-Web answer.
fn grpc_web(page: &Page) -> (Vec<&[u8]>, String) {
    let mut messages = Vec::new();
    let mut rest = page.body.as_slice();
    while let Some((head, tail)) = rest.split_first_chunk::<5>() {
        let [flags, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).expect("it fits");
        let (frame, tail) = tail.split_at(length);
        rest = tail;
        if flags & 0x80 != 0 {
            assert!(rest.is_empty(), "trailers are last");
            return (messages, String::from_utf8_lossy(frame).into_owned());
        }
        messages.push(frame);
    }
    panic!("no trailers: {page:?}");
}

async fn call_from_browser(node: &TestNode, method: &str, request: &impl Message) -> Page {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).expect("small");
    let mut body = vec![0];
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&message);
    let content_type = "application/grpc-web+proto";
    let page = node.post(method, content_type, &body).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some(content_type));
    page
}

#[tokio::test]
async fn a_browser_can_produce_and_consume_over_http_1() {
    let node = TestNode::ephemeral().await;
    node.create_topic("orders", 1).await;
    let request = ProduceRequest {
        topic: "orders".to_owned(),
        records: vec![record("a"), record("b")],
        ..Default::default()
    };
    let method = "/kelda.v1.ProduceService/Produce";
    let page = call_from_browser(&node, method, &request).await;
    let (messages, trailers) = grpc_web(&page);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    assert_eq!(messages.len(), 1);
    let response = ProduceResponse::decode(messages[0]).expect("a response");
    assert_eq!(response.partitions[0].record_count, 2);

    let method = "/kelda.v1.ConsumeService/Consume";
    let page = call_from_browser(&node, method, &to_end("orders")).await;
    let (messages, trailers) = grpc_web(&page);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    let events: Vec<_> = messages
        .into_iter()
        .filter_map(|message| ConsumeResponse::decode(message).expect("an event").event)
        .collect();
    assert!(matches!(events.first(), Some(Event::Started(_))));
    assert!(matches!(events.last(), Some(Event::End(_))));
    let seen: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Records(records) => Some(values(records)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(seen, ["a", "b"]);
}

#[tokio::test]
async fn a_browser_hears_of_errors() {
    let node = TestNode::ephemeral().await;
    let request = ConsumeRequest {
        topic: "nothing".to_owned(),
        ..Default::default()
    };
    let method = "/kelda.v1.ConsumeService/Consume";
    let page = call_from_browser(&node, method, &request).await;
    // An answer without messages may have its trailers among its headers.
    let code = page.header("grpc-status").map(str::to_owned);
    let code = code.unwrap_or_else(|| {
        let (messages, trailers) = grpc_web(&page);
        assert!(messages.is_empty());
        let code = trailers
            .lines()
            .find_map(|line| line.strip_prefix("grpc-status:"));
        code.expect("a status").trim().to_owned()
    });
    assert_eq!(code, (Code::NotFound as i32).to_string());
}

#[tokio::test]
async fn every_service_is_healthy_until_the_node_stops() {
    let node = TestNode::ephemeral().await;
    let mut health = HealthClient::new(node.channel.clone());
    let named = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut watches = Vec::new();
    for service in SERVICES.into_iter().chain([""]) {
        let answer = health.check(named(service)).await.expect("answered");
        let status = answer.into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
        let watch = health.watch(named(service)).await.expect("answered");
        let mut watch = watch.into_inner();
        let first = soon("the state", watch.message()).await;
        let first = first.expect("open").expect("a state");
        assert_eq!(first.status(), ServingStatus::Serving, "{service}");
        watches.push(watch);
    }
    let unknown = health.check(named("kelda.v1.NoService")).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);

    let stopping = tokio::spawn(node.node.shutdown());
    for mut watch in watches {
        let mut last = ServingStatus::Serving;
        // The stream may end before or with an error; what counts is that it does not stay silent.
        while let Ok(Some(state)) = soon("the end", watch.message()).await {
            last = state.status();
        }
        assert_eq!(last, ServingStatus::NotServing);
    }
    soon("the node stops", stopping)
        .await
        .expect("it does not panic");
}

/// Makes a test of one version of reflection: the messages of both are alike, but not the same types.
macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };

            let node = TestNode::ephemeral().await;
            let mut client = ServerReflectionClient::new(node.channel.clone());
            let ask = |message| ServerReflectionRequest {
                message_request: Some(message),
                ..Default::default()
            };
            let requests = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol(
                    "kelda.v1.ProduceService".to_owned(),
                )),
            ];
            let answers = client.server_reflection_info(stream::iter(requests)).await;
            let mut answers = answers.expect("answered").into_inner();
            let mut next = async || {
                let answer = soon("an answer", answers.message()).await;
                let answer = answer.expect("open").expect("an answer");
                answer.message_response.expect("given")
            };
            let MessageResponse::ListServicesResponse(list) = next().await else {
                panic!("services are listed");
            };
            let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
            for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
                assert!(names.contains(&service), "{service} in {names:?}");
            }
            let MessageResponse::FileDescriptorResponse(files) = next().await else {
                panic!("the file is known");
            };
            let file = files.file_descriptor_proto.first().expect("a file");
            let file = prost_types::FileDescriptorProto::decode(file.as_slice());
            let file = file.expect("a descriptor");
            assert_eq!(file.name(), "kelda/v1/produce_service.proto");
        }
    };
}

reflection_test!(services_are_found_by_reflection, v1);
reflection_test!(services_are_found_by_old_reflection, v1alpha);
