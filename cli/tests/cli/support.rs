//! Starts the real binary as a broker and as a client.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::Value;

const KELDA: &str = env!("CARGO_BIN_EXE_kelda");
/// Longest wait for anything: a machine under load is slow, a hang is a fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker in a process of its own, killed when it goes out of scope.
pub(crate) struct Broker {
    child: Child,
    /// Where clients reach it.
    pub(crate) address: String,
    /// What it printed when it was ready.
    pub(crate) greeting: String,
}

impl Broker {
    /// A broker that keeps its data in memory.
    pub(crate) fn ephemeral() -> Self {
        Self::start(&["--ephemeral"])
    }

    /// A broker with its data in this directory.
    pub(crate) fn on(directory: &Path) -> Self {
        Self::start(&["--data-dir", directory.to_str().expect("the path is text")])
    }

    /// `kelda dev` with these arguments, on a free port unless they name one.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(KELDA)
            .arg("dev")
            .env("KELDA_PORT", "0")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::sync_channel(100);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        let mut greeting = String::new();
        while !greeting.contains("grpcurl") {
            let line = lines
                .recv_timeout(PATIENCE)
                .expect("the broker says that it is ready");
            greeting.push_str(&line);
            greeting.push('\n');
        }
        let address = greeting
            .split_whitespace()
            .find(|word| word.starts_with("127.0.0.1:"));
        let address = address.expect("the greeting has the address").to_owned();
        Self {
            child,
            address,
            greeting,
        }
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the broker ends by itself, and returns its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("the broker ends").code()
    }

    /// Kills the broker as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the broker runs");
        self.child.wait().expect("the broker ends");
    }

    /// Runs a client's command against this broker.
    pub(crate) fn kelda(&self, arguments: &[&str]) -> Ended {
        self.kelda_with(arguments, b"")
    }

    /// Runs a client's command with this input.
    pub(crate) fn kelda_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        run(&self.address, arguments, input)
    }

    /// Runs a client's command that must succeed, and returns what it prints.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.kelda(arguments).expect_success(arguments)
    }

    /// Runs `produce` with this input; it must succeed.
    pub(crate) fn produce(&self, arguments: &[&str], input: &str) -> String {
        let arguments = [&["produce"], arguments].concat();
        self.kelda_with(&arguments, input.as_bytes())
            .expect_success(&arguments)
    }

    /// Starts a client's command in the background with piped input and output.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        command(&self.address, arguments)
            .spawn()
            .expect("the binary starts")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn expect_success(self, arguments: &[&str]) -> String {
        assert_eq!(self.code, 0, "kelda {arguments:?}: {}", self.stderr);
        self.stdout
    }

    /// Asserts that the command failed with this code and one line on standard error, and returns the line.
    pub(crate) fn expect_error(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(lines.len(), 1, "one line says what is wrong: {self:?}");
        lines[0].to_owned()
    }

    /// The output as JSON.
    pub(crate) fn json(&self) -> Value {
        json(&self.stdout)
    }
}

/// Runs a client's command against an address.
pub(crate) fn run(address: &str, arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = command(address, arguments)
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    // A command that fails early does not read its input.
    let writer = thread::spawn(move || stdin.write_all(&input));
    let ended = wait(child);
    let _ = writer.join().expect("the writer does not panic");
    ended
}

/// Waits for a command that was started in the background.
pub(crate) fn wait(mut child: Child) -> Ended {
    let mut pipe = child.stderr.take().expect("stderr is piped");
    let stderr = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .expect("stdout is piped")
        .read_to_string(&mut stdout)
        .expect("stdout is text");
    let status = child.wait().expect("the command ends");
    let stderr = stderr
        .join()
        .expect("the reader does not panic")
        .expect("stderr is text");
    Ended {
        code: status.code().unwrap_or(-1),
        stdout,
        stderr,
    }
}

/// Waits until the condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Text as JSON.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn command(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(KELDA);
    command
        .args(arguments)
        .env("KELDA_SERVER", address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
