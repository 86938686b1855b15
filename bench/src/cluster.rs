//! A cluster under test: three processes of the real binary on one machine and disk.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{client::Client, process, workspace::Workspace};

/// Nodes of a cluster.
pub(crate) const NODES: usize = 3;
/// How far the port of calls between nodes is from the cluster's port.
const RAFT_PORT_OFFSET: u16 = 1000;
/// How long a page of a node may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A new cluster is looked over by its balancer this long after its start, and moves some leaders.
const FIRST_BALANCE: Duration = Duration::from_secs(35);
/// Between two looks at a page.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A running cluster. Its processes are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
}

/// A node of it.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Cluster {
    /// Starts a cluster on `directory`, each node with these options too, and waits until all serve.
    pub(crate) fn start(workspace: &Workspace, directory: &Path, options: &[&str]) -> Result<Self> {
        let ports = cluster_ports()?;
        let seeds: Vec<String> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let nodes = (1..).zip(&ports).map(|(number, port)| {
            Node::spawn(
                workspace,
                &directory.join(format!("node{number}")),
                &[
                    "--node-id",
                    &format!("node{number}"),
                    "--cluster-port",
                    &port.to_string(),
                    "--seeds",
                    &seeds.join(","),
                ],
                options,
            )
        });
        let cluster = Self {
            nodes: nodes.collect::<Result<Vec<_>>>()?,
        };
        for node in &cluster.nodes {
            node.wait_for("kelda_ready", 1.0, Duration::from_secs(60))?;
        }
        Ok(cluster)
    }

    /// The nodes.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A client that knows all nodes.
    pub(crate) fn client<'a>(&self, workspace: &'a Workspace) -> Client<'a> {
        Client::of_all(
            workspace,
            self.nodes.iter().map(|node| node.address).collect(),
        )
    }

    /// Waits until all partitions, this many, have nothing to do on each node, and were balanced.
    pub(crate) fn wait_until_quiet(&self, partitions: u32, patience: Duration) -> Result<()> {
        let quiet = || {
            let mut nodes = self.nodes.iter();
            let name = "kelda_quiesced_partitions";
            nodes.try_for_each(|node| node.wait_for(name, partitions.into(), patience))
        };
        quiet()?;
        thread::sleep(FIRST_BALANCE);
        quiet()
    }

    /// CPU time of all nodes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.nodes.iter().map(Node::cpu).sum()
    }

    /// Bytes that all nodes had written to disks.
    pub(crate) fn written(&self) -> Result<u64> {
        let nodes = self.nodes.iter();
        nodes.map(|node| process::written(node.child.id())).sum()
    }

    /// Ends the last node as kill -9 does.
    pub(crate) fn kill_last(&mut self) -> Result<()> {
        let mut node = self.nodes.pop().context("no node is left")?;
        node.child.kill()?;
        node.child.wait()?;
        Ok(())
    }
}

impl Node {
    fn spawn(
        workspace: &Workspace,
        directory: &Path,
        place: &[&str],
        options: &[&str],
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let address = TcpListener::bind("127.0.0.1:0")
            .context("no free port")?
            .local_addr()?;
        let log = directory.join("node.log");
        let output = File::create(&log).context("cannot write the node's log")?;
        let child = Command::new(workspace.kelda())
            .args(["serve", "--port", &address.port().to_string()])
            .args(["--bootstrap-expect", &NODES.to_string(), "--data-dir"])
            .arg(directory.join("data"))
            .args(place)
            .args(options)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start a node")?;
        Ok(Self {
            child,
            address,
            log,
        })
    }

    /// CPU time of the process.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(self.child.id()).with_context(|| self.last_words())
    }

    /// CPU time of the threads of this name.
    pub(crate) fn cpu_of_threads(&self, name: &str) -> Result<Duration> {
        process::cpu_of_threads(self.child.id(), name).with_context(|| self.last_words())
    }

    /// Memory of the process.
    pub(crate) fn memory(&self) -> Result<process::Memory> {
        process::memory(self.child.id()).with_context(|| self.last_words())
    }

    /// Sum of the series of a metric, or nothing if it has none.
    pub(crate) fn metric(&self, name: &str) -> Result<Option<f64>> {
        let page = self.page("/metrics").with_context(|| self.last_words())?;
        let series = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with(' ') || rest.starts_with('{'))
                .then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
        });
        Ok(series.reduce(|sum, value| sum + value))
    }

    /// Waits until a metric has this value.
    fn wait_for(&self, name: &str, value: f64, patience: Duration) -> Result<()> {
        let since = Instant::now();
        loop {
            let now = self.metric(name);
            if let Ok(Some(now)) = now
                && now.to_bits() == value.to_bits()
            {
                return Ok(());
            }
            if since.elapsed() > patience {
                bail!(
                    "{name} is {now:?} and not {value} after {patience:?}: {}",
                    self.last_words()
                );
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "{path} was not answered"
        );
        Ok(answer)
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("it wrote nothing").to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that nobody used a moment ago, nor those that go with them.
fn cluster_ports() -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    let mut held = Vec::new();
    for _ in 0..1000 {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let port = listener.local_addr()?.port();
        let raft = port.checked_add(RAFT_PORT_OFFSET);
        if let Some(raft) = raft
            && let Ok(raft) = TcpListener::bind(("127.0.0.1", raft))
        {
            ports.push(port);
            held.push((listener, raft));
        }
        if ports.len() == NODES {
            return Ok(ports);
        }
    }
    bail!("no three free ports with free ports {RAFT_PORT_OFFSET} above them")
}
