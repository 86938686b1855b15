//! Runs nodes until they are told to stop.

use kelda_server::{
    config::{Config, LogFormat},
    node::{Node, StartError},
    telemetry::logging,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::failure::{Exit, Failure};

/// Runs nodes, most often one, until SIGINT or SIGTERM, then lets them end their work one after the other; a second signal
/// ends them at once. Logs and threads are as the first one says.
pub(super) fn run(configs: Vec<Config>, ready: impl FnOnce(&[Node])) -> Result<(), Failure> {
    let Some(config) = configs.first() else {
        return Ok(());
    };
    let format = match config.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    let _lines =
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
        let nodes = tokio::select! {
            // A node that waits for its cluster has acknowledged nothing: it may be dropped wherever it is.
            nodes = start(configs) => nodes?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        tokio::select! {
            // Nothing is lost by cancelling the wait for the other signal, or for a leader.
            () = serve(&nodes, ready) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::select! {
            // Nothing depends on an orderly end: what was acknowledged is durable.
            () = stop(nodes) => Ok(()),
            _ = interrupt.recv() => Err(cut_short()),
            _ = terminate.recv() => Err(cut_short()),
        }
    })
}

/// Starts all at once, since those of a cluster wait for each other. If one can not start, the others stop.
async fn start(configs: Vec<Config>) -> Result<Vec<Node>, StartError> {
    let mut starting = JoinSet::new();
    for (place, config) in (0..).zip(configs) {
        starting.spawn(async move { (place, Node::start(config).await) });
    }
    let mut started: Vec<(usize, Node)> = Vec::new();
    let mut failed = None;
    while let Some(outcome) = starting.join_next().await {
        match outcome {
            Ok((place, Ok(node))) => started.push((place, node)),
            Ok((_, Err(error))) => failed = failed.or(Some(error)),
            Err(error) => failed = failed.or_else(|| Some(StartError::Catalog(error.to_string()))),
        }
        if failed.is_some() {
            // The rest may wait for the one that is missing.
            starting.abort_all();
        }
    }
    started.sort_by_key(|(place, _)| *place);
    let nodes = started.into_iter().map(|(_, node)| node).collect();
    match failed {
        None => Ok(nodes),
        Some(error) => {
            stop(nodes).await;
            Err(error)
        }
    }
}

/// Says that the nodes are ready once they are, and goes on for ever.
async fn serve(nodes: &[Node], ready: impl FnOnce(&[Node])) {
    for node in nodes {
        // It ends with an error only with its node, which then says nothing more.
        let _ = node.broker().readiness().wait_for(|ready| *ready).await;
    }
    ready(nodes);
    std::future::pending::<()>().await;
}

/// Stops one after the other, the last first: while most of them run, each hands over what it leads.
async fn stop(mut nodes: Vec<Node>) {
    while let Some(node) = nodes.pop() {
        node.shutdown().await;
    }
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
