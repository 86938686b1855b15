//! One lane to one node: a stream that is opened when there is something to say, and again after it was lost.

use std::{collections::HashMap, ops::ControlFlow, time::Duration};

use kelda_proto::internal::v1::{RaftRequest, RaftResponse, raft_response};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, service::interceptor::InterceptedService};

use super::{AddressBook, Credentials, Lane, PeerError, client, endpoint};
use crate::types::NodeId;

/// Messages that may wait for the stream. Groups have one append and few votes under way each.
const QUEUE: usize = 1024;
/// Messages on the stream that HTTP/2 has not taken yet.
const STREAM_QUEUE: usize = 16;
/// Answers to wait for, some of which nobody waits for any more.
const PENDING_MAX: usize = 4096;
/// Pause after a failed connection; what comes meanwhile is refused at once.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What a node answered, or why it did not.
pub type Answer = Result<raft_response::Message, PeerError>;

struct Outgoing {
    request: RaftRequest,
    answer: oneshot::Sender<Answer>,
}

/// Sends to the lane. The lane ends with the last of its senders.
#[derive(Clone)]
pub(super) struct LaneSender {
    to: NodeId,
    queue: mpsc::Sender<Outgoing>,
}

impl LaneSender {
    pub(super) fn start(
        to: NodeId,
        lane: Lane,
        credentials: Credentials,
        book: watch::Receiver<AddressBook>,
        runtime: &Handle,
    ) -> Self {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let lane = Stream {
            to,
            lane,
            credentials,
            book,
            outgoing,
            said: false,
            next_call: 0,
            pending: HashMap::new(),
        };
        runtime.spawn(lane.run());
        Self { to, queue }
    }

    pub(super) fn send(
        &self,
        request: RaftRequest,
    ) -> Result<oneshot::Receiver<Answer>, PeerError> {
        let (answer, receiver) = oneshot::channel();
        self.queue
            .try_send(Outgoing { request, answer })
            .map_err(|_| PeerError::Busy(self.to))?;
        Ok(receiver)
    }
}

struct Stream {
    to: NodeId,
    lane: Lane,
    credentials: Credentials,
    book: watch::Receiver<AddressBook>,
    outgoing: mpsc::Receiver<Outgoing>,
    /// Whether it was logged that the node refuses this one.
    said: bool,
    next_call: u64,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Stream {
    async fn run(mut self) {
        let mut retry = RETRY_MIN;
        while let Some(first) = self.outgoing.recv().await {
            match self.connect().await {
                Ok((requests, responses)) => {
                    retry = RETRY_MIN;
                    if self.carry(first, requests, responses).await.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(node = %self.to, lane = ?self.lane, %error, "no connection to node");
                    let _ = first.answer.send(Err(error.clone()));
                    if self.refuse(&error, retry).await.is_break() {
                        return;
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn connect(
        &mut self,
    ) -> Result<(mpsc::Sender<RaftRequest>, Streaming<RaftResponse>), PeerError> {
        let to = self.to;
        let unreachable = |detail: String| PeerError::Unreachable { node: to, detail };
        let address = self.book.borrow().raft_address(self.to).map(str::to_owned);
        let address = address.ok_or(PeerError::NoAddress(self.to))?;
        let endpoint = endpoint(&address).map_err(unreachable)?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| unreachable(error.to_string()))?;
        let channel = InterceptedService::new(channel, self.credentials.clone());
        let (requests, stream) = mpsc::channel(STREAM_QUEUE);
        let opened = client(channel).raft(ReceiverStream::new(stream)).await;
        let responses = opened.map_err(|status| {
            self.log_refusal(&status);
            unreachable(status.message().to_owned())
        })?;
        Ok((requests, responses.into_inner()))
    }

    /// A node that the others do not know can do nothing about it, and its operator can: who would else wonder why it
    /// never gets ready. Once, and not for each lane.
    fn log_refusal(&mut self, status: &Status) {
        if status.code() == Code::PermissionDenied && self.lane == Lane::Control && !self.said {
            self.said = true;
            let (node, refusal) = (self.to, status.message());
            tracing::error!(
                %node,
                refusal,
                "refused by another node: if this one was removed from the cluster, stop it, and start it with an empty --data-dir and with --seeds to add it again"
            );
        }
    }

    /// Carries messages until the stream is lost, or nobody can send any more.
    async fn carry(
        &mut self,
        first: Outgoing,
        requests: mpsc::Sender<RaftRequest>,
        mut responses: Streaming<RaftResponse>,
    ) -> ControlFlow<()> {
        let mut next = Some(first);
        let flow = loop {
            // Each branch may be dropped: a permit that was not used goes back, and the others only receive.
            tokio::select! {
                permit = requests.reserve(), if next.is_some() => match (permit, next.take()) {
                    (Ok(permit), Some(outgoing)) => {
                        if let Some(request) = self.number(outgoing) {
                            self.credentials.count_sent();
                            permit.send(request);
                        }
                    }
                    _ => break ControlFlow::Continue(()),
                },
                outgoing = self.outgoing.recv(), if next.is_none() => match outgoing {
                    Some(outgoing) => next = Some(outgoing),
                    None => break ControlFlow::Break(()),
                },
                response = responses.message() => match response {
                    Ok(Some(response)) => self.answer(response),
                    Ok(None) | Err(_) => break ControlFlow::Continue(()),
                },
            }
        };
        // Whoever waits learns of it by its dropped sender.
        self.pending.clear();
        flow
    }

    fn number(
        &mut self,
        Outgoing {
            mut request,
            answer,
        }: Outgoing,
    ) -> Option<RaftRequest> {
        if self.pending.len() >= PENDING_MAX {
            self.pending.retain(|_, answer| !answer.is_closed());
        }
        if self.pending.len() >= PENDING_MAX {
            let _ = answer.send(Err(PeerError::Busy(self.to)));
            return None;
        }
        self.next_call += 1;
        request.call = self.next_call;
        self.pending.insert(self.next_call, answer);
        Some(request)
    }

    fn answer(&mut self, response: RaftResponse) {
        if let (Some(answer), Some(message)) =
            (self.pending.remove(&response.call), response.message)
        {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(Ok(message));
        }
    }

    /// Answers everything with `error` for some time, so that nobody waits for a node that is not there.
    async fn refuse(&mut self, error: &PeerError, pause: Duration) -> ControlFlow<()> {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => {
                        let _ = outgoing.answer.send(Err(error.clone()));
                    }
                    None => return ControlFlow::Break(()),
                },
                () = sleep_until(until) => return ControlFlow::Continue(()),
                // It may be elsewhere now.
                Ok(()) = self.book.changed() => return ControlFlow::Continue(()),
            }
        }
    }
}
