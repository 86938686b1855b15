//! Runs a node until it is told to stop.

use kelda_server::{
    config::{Config, LogFormat},
    node::{Node, StartError},
    telemetry::logging,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure};

/// Runs a node until SIGINT or SIGTERM, then lets it end its work; a second signal ends it at once.
pub(super) fn run(config: Config, ready: impl FnOnce(&Node)) -> Result<(), Failure> {
    let format = match config.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(&config.log, format).map_err(|error| Failure::failed(error.to_string()))?;
    // The groups run here; connections have the threads that the server starts.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_count())
        .thread_name("kelda-groups")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let node = tokio::select! {
            // A node that waits for its cluster has acknowledged nothing: it may be dropped wherever it is.
            node = Node::start(config) => node?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        ready(&node);
        tokio::select! {
            // Nothing is lost by cancelling the wait for the other signal.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::select! {
            // Nothing depends on an orderly end: what was acknowledged is durable.
            () = node.shutdown() => Ok(()),
            _ = interrupt.recv() => Err(cut_short()),
            _ = terminate.recv() => Err(cut_short()),
        }
    })
}

fn cut_short() -> Failure {
    Failure::new(
        Exit::Interrupted,
        "told to stop twice: ended before all calls had",
    )
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Config(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
