//! A stream of changes of the cluster: one task that compares what is with what it told. A slow client holds it up, and
//! then gets several changes as one.

use std::time::Duration;

use futures::{StreamExt as _, stream::BoxStream};
use kelda_proto::v1::{
    ClusterHeartbeat, ClusterUpdate, WatchClusterRequest, WatchClusterResponse,
    watch_cluster_response::Event,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::status;
use crate::broker::{Broker, ClusterChanges, Error};

const HEARTBEAT_MS_DEFAULT: i32 = 10_000;
const HEARTBEAT_MS_MIN: i32 = 100;
const HEARTBEAT_MS_MAX: i32 = 60_000;

type Message = Result<WatchClusterResponse, Status>;

/// Opens a stream: checks the request and starts the task.
pub(super) fn events(
    broker: &Broker,
    stopping: CancellationToken,
    request: WatchClusterRequest,
) -> Result<BoxStream<'static, Message>, Error> {
    let heartbeat_ms = match request.heartbeat_interval_ms {
        0 => HEARTBEAT_MS_DEFAULT,
        asked if (HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX).contains(&asked) => asked,
        _ => {
            let message = format!("must be 0 or {HEARTBEAT_MS_MIN} to {HEARTBEAT_MS_MAX}");
            return Err(Error::invalid("heartbeat_interval_ms", message));
        }
    };
    let heartbeat = Duration::from_millis(u64::from(heartbeat_ms.unsigned_abs()));
    let changes = broker.watch_cluster();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // Watching changes nothing, so it may be dropped wherever it is.
        tokio::select! {
            () = tell(changes, heartbeat, &sender) => {}
            () = sender.closed() => {}
            () = stopping.cancelled() => {
                // If the client has gone meanwhile, nobody needs to hear of it.
                let _ = sender.send(Err(status(&Error::NotReady))).await;
            }
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

/// Tells until the client has gone.
async fn tell(mut changes: ClusterChanges, heartbeat: Duration, sender: &mpsc::Sender<Message>) {
    let message = |event| Ok(WatchClusterResponse { event: Some(event) });
    for part in changes.state().await {
        if sender.send(message(Event::State(part))).await.is_err() {
            return;
        }
    }
    loop {
        let parts: Vec<ClusterUpdate> = changes.next(Instant::now() + heartbeat).await;
        let events = if parts.is_empty() {
            let catalog_version = changes.catalog_version();
            vec![Event::Heartbeat(ClusterHeartbeat { catalog_version })]
        } else {
            parts.into_iter().map(Event::Change).collect()
        };
        for event in events {
            if sender.send(message(event)).await.is_err() {
                return;
            }
        }
    }
}
