//! A node in a process of its own, which may be killed or end by itself: the same test binary once more.
//!
//! A binary that uses it has a test named `node_process` that calls [`serve`].

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
};

use kelda_server::{config::Config, node::Node, telemetry::logging};
use tonic::transport::Channel;

use super::{config, connect, panics};

const DATA_DIR: &str = "KELDA_TEST_DATA_DIR";
const FLOOR_BYTES: &str = "KELDA_TEST_FLOOR_BYTES";
const STARTED: &str = "node-process started ";
const REFUSED: &str = "node-process refused ";

/// What the child does: serves until its standard input ends. Returns at once in a process that is not a child.
pub(crate) async fn serve() {
    let (Ok(data_dir), Ok(floor)) = (std::env::var(DATA_DIR), std::env::var(FLOOR_BYTES)) else {
        return;
    };
    panics::watch();
    let _lines = logging::init("info", logging::Format::Text).expect("it is the first");
    let config = Config {
        free_floor_bytes: floor.parse().expect("a number"),
        ..config(Some(Path::new(&data_dir)))
    };
    let node = match Node::start(config).await {
        Ok(node) => node,
        Err(error) => {
            println!("\n{REFUSED}{error}");
            return;
        }
    };
    println!("\n{STARTED}{}", node.address());
    let input = || std::io::stdin().read_to_end(&mut Vec::new());
    let ended = tokio::task::spawn_blocking(input).await;
    ended.expect("it waits").expect("it is a pipe");
    node.shutdown().await;
}

/// How a start went.
pub(crate) enum Start {
    Serves(NodeProcess),
    /// It refused to start, with this message.
    Refused(String),
    /// It ended before it served.
    Ended(Ended),
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    log: String,
}

/// What the log has if redb panics while it cleans up after a panic of its own. No program can catch that: Rust ends
/// the process.
const PANIC_IN_CLEANUP: &str = "panic in a destructor during cleanup";

impl Ended {
    /// Asserts that nothing panicked but redb, whose panics storage catches where that is possible.
    fn new(status: ExitStatus, log: File) -> Self {
        let log = read(log);
        let panics = log.matches("panicked at").count();
        let in_cleanup = log.matches(PANIC_IN_CLEANUP).count();
        assert_eq!(panics, in_cleanup, "{log}");
        Self { status, log }
    }

    /// Whether it was stopped in order.
    pub(crate) fn in_order(&self) -> bool {
        self.status.success()
    }

    /// Whether storage ended it, since it can not write (`EX_IOERR`), or a damaged file did within redb.
    pub(crate) fn by_storage(&self) -> bool {
        const SIGABRT: i32 = 6;
        let aborted = self.status.signal() == Some(SIGABRT);
        self.status.code() == Some(74) || (aborted && self.log.contains(PANIC_IN_CLEANUP))
    }
}

/// A running child.
pub(crate) struct NodeProcess {
    child: Child,
    input: Option<ChildStdin>,
    log: File,
    pub(crate) channel: Channel,
}

/// Starts a node on a directory.
pub(crate) async fn start(data_dir: &Path, floor_bytes: u64) -> Start {
    let log = tempfile::tempfile().expect("a file");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["node_process", "--exact", "--ignored", "--nocapture"])
        .env(DATA_DIR, data_dir)
        .env(FLOOR_BYTES, floor_bytes.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().expect("a file"));
    let spawn = move || {
        let mut child = command.spawn().expect("it starts");
        let output = child.stdout.take().expect("it has a pipe");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let said = lines.find(|line| line.starts_with(STARTED) || line.starts_with(REFUSED));
        // Its later output must go somewhere, or it would stop writing.
        std::thread::spawn(move || lines.for_each(drop));
        (child, said)
    };
    let (mut child, said) = tokio::task::spawn_blocking(spawn).await.expect("it starts");
    let said = said.unwrap_or_default();
    if let Some(address) = said.strip_prefix(STARTED) {
        let address: SocketAddr = address.parse().expect("an address");
        return Start::Serves(NodeProcess {
            input: child.stdin.take(),
            child,
            log,
            channel: connect(address).await,
        });
    }
    drop(child.stdin.take());
    let status = child.wait().expect("it ends");
    let ended = Ended::new(status, log);
    match said.strip_prefix(REFUSED) {
        Some(message) => Start::Refused(message.to_owned()),
        None => Start::Ended(ended),
    }
}

impl NodeProcess {
    /// Kills it and returns its log, for the message of a test that has failed.
    pub(crate) fn kill(mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        read(self.log)
    }

    /// Stops it in order, unless it has ended by itself.
    pub(crate) async fn stop(mut self) -> Ended {
        drop(self.input.take());
        self.end().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(mut self) -> Ended {
        let input = self.input.take();
        let mut child = self.child;
        let wait = tokio::task::spawn_blocking(move || child.wait());
        let ended = tokio::time::timeout(super::PATIENCE, wait).await;
        drop(input);
        let ended = ended.expect("it ends soon").expect("it waits");
        Ended::new(ended.expect("it ends"), self.log)
    }
}

fn read(mut log: File) -> String {
    let mut text = Vec::new();
    log.rewind().expect("a file");
    log.read_to_end(&mut text).expect("read");
    String::from_utf8_lossy(&text).into_owned()
}
