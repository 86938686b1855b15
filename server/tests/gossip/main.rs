//! Gossip under attack. In a process of its own, so that its memory can be measured.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use kelda_server::{
    membership::{Announcement, Config, Gossip, Key, Membership as _, View},
    telemetry::Metrics,
};
use tokio::runtime::Handle;

/// Intervals that make a test quick.
fn config(name: &str, keys: &[Key], seeds: &[SocketAddr]) -> Config {
    Config {
        name: name.to_owned(),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        seeds: seeds.iter().map(ToString::to_string).collect(),
        keys: keys.to_vec(),
        gossip_interval: Duration::from_millis(50),
        push_pull_interval: Duration::from_millis(500),
        probe_interval: Duration::from_millis(300),
        probe_timeout: Duration::from_millis(100),
        stream_timeout: Duration::from_secs(1),
        metadata_interval: Duration::from_millis(50),
        // A flood makes nodes slow to answer, which is not what is tested.
        suspicion_mult: 20,
        ..Config::default()
    }
}

fn announcement(rack: &str) -> Announcement {
    Announcement {
        cluster_id: "c".to_owned(),
        rack: rack.to_owned(),
        ..Announcement::default()
    }
}

async fn start(config: Config) -> Gossip {
    let here = Handle::current();
    let started = Gossip::start(config, announcement(""), Metrics::new("1"), &here);
    started.await.expect("a free port")
}

async fn until(member: &Gossip, mut wanted: impl FnMut(&View) -> bool) -> Arc<View> {
    let mut watch = member.watch();
    let seen = watch.wait_for(|view| wanted(view));
    if let Ok(seen) = tokio::time::timeout(Duration::from_secs(30), seen).await {
        return Arc::clone(&seen.expect("the node is there"));
    }
    panic!("still not so: {:#?}", watch.borrow());
}

fn alive(view: &View) -> Vec<&str> {
    view.alive().map(|node| node.name.as_str()).collect()
}

/// Two nodes that know each other.
async fn pair(keys: &[Key]) -> (Gossip, Gossip) {
    let a = start(config("a", keys, &[])).await;
    let b = start(config("b", keys, &[a.address()])).await;
    for member in [&a, &b] {
        until(member, |view| alive(view) == ["a", "b"]).await;
    }
    (a, b)
}

/// Both nodes still hear each other, and of nobody else.
async fn assert_unharmed(a: &Gossip, b: &Gossip, news: &str) {
    for (from, to, name) in [(a, b, "a"), (b, a, "b")] {
        from.announce(announcement(news)).expect("short");
        until(to, |view| view.nodes[name].announcement.rack == news).await;
        let view = Arc::clone(&to.watch().borrow());
        assert_eq!(view.nodes.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(alive(&view), ["a", "b"]);
    }
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

/// Memory of this process in bytes, where it can be known.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = status.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_bytes_changes_no_member_and_takes_no_memory() {
    for keys in [vec![], vec![Key([5; 32])]] {
        let (a, b) = pair(&keys).await;
        let before = resident();
        let target = a.address();
        let flood = tokio::task::spawn_blocking(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            for round in 0..50 {
                for packet in noise(round) {
                    // The target may be slow to take it: that is its right.
                    let _ = socket.send_to(&packet, target);
                    if round % 10 == 0
                        && let Ok(mut stream) = TcpStream::connect(target)
                    {
                        let _ = stream.write_all(&packet);
                    }
                }
            }
        });
        flood.await.expect("it does not panic");
        assert_unharmed(&a, &b, "after").await;
        if let (Some(before), Some(after)) = (before, resident()) {
            let grown = after.saturating_sub(before);
            assert!(grown < 64 << 20, "memory grew by {grown} bytes");
        }
    }
}

/// A wire that passes packets on to a node and keeps a copy.
struct Tap {
    address: SocketAddr,
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    stopped: Arc<AtomicBool>,
}

impl Tap {
    fn start(target: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let wait = Some(Duration::from_millis(50));
        socket.set_read_timeout(wait).expect("not zero");
        let packets = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (kept, stop) = (Arc::clone(&packets), Arc::clone(&stopped));
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while !stop.load(Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else {
                    continue;
                };
                let packet = buffer[..length].to_vec();
                let _ = socket.send_to(&packet, target);
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(packet);
            }
        });
        Self {
            address,
            packets,
            stopped,
        }
    }

    fn packets(&self) -> Vec<Vec<u8>> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        packets.clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

/// A free port, for UDP and TCP.
fn free_port() -> SocketAddr {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    tcp.local_addr().expect("bound")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_replayed_or_spoilt_change_nothing() {
    for keys in [vec![], vec![Key([5; 32])]] {
        let a = start(config("a", &keys, &[])).await;
        let bind = free_port();
        let tap = Tap::start(bind);
        let tapped = Config {
            bind,
            advertise: Some(tap.address),
            ..config("b", &keys, &[a.address()])
        };
        let b = start(tapped).await;
        for member in [&a, &b] {
            until(member, |view| alive(view) == ["a", "b"]).await;
        }
        for number in 0..5 {
            assert_unharmed(&a, &b, &format!("before{number}")).await;
        }
        let packets = tap.packets();
        assert!(packets.len() >= 5, "{} packets", packets.len());
        let targets = [a.address(), bind];
        let attack = tokio::task::spawn_blocking(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let mut random = [0; 4096];
            for packet in packets.iter().cycle().take(400) {
                getrandom::fill(&mut random).expect("random bytes");
                let mut spoilt = packet.clone();
                let place = usize::from(u16::from_le_bytes([random[0], random[1]]));
                let length = spoilt.len();
                spoilt[place % length] ^= random[2] | 1;
                let short = &packet[..place % length];
                for target in targets {
                    for bytes in [&packet[..], &spoilt, short] {
                        let _ = socket.send_to(bytes, target);
                    }
                }
            }
        });
        attack.await.expect("it does not panic");
        assert_unharmed(&a, &b, "after").await;
    }
}
