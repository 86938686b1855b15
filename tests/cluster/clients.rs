//! The Rust client, as `kelda produce`: it rides through the loss of the node that it is connected to, however that
//! goes silent, and nothing is written twice.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, ChildStdin, Stdio},
};

use super::ask::{self, TOPIC};
use crate::support::{
    cluster::{Cluster, Options, Ports, operator::settled},
    wait::eventually,
};

/// Lines before the fault, and as many after it.
const LINES: i64 = 200;

/// A running `kelda produce`.
struct Producer {
    child: Child,
    input: ChildStdin,
    lines: i64,
}

impl Producer {
    /// Starts it where a node of these options is, with the addresses in this order.
    fn start(place: &Options, addresses: &[SocketAddr]) -> Self {
        let servers: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let mut command = place.command();
        command
            .args(["produce", TOPIC, "--server", &servers.join(",")])
            .stdin(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        Self {
            input: child.stdin.take().expect("it is piped"),
            child,
            lines: 0,
        }
    }

    fn write(&mut self) {
        for number in self.lines..self.lines + LINES {
            writeln!(self.input, "{number}").expect("it reads");
        }
        self.lines += LINES;
    }

    /// Waits until all that was written is stored, as a node says.
    async fn stored(&self, address: SocketAddr) {
        eventually("all lines are stored", async || {
            let end = ask::end(address).await.ok()?;
            (end >= self.lines).then_some(())
        })
        .await;
    }

    async fn assert_all_written_once(mut self, address: SocketAddr) {
        drop(self.input);
        let look = || std::future::ready(self.child.try_wait().expect("it is ours"));
        let status = eventually("it ends", look).await;
        assert!(status.success(), "{status}");
        let expected: Vec<_> = (0..self.lines).map(|number| number.to_string()).collect();
        assert_eq!(ask::all_values(address, expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_goes_on_when_its_node_is_killed_and_when_the_next_one_freezes() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 1, 3).await;
    let addresses = cluster.addresses();
    let mut producer = Producer::start(&cluster[2].options, &addresses);
    producer.write();
    producer.stored(addresses[2]).await;
    cluster[0].kill();
    producer.write();
    producer.stored(addresses[2]).await;
    cluster[0].start();
    cluster.ready().await;
    cluster[1].pause();
    producer.write();
    producer.stored(addresses[2]).await;
    cluster[1].resume();
    producer.assert_all_written_once(addresses[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_goes_on_when_its_node_is_cut_off_from_it_and_from_all_others() {
    let Some(mut cluster) = Cluster::start_apart(3).await else {
        return;
    };
    cluster.create_topic(TOPIC, 1, 3).await;
    let addresses = cluster.addresses();
    let mut producer = Producer::start(&cluster[2].options, &addresses);
    producer.write();
    producer.stored(addresses[2]).await;
    cluster.network().isolate(&[0]);
    producer.write();
    producer.stored(addresses[2]).await;
    cluster.network().heal();
    producer.assert_all_written_once(addresses[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_goes_on_when_its_node_is_cut_off_from_the_others_only() {
    let Some(mut cluster) = Cluster::start_apart(3).await else {
        return;
    };
    cluster.create_topic(TOPIC, 1, 3).await;
    let addresses = cluster.addresses();
    let leader = cluster.leader(TOPIC, 0, None).await;
    let mut order = addresses.clone();
    order.swap(0, leader);
    // It is where no cut is.
    let outside = Options::new("client", &Ports::client());
    let mut producer = Producer::start(&outside, &order);
    producer.write();
    let asked = addresses[(leader + 1) % 3];
    producer.stored(asked).await;
    cluster.network().isolate(&[leader]);
    producer.write();
    producer.stored(asked).await;
    cluster.network().heal();
    producer.assert_all_written_once(asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_goes_on_while_a_partition_that_it_does_not_write_to_has_no_leader() {
    let mut cluster = Cluster::start(3).await;
    cluster.create_topic(TOPIC, 3, 1).await;
    settled(&cluster, 0, 1).await;
    // Each node has one of them.
    let gone = cluster.leader(TOPIC, 0, None).await;
    cluster[gone].kill();
    let asked = cluster.addresses()[(gone + 1) % 3].to_string();
    let mut command = cluster[gone].options.command();
    command
        .args(["produce", TOPIC, "--partition", "1", "--server", &asked])
        .args(["--delivery-timeout", "5s"])
        .stdin(Stdio::piped());
    let mut producing = command.spawn().expect("the binary starts");
    let mut input = producing.stdin.take().expect("it is piped");
    writeln!(input, "x").expect("it reads");
    drop(input);
    let look = || std::future::ready(producing.try_wait().expect("it is ours"));
    let status = eventually("it ends", look).await;
    assert!(status.success(), "{status}");
}
