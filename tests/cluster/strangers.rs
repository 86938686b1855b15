//! What comes to the Raft port from where it must not come: it is refused before it reaches a group, and changes no
//! term.

use std::net::SocketAddr;

use kelda_proto::{
    internal::v1::{
        LogId, RaftRequest, RaftResponse, Snapshot, Vote,
        peer_service_client::PeerServiceClient,
        raft_request::{AppendRequest, Message, SnapshotRequest, TransferRequest, VoteRequest},
        raft_response,
    },
    v1::{GetStatusRequest, cluster_service_client::ClusterServiceClient},
};
use tonic::{Code, Request, Status};

use super::ask::{self, TOPIC};
use crate::support::{
    cluster::Cluster,
    connect,
    wait::{eventually, soon},
};

/// The group of the only partition.
const GROUP: u64 = 1;

/// A term that deposes every leader.
const HIGH: u64 = 1_000_000;

/// What a caller says of itself.
#[derive(Clone, Debug)]
struct Caller {
    cluster: String,
    from: u64,
    to: u64,
}

impl Caller {
    /// Says something to a group, on a lane of its own.
    async fn say(
        &self,
        address: SocketAddr,
        group: u64,
        message: Message,
    ) -> Result<raft_response::Message, Status> {
        let message = RaftRequest {
            call: 7,
            group,
            message: Some(message),
        };
        let mut request = Request::new(tokio_stream::iter([message]));
        let headers = request.metadata_mut();
        headers.insert("kelda-cluster", self.cluster.parse().expect("text"));
        headers.insert("kelda-from", self.from.into());
        headers.insert("kelda-to", self.to.into());
        let mut service = PeerServiceClient::new(connect(address).await);
        let mut answers = service.raft(request).await?.into_inner();
        let answer = soon("an answer", answers.message()).await?;
        let RaftResponse { call, message } = answer.expect("an answer to each request");
        assert_eq!(call, 7);
        Ok(message.expect("an answer says something"))
    }
}

fn vote(term: u64, node: u64, committed: bool) -> Option<Vote> {
    Some(Vote {
        term,
        node,
        committed,
    })
}

/// Everything that could make a group follow `node` in a term.
fn messages(term: u64, node: u64) -> Vec<Message> {
    let last = Some(LogId {
        term,
        node,
        index: HIGH,
    });
    let candidate = VoteRequest {
        vote: vote(term, node, false),
        last,
        leadership_transfer: true,
    };
    let leader = vote(term, node, true);
    vec![
        Message::Vote(candidate),
        Message::PreVote(candidate),
        Message::Append(AppendRequest {
            vote: leader,
            previous: None,
            entries: Vec::new(),
            commit: last,
        }),
        Message::Snapshot(SnapshotRequest {
            vote: leader,
            snapshot: Some(Snapshot {
                last,
                ..Default::default()
            }),
        }),
        Message::Transfer(TransferRequest {
            vote: leader,
            to: node,
            last,
        }),
    ]
}

/// Three nodes, the Raft port of one of them, and what an honest caller says to it.
async fn cluster() -> (Cluster, SocketAddr, Caller) {
    let cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    let asked = cluster.addresses()[0];
    eventually("a record is written", async || {
        ask::produce(asked, "before").await.ok()
    })
    .await;
    let mut service = ClusterServiceClient::new(connect(asked).await);
    let status = service.get_status(GetStatusRequest {}).await;
    let status = status.expect("it is ready").into_inner();
    let to = status.node.expect("it has joined").id;
    let honest = Caller {
        cluster: status.cluster_id,
        from: if to == 1 { 2 } else { 1 },
        to,
    };
    let raft = cluster[0].raft_address().expect("it has others");
    (cluster, raft, honest)
}

/// The terms are what they were, and all is well.
async fn assert_unharmed(cluster: &Cluster, before: ask::Terms) {
    assert_eq!(ask::terms(cluster).await, before);
    for address in cluster.addresses() {
        ask::produce(address, "after").await.expect("written");
    }
    assert_eq!(ask::terms(cluster).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_strangers_are_refused_before_they_are_read() {
    let (cluster, raft, honest) = cluster().await;
    let before = ask::terms(&cluster).await;
    let strangers = [
        Caller {
            cluster: "another".to_owned(),
            ..honest.clone()
        },
        Caller {
            cluster: String::new(),
            ..honest.clone()
        },
        // Ids begin with 1.
        Caller {
            from: 0,
            ..honest.clone()
        },
        Caller {
            to: honest.from,
            ..honest.clone()
        },
    ];
    for stranger in strangers {
        for group in [0, GROUP] {
            for message in messages(HIGH, stranger.from) {
                let refused = stranger.say(raft, group, message).await;
                let refused = refused.expect_err("it is a stranger");
                assert_eq!(refused.code(), Code::PermissionDenied, "{stranger:?}");
            }
        }
    }
    assert_unharmed(&cluster, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_none_of_a_groups_business_do_not_reach_it() {
    let (cluster, raft, honest) = cluster().await;
    let before = ask::terms(&cluster).await;
    // What is let in is answered by the group, so the refusals below are not for another reason.
    let question = Message::PreVote(VoteRequest {
        vote: vote(0, honest.from, false),
        ..Default::default()
    });
    let answer = honest.say(raft, GROUP, question).await;
    let answer = answer.expect("it is let in");
    assert!(
        matches!(&answer, raft_response::Message::Vote(vote) if !vote.granted),
        "{answer:?}"
    );

    // It may be a node that has just joined, but it has no replica.
    let newcomer = Caller {
        from: 99,
        ..honest.clone()
    };
    let cases = [
        (&newcomer, GROUP, 99, "not a member"),
        (&honest, GROUP + 1, honest.from, "no such group"),
        (&honest, GROUP, 99, "speaks for"),
        (&honest, 0, 99, "speaks for"),
    ];
    for (caller, group, claimed, reason) in cases {
        for message in messages(HIGH, claimed) {
            let answer = caller.say(raft, group, message.clone()).await;
            let answer = answer.expect("its lane is let in");
            let raft_response::Message::Error(error) = answer else {
                panic!("{caller:?} {group} {message:?}: {answer:?}");
            };
            assert!(error.contains(reason), "{error}, not {reason}: {message:?}");
        }
    }
    assert_unharmed(&cluster, before).await;
}
