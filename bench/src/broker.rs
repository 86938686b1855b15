//! A broker under test: a process of the real binary on a directory of the measured disk.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{client::Client, process, workspace::Workspace};

/// Longest that a broker may take to listen.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it listens: short beside the shortest start that is measured.
const POLL: Duration = Duration::from_millis(1);

/// A running broker. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
    started: Instant,
    log: PathBuf,
}

impl Broker {
    /// Starts a broker on `directory`, without waiting until it serves.
    pub(crate) fn spawn(workspace: &Workspace, directory: &Path) -> Result<Self> {
        let address = free_address()?;
        let log = directory.join("broker.log");
        let output = File::create(&log).context("cannot write the broker's log")?;
        let started = Instant::now();
        let child = Command::new(workspace.kelda())
            .args(["dev", "--port", &address.port().to_string(), "--data-dir"])
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start the broker")?;
        Ok(Self {
            child,
            address,
            started,
            log,
        })
    }

    /// Starts a broker and waits until it listens.
    pub(crate) fn start(workspace: &Workspace, directory: &Path) -> Result<Self> {
        let mut broker = Self::spawn(workspace, directory)?;
        broker.wait_until_listening()?;
        Ok(broker)
    }

    /// Waits until the port is open.
    pub(crate) fn wait_until_listening(&mut self) -> Result<()> {
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status}: {}", self.last_words());
            }
            if self.started.elapsed() > START_MAX {
                bail!(
                    "the broker does not listen after {START_MAX:?}: {}",
                    self.last_words()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// A client of this broker.
    pub(crate) fn client<'a>(&self, workspace: &'a Workspace) -> Client<'a> {
        Client::new(workspace, self.address)
    }

    /// Time since the process was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Memory of the process.
    pub(crate) fn memory(&self) -> Result<process::Memory> {
        process::memory(self.child.id()).with_context(|| self.last_words())
    }

    /// CPU time of the process.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(self.child.id()).with_context(|| self.last_words())
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("it wrote nothing").to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that nobody used a moment ago.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?)
}
