//! The `kelda` command line as a load generator: its commands, and what their JSON says.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace::Workspace;

/// Runs commands against one broker, or the first that answers of several.
#[derive(Clone, Debug)]
pub(crate) struct Client<'a> {
    workspace: &'a Workspace,
    addresses: Vec<SocketAddr>,
}

/// What `kelda bench` measured.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Load {
    /// Records that were acknowledged or read, with those of the warm-up and of the end.
    pub(crate) records_total: u64,
    /// Payload of all records, with those of the warm-up and of the end.
    pub(crate) bytes_total: u64,
    /// Records a second.
    pub(crate) records_per_second: f64,
    /// Payload bytes a second.
    pub(crate) bytes_per_second: f64,
    /// Time from sending to the ack; absent for reading.
    pub(crate) latency_ms: Option<Latency>,
    /// Calls that failed.
    #[serde(default)]
    pub(crate) errors: u64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Latency {
    /// Half of the calls took at most this.
    pub(crate) p50: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
}

/// What `kelda topic describe` says of a partition.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Partition {
    /// Id of the node that leads it; 0 for none.
    pub(crate) leader: u64,
    /// How many records were ever written.
    pub(crate) end_offset: i64,
}

/// What `kelda cluster nodes` says of a node.
#[derive(Deserialize)]
struct Node {
    id: u64,
    name: String,
    address: String,
}

#[derive(Deserialize)]
struct Topic {
    partitions: Vec<Partition>,
}

impl Load {
    /// The percentiles of a load that has them.
    pub(crate) fn latency(&self) -> Result<Latency> {
        self.latency_ms.context("kelda bench gave no latency")
    }
}

impl<'a> Client<'a> {
    /// A client of the broker at `address`.
    pub(crate) fn new(workspace: &'a Workspace, address: SocketAddr) -> Self {
        Self::of_all(workspace, vec![address])
    }

    /// A client of the brokers at `addresses`.
    pub(crate) fn of_all(workspace: &'a Workspace, addresses: Vec<SocketAddr>) -> Self {
        Self {
            workspace,
            addresses,
        }
    }

    /// Creates a topic of so many partitions and replicas.
    pub(crate) fn create_placed(&self, topic: &str, partitions: u32, replicas: u32) -> Result<()> {
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        self.run(&[
            "topic",
            "create",
            topic,
            "--partitions",
            &partitions,
            "--replication-factor",
            &replicas,
            "--timeout",
            "60s",
        ])
        .map(drop)
    }

    /// The partitions of a topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<Partition>> {
        let output = self.run(&["topic", "describe", topic, "-o", "json"])?;
        let topic: Topic = serde_json::from_slice(&output)
            .context("kelda topic describe printed something else than its JSON")?;
        Ok(topic.partitions)
    }

    /// How many partitions of a topic the node of this name leads.
    pub(crate) fn led_by(&self, node: &str, topic: &str) -> Result<usize> {
        let nodes = self.nodes()?;
        let node = nodes.iter().find(|it| it.name == node);
        let id = node.context("there is no node of that name")?.id;
        let partitions = self.partitions(topic)?;
        Ok(partitions.iter().filter(|it| it.leader == id).count())
    }

    /// A client of the node that leads the first partition of a topic.
    pub(crate) fn of_leader(&self, topic: &str) -> Result<Self> {
        let partitions = self.partitions(topic)?;
        let leader = partitions.first().map_or(0, |it| it.leader);
        let nodes = self.nodes()?;
        let node = nodes.iter().find(|it| it.id == leader);
        let address = &node.context("the partition has no leader")?.address;
        Ok(Self::new(self.workspace, address.parse()?))
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        let output = self.run(&["cluster", "nodes", "-o", "json"])?;
        serde_json::from_slice(&output)
            .context("kelda cluster nodes printed something else than its JSON")
    }

    /// Appends `lines`, each a key and a value with a blank between them, and returns when all are acknowledged.
    pub(crate) fn produce_keyed(&self, topic: &str, lines: &str) -> Result<()> {
        let mut command = self.command(&["produce", topic, "-K", " "]);
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child
            .stdin
            .take()
            .context("standard input is a pipe")?
            .write_all(lines.as_bytes())?;
        succeeded(child.wait_with_output()?, "produce").map(drop)
    }

    /// Creates a topic of one partition.
    pub(crate) fn create_topic(&self, topic: &str) -> Result<()> {
        self.run(&["topic", "create", topic]).map(drop)
    }

    /// Appends one small record, and returns when it is acknowledged.
    pub(crate) fn produce_one(&self, topic: &str) -> Result<()> {
        let mut command = self.command(&["produce", topic]);
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child
            .stdin
            .take()
            .context("standard input is a pipe")?
            .write_all(b"one\n")?;
        succeeded(child.wait_with_output()?, "produce").map(drop)
    }

    /// Reads the oldest record.
    pub(crate) fn consume_one(&self, topic: &str) -> Result<()> {
        let output = self.run(&["consume", topic, "--max", "1"])?;
        ensure!(!output.is_empty(), "there is no record in {topic}");
        Ok(())
    }

    /// `kelda bench produce`, for `run` long, with more options in `options`.
    pub(crate) fn load(&self, topic: &str, run: Duration, options: &[&str]) -> Result<Load> {
        let seconds = run.as_secs().to_string();
        self.bench(
            &[
                &["produce", "--topic", topic, "--seconds", &seconds],
                options,
            ]
            .concat(),
        )
    }

    /// `kelda bench consume` from the start of the topic to its end.
    pub(crate) fn read_to_end(&self, topic: &str) -> Result<Load> {
        self.bench(&["consume", "--topic", topic, "--to-end", "--streams", "1"])
    }

    /// `kelda bench latency`: records of 1 KiB, one in flight.
    pub(crate) fn latency(&self, topic: &str, count: u32) -> Result<Load> {
        self.bench(&[
            "latency",
            "--topic",
            topic,
            "--record-bytes",
            "1024",
            "--count",
            &count.to_string(),
        ])
    }

    fn bench(&self, options: &[&str]) -> Result<Load> {
        let output = self.run(&[&["bench"], options, &["-o", "json"]].concat())?;
        let load: Load = serde_json::from_slice(&output)
            .context("kelda bench printed something else than its JSON")?;
        ensure!(
            load.errors == 0,
            "{} calls failed: nothing can be said about speed",
            load.errors
        );
        ensure!(load.records_total > 0, "no record went through");
        Ok(load)
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        succeeded(
            self.command(arguments).stdin(Stdio::null()).output()?,
            &arguments.join(" "),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let servers: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut command = Command::new(self.workspace.kelda());
        command
            .env("KELDA_SERVER", servers.join(","))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn succeeded(output: Output, what: &str) -> Result<Vec<u8>> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kelda {what} failed with {}: {}",
        output.status,
        error.trim()
    );
    Ok(output.stdout)
}
