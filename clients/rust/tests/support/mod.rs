//! A broker in memory whose faults are scripted: drops streams, loses acks, refuses appends, falls silent. It keeps
//! the contract's promises about sessions, so that what it has in its log is what a real one would have.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the support code"
)]

mod consume;
mod produce;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kelda_client::v1::consume_service_server::ConsumeServiceServer;
use kelda_client::v1::produce_service_server::ProduceServiceServer;
use kelda_client::v1::produce_stream_request::Hello;
use kelda_client::v1::topic_service_server::{TopicService, TopicServiceServer};
use kelda_client::v1::*;
use kelda_client::{Client, Options, Retry};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) use consume::Script;
pub(crate) use produce::Fault;

pub(crate) const TOPIC: &str = "orders";

/// What all nodes of the cluster know.
pub(crate) struct Cluster {
    pub(crate) partition_count: i32,
    pub(crate) window: i32,
    pub(crate) config: TopicConfig,
    pub(crate) logs: BTreeMap<i32, Vec<Record>>,
    /// What happens to the appends to come, in the order in which they arrive; without one they pass.
    pub(crate) faults: VecDeque<Fault>,
    /// Refuse every append, for now.
    pub(crate) refuse_all: Option<ErrorReason>,
    /// The first messages of all produce streams.
    pub(crate) hellos: Vec<Hello>,
    /// What happens to the consume streams to come.
    pub(crate) scripts: VecDeque<Script>,
    /// The requests of all consume streams.
    pub(crate) consumes: Vec<ConsumeRequest>,
    sessions: HashMap<(String, i32), produce::SessionState>,
}

/// Shared by all nodes.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Cluster>>);

impl Shared {
    pub(crate) fn new(partition_count: i32) -> Shared {
        Shared(Arc::new(Mutex::new(Cluster {
            partition_count,
            window: 32,
            config: TopicConfig::default(),
            logs: BTreeMap::new(),
            faults: VecDeque::new(),
            refuse_all: None,
            hellos: Vec::new(),
            scripts: VecDeque::new(),
            consumes: Vec::new(),
            sessions: HashMap::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.0
            .lock()
            .expect("no test panics while it holds the lock")
    }

    /// Timestamps of a partition's records, which the tests use as numbers.
    pub(crate) fn numbers(&self, partition: i32) -> Vec<i64> {
        let cluster = self.lock();
        let log = cluster.logs.get(&partition);
        log.map(|log| log.iter().map(|record| record.timestamp_ms).collect())
            .unwrap_or_default()
    }
}

/// One node. It has a runtime of its own, so that all of its connections break when it is dropped.
pub(crate) struct Node {
    pub(crate) address: String,
    runtime: Option<Runtime>,
}

impl Node {
    pub(crate) fn start(shared: &Shared) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("an option");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = shared.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            tonic::transport::Server::builder()
                .add_service(ProduceServiceServer::new(shared.clone()))
                .add_service(ConsumeServiceServer::new(shared.clone()))
                .add_service(TopicServiceServer::new(shared))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        Node {
            address,
            runtime: Some(runtime),
        }
    }
}

impl Node {
    /// Stops it as a SIGSTOP would, until the answer is dropped: its connections stay, and it says nothing.
    pub(crate) fn freeze(&self) -> std::sync::mpsc::SyncSender<()> {
        let (thaw, thawed) = std::sync::mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref().expect("it runs until it is dropped");
        let (frozen, is_frozen) = std::sync::mpsc::sync_channel(1);
        // It has no other thread.
        runtime.spawn(async move {
            let _ = frozen.send(());
            let _ = thawed.recv();
        });
        is_frozen.recv().expect("it has run until now");
        thaw
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A client that is quick to try again.
pub(crate) async fn client(nodes: &[&Node]) -> Client {
    let options = Options {
        servers: nodes.iter().map(|node| node.address.clone()).collect(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(30),
        channels: 1,
        retry: Retry {
            attempts: 20,
            backoff: Duration::from_millis(1),
            backoff_max: Duration::from_millis(20),
        },
    };
    connect(options).await
}

pub(crate) async fn connect(options: Options) -> Client {
    Client::connect(options).await.expect("a node that listens")
}

/// A status as brokers make it.
pub(crate) fn status(reason: ErrorReason) -> Status {
    let mut details = ErrorDetails::new();
    let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    details.set_error_info(name, "kelda", HashMap::new());
    Status::with_error_details(code(reason), name, details)
}

pub(crate) fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::UnknownTopic => Code::NotFound,
        ErrorReason::NoLeader | ErrorReason::NotReady => Code::Unavailable,
        ErrorReason::Overloaded => Code::ResourceExhausted,
        ErrorReason::OffsetOutOfRange => Code::OutOfRange,
        ErrorReason::ProducerFenced | ErrorReason::SequenceOutOfOrder => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

#[tonic::async_trait]
impl TopicService for Shared {
    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        let cluster = self.lock();
        let topic = Topic {
            name: TOPIC.to_owned(),
            partition_count: cluster.partition_count,
            config: Some(cluster.config),
            ..Topic::default()
        };
        let matches = TOPIC.starts_with(&request.into_inner().prefix);
        Ok(Response::new(ListTopicsResponse {
            topics: matches.then_some(topic).into_iter().collect(),
            next_page_token: String::new(),
        }))
    }

    async fn create_topic(
        &self,
        _: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn get_topic(
        &self,
        _: Request<GetTopicRequest>,
    ) -> Result<Response<GetTopicResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn update_topic(
        &self,
        _: Request<UpdateTopicRequest>,
    ) -> Result<Response<UpdateTopicResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn delete_topic(
        &self,
        _: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn add_partitions(
        &self,
        _: Request<AddPartitionsRequest>,
    ) -> Result<Response<AddPartitionsResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn list_offsets(
        &self,
        _: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }

    async fn delete_records(
        &self,
        _: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        Err(Status::unimplemented("no test needs it"))
    }
}
