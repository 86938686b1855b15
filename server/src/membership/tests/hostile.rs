//! Strangers, other clusters, and bytes that nobody honest sends.

use std::io::Write as _;

use super::*;
use crate::membership::Key;

async fn of_cluster(config: Config, cluster_id: &str) -> Gossip {
    let started = Gossip::start(config, announcement(cluster_id), Metrics::new("1"));
    started.await.expect("a free port")
}

#[tokio::test]
async fn another_cluster_is_refused_and_does_no_harm() {
    let a = of_cluster(config("a", &[]), "one").await;
    let b = of_cluster(config("b", &[a.address()]), "one").await;
    until(&b, |view| alive(view) == ["a", "b"]).await;
    // It has a node of the same name, and is told the wrong seed.
    let other_b = of_cluster(config("b", &[]), "two").await;
    let seeds = [a.address(), other_b.address()];
    let other_c = of_cluster(config("c", &seeds), "two").await;
    until(&other_c, |view| alive(view) == ["b", "c"]).await;
    // One that belongs to none yet joins the cluster that it finds.
    let joiner = of_cluster(config("j", &[a.address()]), "").await;
    until(&joiner, |view| alive(view) == ["a", "b", "j"]).await;
    for member in [&a, &b] {
        until(member, |view| alive(view) == ["a", "b", "j"]).await;
        let view = Arc::clone(&member.watch().borrow());
        assert_eq!(view.nodes["b"].address, b.address());
        assert_eq!(view.nodes["b"].conflict, None);
        assert!(view.node("c").is_none());
    }
    let view = Arc::clone(&other_c.watch().borrow());
    assert_eq!(view.nodes["b"].address, other_b.address());
    assert!(view.node("a").is_none());
}

/// Everything that can be sent without knowing anything, from empty to as large as it goes.
fn noise(round: u8) -> Vec<Vec<u8>> {
    let mut random = [0; 2048];
    getrandom::fill(&mut random).expect("random bytes");
    let mut packets = vec![Vec::new(), vec![round], random.to_vec(), vec![0xff; 60_000]];
    for tag in 0..=16 {
        // A tag, a version, a length that lies.
        for length in [0, 1, 0x7f, 0xff] {
            let mut packet = vec![tag, round, length, length, length, length];
            packet.extend_from_slice(&random[..usize::from(tag) * 8]);
            packets.push(packet.clone());
            // The same behind our label.
            let mut labelled = b"\x0c\x05kelda".to_vec();
            labelled.extend_from_slice(&packet);
            packets.push(labelled);
        }
    }
    packets
}

/// Memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split(' ').nth(1).expect("a second field");
    pages.parse::<usize>().expect("a number") * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_bytes_changes_no_member_and_takes_no_memory() {
    for keys in [vec![], vec![Key([5; 32])]] {
        let keyed = |name, seeds: &[SocketAddr]| Config {
            keys: keys.clone(),
            ..config(name, seeds)
        };
        let a = start(keyed("a", &[])).await;
        let b = start(keyed("b", &[a.address()])).await;
        until(&a, |view| alive(view) == ["a", "b"]).await;
        until(&b, |view| alive(view) == ["a", "b"]).await;
        let before = (Arc::clone(&a.watch().borrow()), resident());
        let target = a.address();
        let flood = tokio::task::spawn_blocking(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            for round in 0..50 {
                for packet in noise(round) {
                    // The target may be slow to take it: that is its right.
                    let _ = socket.send_to(&packet, target);
                    if round % 10 == 0
                        && let Ok(mut stream) = std::net::TcpStream::connect(target)
                    {
                        let _ = stream.write_all(&packet);
                    }
                }
            }
        });
        flood.await.expect("it does not panic");
        // They still hear each other.
        let mut news = announcement("c");
        news.rack = "after".to_owned();
        b.announce(news).expect("short");
        until(&a, |view| view.nodes["b"].announcement.rack == "after").await;
        let after = (Arc::clone(&a.watch().borrow()), resident());
        assert_eq!(alive(&after.0), ["a", "b"]);
        assert_eq!(after.0.nodes.len(), before.0.nodes.len());
        let grown = after.1.saturating_sub(before.1);
        assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    }
}
