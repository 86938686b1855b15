//! Connections to one of the servers, and moving on to the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::client::Options;
use crate::error::{Error, root_cause};

/// Lets one stream fill the pipe: the default of 64 KiB stalls on every larger batch.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Room for several streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Fewer, larger reads and writes: together with the windows more than twice the rate of the default 16 KiB. From
/// 128 KiB to this, reading batches of 1 MiB gains 18 %; 1 MiB would add 2 % and hold up small answers for longer.
const FRAME_BYTES: u32 = 256 << 10;
/// How long nothing may come while an answer is awaited before the server is asked for a sign of life, and how long
/// that may take: one that is frozen or cut off closes nothing. A connection that waits for nothing costs nothing.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long one of several servers may take to connect, so that one that is cut off does not hold up the next.
const TURN_MAX: Duration = Duration::from_secs(2);

/// Connections to one server.
pub(crate) struct Pool {
    /// Counts the pools: says which one failed.
    pub(crate) generation: u64,
    server: usize,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Pool {
    /// The channels in turn.
    pub(crate) fn channel(&self) -> Channel {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }
}

/// The pool in use.
pub(crate) struct Connections {
    servers: Vec<String>,
    endpoints: Vec<Endpoint>,
    channels: usize,
    current: RwLock<Arc<Pool>>,
    /// Held while a new pool is made: those who find the old one broken wait for one of them.
    replacing: tokio::sync::Mutex<()>,
}

impl Connections {
    /// Connects to the first server that answers.
    pub(crate) async fn open(options: &Options) -> Result<Connections, Error> {
        let endpoints = options
            .servers
            .iter()
            .map(|server| endpoint(server, options))
            .collect::<Result<Vec<_>, _>>()?;
        let channels = options.channels.max(1);
        let pool = connect(&options.servers, &endpoints, channels, 0, 0).await?;
        Ok(Connections {
            servers: options.servers.clone(),
            endpoints,
            channels,
            current: RwLock::new(Arc::new(pool)),
            replacing: tokio::sync::Mutex::new(()),
        })
    }

    /// The pool in use.
    pub(crate) fn current(&self) -> Arc<Pool> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// The pool that follows the one of generation `failed`: connects to the next server that answers, unless
    /// somebody else has done so. Tries each server once, the one that failed last.
    pub(crate) async fn replace(&self, failed: u64) -> Result<Arc<Pool>, Error> {
        let _replacing = self.replacing.lock().await;
        let current = self.current();
        if current.generation != failed {
            return Ok(current);
        }
        let pool = connect(
            &self.servers,
            &self.endpoints,
            self.channels,
            current.server + 1,
            failed + 1,
        )
        .await?;
        let pool = Arc::new(pool);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::clone(&pool);
        Ok(pool)
    }
}

/// Connects to the first of the servers, from `first` on, that answers.
async fn connect(
    servers: &[String],
    endpoints: &[Endpoint],
    channels: usize,
    first: usize,
    generation: u64,
) -> Result<Pool, Error> {
    let mut detail = "no server is given".to_owned();
    for attempt in 0..endpoints.len() {
        let server = (first + attempt) % endpoints.len();
        match endpoints[server].connect().await {
            Ok(channel) => {
                // The others connect when they are used.
                let more = (1..channels).map(|_| endpoints[server].connect_lazy());
                return Ok(Pool {
                    generation,
                    server,
                    channels: std::iter::once(channel).chain(more).collect(),
                    next: AtomicUsize::new(0),
                });
            }
            Err(error) => detail = root_cause(&error),
        }
    }
    Err(Error::Connect {
        servers: servers.to_vec(),
        detail,
    })
}

fn endpoint(server: &str, options: &Options) -> Result<Endpoint, Error> {
    let address = |detail: String| Error::Address {
        server: server.to_owned(),
        detail,
    };
    let uri = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| address(root_cause(&error)))?;
    if endpoint.uri().scheme_str() != Some("http") {
        return Err(address("only plain http is spoken".to_owned()));
    }
    if endpoint.uri().port().is_none() {
        return Err(address("the port is missing".to_owned()));
    }
    let endpoint = endpoint
        .user_agent(concat!("kelda-rust/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| address(root_cause(&error)))?;
    let turn = if options.servers.len() > 1 {
        options.connect_timeout.min(TURN_MAX)
    } else {
        options.connect_timeout
    };
    Ok(endpoint
        .connect_timeout(turn)
        .http2_keep_alive_interval(SILENCE_MAX)
        .keep_alive_timeout(SILENCE_MAX)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        let options = Options::default();
        for good in [
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "http://broker:80",
        ] {
            assert!(endpoint(good, &options).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "https://broker:443",
            "a b:1",
            "http://broker",
        ] {
            let error = endpoint(bad, &options).map(|endpoint| endpoint.uri().clone());
            assert!(
                matches!(error, Err(Error::Address { .. })),
                "{bad}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_in_the_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let options = Options {
            servers: vec![server.clone()],
            ..Options::default()
        };
        let error = Connections::open(&options)
            .await
            .err()
            .expect("nobody listens");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot connect to {server}: ")),
            "{text}"
        );
        assert!(text.contains("refused"), "{text}");
    }
}
