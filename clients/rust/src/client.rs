//! The client: connections, configured stubs, and calls that are repeated.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kelda_proto::limits;
use kelda_proto::v1::cluster_service_client::ClusterServiceClient;
use kelda_proto::v1::consume_service_client::ConsumeServiceClient;
use kelda_proto::v1::produce_service_client::ProduceServiceClient;
use kelda_proto::v1::topic_service_client::TopicServiceClient;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::connection::{Connections, Pool};
use crate::error::Error;
use crate::retry::{Backoff, Retry};
use crate::topics::Topics;

/// Largest message either way: the largest request, and room for what is around its records.
const MESSAGE_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX + (1 << 20);

/// The transport enforces the deadline that the broker is told too, with an error that does not say so: by then our
/// own, clear one has passed.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// Stands for no limit: a moment that far away can be told.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of nodes, `host:port`, tried in turn. Any node takes any call; more than one only helps when one
    /// is down.
    pub servers: Vec<String>,
    /// How long to wait for a connection to one of them; of several each gets 2 seconds at most.
    pub connect_timeout: Duration,
    /// How long to wait for the answer to one attempt of a call. A connection that goes silent meanwhile is given up
    /// after 2 seconds, whatever this says.
    pub request_timeout: Duration,
    /// How long all attempts of a call may take together, and the pauses between them. A producer goes by its delivery
    /// timeout instead, and for a consumer it is how long it may get nowhere.
    pub call_timeout: Duration,
    /// Connections to the server in use, taken in turn. More than one helps only when a single connection's task
    /// is busy all the time.
    pub channels: usize,
    /// How failed calls are repeated.
    pub retry: Retry,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            servers: vec!["127.0.0.1:8080".to_owned()],
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(60),
            channels: 1,
            retry: Retry::default(),
        }
    }
}

/// A connection to a cluster. Clones share it.
#[derive(Clone)]
pub struct Client {
    connections: Arc<Connections>,
    options: Arc<Options>,
}

impl Client {
    /// Connects to the first of the servers that answers.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Connect`].
    pub async fn connect(options: Options) -> Result<Client, Error> {
        let connections = Connections::open(&options).await?;
        Ok(Client {
            connections: Arc::new(connections),
            options: Arc::new(options),
        })
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Manages topics.
    pub fn topics(&self) -> Topics {
        Topics::new(self.clone())
    }

    /// The bare stub, on one of the connections. Its calls are not repeated.
    pub fn produce_service(&self) -> ProduceServiceClient<Channel> {
        produce_service(self.pool().channel())
    }

    /// The bare stub, on one of the connections. Its calls are not repeated.
    pub fn consume_service(&self) -> ConsumeServiceClient<Channel> {
        consume_service(self.pool().channel())
    }

    /// The bare stub, on one of the connections. Its calls are not repeated.
    pub fn topic_service(&self) -> TopicServiceClient<Channel> {
        topic_service(self.pool().channel())
    }

    /// The bare stub, on one of the connections. Its calls are not repeated.
    pub fn cluster_service(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.pool().channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The connections in use.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.connections.current()
    }

    /// Connections to the next server, when those of generation `failed` did.
    pub(crate) async fn replace(&self, failed: u64) -> Result<Arc<Pool>, Error> {
        self.connections.replace(failed).await
    }

    /// A request with the deadline of an attempt, for the broker to know.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.options.request_timeout + DEADLINE_GRACE);
        request
    }

    /// Makes a call, and repeats it while that may help.
    pub(crate) async fn call<T, F, Answer>(&self, mut attempt: F) -> Called<T>
    where
        F: FnMut(Channel) -> Answer,
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let limit = self.options.call_timeout.min(FOREVER);
        let deadline = Instant::now() + limit;
        let mut backoff = Backoff::new(self.options.retry);
        let mut unsure = false;
        let mut said = None;
        let mut pool = self.pool();
        loop {
            let error = match self.within_timeout(attempt(pool.channel()), deadline).await {
                Ok(answer) => {
                    return Called {
                        result: Ok(answer),
                        unsure,
                    };
                }
                Err(error) => error,
            };
            let pause = backoff.next_attempt(error.retry_after());
            let pause =
                pause.filter(|pause| error.retryable() && Instant::now() + *pause < deadline);
            let Some(pause) = pause else {
                return Called {
                    result: Err(error.after(said, limit)),
                    unsure,
                };
            };
            unsure |= error.indefinite();
            tokio::time::sleep(pause).await;
            if error.blames_server() {
                // If none answers, the attempt on the old connections says so, and counts.
                let replaced = timeout_at(deadline, self.replace(pool.generation)).await;
                pool = replaced.ok().and_then(Result::ok).unwrap_or(pool);
            }
            if !matches!(error, Error::Timeout { .. }) {
                said = Some(error);
            }
        }
    }

    async fn within_timeout<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
        deadline: Instant,
    ) -> Result<T, Error> {
        let after = self.options.request_timeout;
        let within = timeout_at(deadline, timeout(after, answer));
        match within.await {
            Ok(Ok(answer)) => Ok(answer?.into_inner()),
            Ok(Err(_)) => Err(Error::Timeout { after }),
            Err(_) => Err(Error::Timeout {
                after: self.options.call_timeout,
            }),
        }
    }
}

/// How a call went.
pub(crate) struct Called<T> {
    /// Answer or last error.
    pub(crate) result: Result<T, Error>,
    /// An earlier attempt failed in a way that leaves open whether it took effect.
    pub(crate) unsure: bool,
}

pub(crate) fn produce_service(channel: Channel) -> ProduceServiceClient<Channel> {
    ProduceServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn consume_service(channel: Channel) -> ConsumeServiceClient<Channel> {
    ConsumeServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn topic_service(channel: Channel) -> TopicServiceClient<Channel> {
    TopicServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
