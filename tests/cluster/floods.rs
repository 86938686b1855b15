//! Floods of what may wait: heartbeats, votes and produces do not wait with it.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kelda_proto::{
    batch::crc32c,
    internal::v1::{
        LogId, RaftRequest, ReplicatedEntry, Vote,
        peer_service_client::PeerServiceClient,
        raft_request::{AppendRequest, Message},
        replicated_entry::{Kind, Part},
    },
    v1::{GetStatusRequest, cluster_service_client::ClusterServiceClient},
};
use tonic::Request;

use super::ask::{self, TOPIC};
use crate::support::{cluster::Cluster, connect, wait::eventually};

/// Several times as long as followers wait for a heartbeat.
const FLOOD: Duration = Duration::from_secs(5);

/// As large as appends get.
const APPEND_BYTES: usize = 1 << 20;

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    for address in cluster.addresses() {
        eventually("a record is written", async || {
            ask::produce(address, "before").await.ok()
        })
        .await;
    }
    cluster
}

/// Produces through all nodes for as long as the flood lasts: each is acknowledged, and nobody is elected.
async fn assert_nobody_waits(cluster: &Cluster) {
    let before = ask::terms(cluster).await;
    let started = Instant::now();
    while started.elapsed() < FLOOD {
        for address in cluster.addresses() {
            let written = ask::produce(address, "meanwhile").await;
            written.expect("produces go on");
        }
    }
    assert_eq!(ask::terms(cluster).await, before, "there was an election");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_the_bulk_lane_delays_no_heartbeat_and_no_produce() {
    let cluster = cluster().await;
    let leader = cluster.leader(TOPIC, 0, None).await;
    let sent = Arc::new(AtomicU64::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    for at in 0..3 {
        let client = cluster.addresses()[at];
        let raft = cluster[at].raft_address().expect("it has others");
        // To the leader twice.
        for _ in 0..=usize::from(at == leader) {
            lanes.spawn(flood(client, raft, Arc::clone(&sent)));
        }
    }
    assert_nobody_waits(&cluster).await;
    let sent = sent.load(Ordering::Relaxed);
    println!("{sent} appends of 1 MiB");
    assert!(sent > 100, "that is no flood: {sent}");
    // They were not refused: no lane has ended.
    assert!(lanes.try_join_next().is_none());
}

/// Sends appends of a leader of long ago as fast as they are taken.
async fn flood(client: SocketAddr, raft: SocketAddr, sent: Arc<AtomicU64>) {
    let mut service = ClusterServiceClient::new(connect(client).await);
    let status = service.get_status(GetStatusRequest {}).await;
    let status = status.expect("it is ready").into_inner();
    let to = status.node.expect("it has joined").id;
    let from = if to == 1 { 2 } else { 1 };
    let message = old_append(from);
    let messages = futures::stream::repeat_with(move || {
        sent.fetch_add(1, Ordering::Relaxed);
        message.clone()
    });
    let mut request = Request::new(messages);
    let headers = request.metadata_mut();
    headers.insert("kelda-cluster", status.cluster_id.parse().expect("text"));
    headers.insert("kelda-from", from.into());
    headers.insert("kelda-to", to.into());
    let mut service = PeerServiceClient::new(connect(raft).await);
    let answers = service.raft(request).await.expect("it is a member");
    let mut answers = answers.into_inner();
    while let Ok(Some(_)) = answers.message().await {}
}

fn old_append(from: u64) -> RaftRequest {
    let bytes = vec![7; APPEND_BYTES];
    let id = |index| LogId {
        term: 0,
        node: from,
        index,
    };
    let entry = ReplicatedEntry {
        id: Some(id(1)),
        kind: Kind::Command.into(),
        header: Vec::new().into(),
        parts: vec![Part {
            crc32c: crc32c(&bytes),
            bytes: bytes.into(),
        }],
    };
    RaftRequest {
        call: 1,
        group: 1,
        message: Some(Message::Append(AppendRequest {
            vote: Some(Vote {
                term: 0,
                node: from,
                committed: true,
            }),
            previous: Some(id(0)),
            entries: vec![entry],
            commit: None,
        })),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_gossip_delays_no_heartbeat_and_no_produce() {
    let cluster = cluster().await;
    let targets: Vec<_> = (0..3)
        .filter_map(|at| cluster[at].cluster_address())
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut sent = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            // Tags, versions and lengths of all kinds, most of them wrong.
            let mut packet = [0; 1400];
            let noise = sent.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            packet[..8].copy_from_slice(&noise);
            packet[0] %= 20;
            for target in &targets {
                // A node that takes no more drops it: that is its right.
                sent += u64::from(socket.send_to(&packet, target).is_ok());
            }
        }
        sent
    });
    assert_nobody_waits(&cluster).await;
    stop.store(true, Ordering::Relaxed);
    let sent = flood.await.expect("it does not panic");
    println!("{sent} packets");
    assert!(sent > 10_000, "that is no flood: {sent}");
}
