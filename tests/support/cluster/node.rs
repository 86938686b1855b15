//! One node in a process of its own.

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use kelda_proto::v1::{
    GetStatusRequest, GetStatusResponse, cluster_service_client::ClusterServiceClient,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{binary, ports::Ports, workload};
use crate::support::wait::eventually;

/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 40;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) ports: Ports,
    /// The network namespace to run in.
    pub(crate) space: Option<String>,
    /// Cluster addresses of other nodes, or of proxies before them.
    pub(crate) seeds: Vec<String>,
    /// More flags.
    pub(crate) arguments: Vec<String>,
}

impl Options {
    pub(crate) fn new(name: &str, ports: &Ports) -> Self {
        Self {
            name: name.to_owned(),
            host: Ipv4Addr::LOCALHOST,
            ports: ports.clone(),
            space: None,
            seeds: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// The binary, where the node is.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.space {
            // It becomes the binary, with the same process id.
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(binary::kelda());
                command
            }
            None => Command::new(binary::kelda()),
        };
        // The environment of who runs the tests configures nothing.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KELDA_") {
                command.env_remove(name);
            }
        }
        command
    }
}

/// A node, which may run or not.
pub(crate) struct Node {
    pub(crate) options: Options,
    directory: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(super) fn new(parent: &Path, options: Options) -> Self {
        Self {
            directory: parent.join(&options.name),
            log: parent.join(format!("{}.log", options.name)),
            options,
            child: None,
        }
    }

    /// Its data.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where clients reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        (self.options.host, self.options.ports.client).into()
    }

    /// Where other nodes reach its gossip.
    pub(crate) fn cluster_address(&self) -> Option<SocketAddr> {
        let port = self.options.ports.cluster?;
        Some((self.options.host, port).into())
    }

    /// Where other nodes reach its Raft groups.
    pub(crate) fn raft_address(&self) -> Option<SocketAddr> {
        let port = self.options.ports.raft()?;
        Some((self.options.host, port).into())
    }

    /// Starts it on its directory, with what was left there.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.options.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("a file");
        let mut command = self.options.command();
        let Options {
            name,
            host,
            ports,
            seeds,
            arguments,
            ..
        } = &self.options;
        command
            .args(["serve", "--node-id", name])
            .args(["--address", &host.to_string()])
            .args(["--port", &ports.client.to_string()])
            .args(["--workers", "2", "--free-floor-bytes", "1MiB"])
            .arg("--data-dir")
            .arg(&self.directory);
        if !host.is_loopback() {
            command.arg("--insecure");
        }
        // 0: it stays alone.
        let cluster_port = ports.cluster.unwrap_or(0);
        command.args(["--cluster-port", &cluster_port.to_string()]);
        if !seeds.is_empty() {
            command.args(["--seeds", &seeds.join(",")]);
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let child = self.child.as_ref().expect("it runs");
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        let names = tasks.filter_map(|task| name(task.ok()?));
        names.map(|name| name.trim_end().to_owned()).collect()
    }

    /// Whether it runs; a node that ended by itself fails the test.
    pub(crate) fn runs(&mut self) -> bool {
        let Some(child) = &mut self.child else {
            return false;
        };
        if let Some(status) = child.try_wait().expect("it is ours") {
            panic!("{} ended by itself: {status}", self.options.name);
        }
        true
    }

    /// Waits until it can serve and knows of this many nodes, and returns its status.
    pub(crate) async fn ready(&mut self, nodes: usize) -> GetStatusResponse {
        let service = ClusterServiceClient::new(workload::channel(self.address()));
        let name = format!("{} is ready", self.options.name);
        let status = async |runs: bool| {
            assert!(runs, "only what runs gets ready");
            let mut service = service.clone();
            let answer = service.get_status(GetStatusRequest {});
            // One that has its port but no cluster yet does not answer.
            let answer = tokio::time::timeout(ANSWER, answer).await.ok()?;
            let status = answer.ok()?.into_inner();
            let known = usize::try_from(status.node_count).ok()?;
            (status.ready && known == nodes).then_some(status)
        };
        eventually(&name, || status(self.runs())).await
    }

    /// Kills it as kill -9 does.
    pub(crate) fn kill(&mut self) {
        assert!(self.runs(), "{} does not run", self.options.name);
        self.end();
    }

    /// Stops it in order, and returns how it ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it ends by itself, and returns how.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        let name = format!("{} stops", self.options.name);
        let look = || std::future::ready(child.try_wait().expect("it is ours"));
        eventually(&name, look).await
    }

    /// Stops it between any two instructions, until it is resumed.
    pub(crate) fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Deletes its data.
    pub(crate) fn wipe(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.options.name);
        fs::remove_dir_all(&self.directory).expect("deleted");
    }

    fn signal(&mut self, signal: Signal) {
        assert!(self.runs(), "{} does not run", self.options.name);
        let child = self.child.as_ref().expect("it runs");
        // Its id is not another's, as nobody has waited for its end.
        kill_process(Pid::from_child(child), signal).expect("it is ours");
    }

    /// Makes sure that it does not run.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// All that it has logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn log_end(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(LOG_LINES);
        let lines: Vec<_> = log.lines().skip(skipped).collect();
        format!("--- {} ---\n{}", self.options.name, lines.join("\n"))
    }
}
