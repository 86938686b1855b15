//! A broker that is killed while records are being sent.

use std::{
    io::Write,
    process::{Child, ChildStdin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::support::{Broker, Ended, eventually, wait};

/// A producer whose input is numbered lines.
struct Load {
    producer: Child,
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Load {
    /// Starts to send, and waits until the first records are stored.
    fn start(broker: &Broker, delivery_timeout: &str) -> Self {
        broker.ok(&["topic", "create", "orders"]);
        let arguments = [
            "produce",
            "orders",
            "-o",
            "json",
            "--delivery-timeout",
            delivery_timeout,
        ];
        let mut producer = broker.spawn(&arguments);
        let mut stdin = producer.stdin.take().expect("piped");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = thread::spawn(move || write_lines(&mut stdin, &stopped));
        eventually("the load arriving", || {
            !broker
                .ok(&["consume", "orders", "--max", "1000"])
                .is_empty()
        });
        Self {
            producer,
            stop,
            writer,
        }
    }

    /// Ends the input.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until the producer ends.
    fn wait(self) -> Ended {
        let ended = wait(self.producer);
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().expect("the writer does not panic");
        ended
    }
}

fn write_lines(stdin: &mut ChildStdin, stopped: &AtomicBool) {
    for number in 0_u64.. {
        if stopped.load(Ordering::Relaxed) || writeln!(stdin, "{number:0>100}").is_err() {
            return;
        }
    }
}

/// Asserts that the topic has the first lines in their order, and returns how many.
fn stored_in_order(broker: &Broker) -> u64 {
    let stored = broker.ok(&["consume", "orders"]);
    for (expected, line) in stored.lines().enumerate() {
        assert_eq!(line, format!("{expected:0>100}"));
    }
    stored.lines().count() as u64
}

fn count(ended: &Ended, field: &str) -> u64 {
    ended.json()[field].as_u64().expect("a number")
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = Broker::on(directory.path());
    let load = Load::start(&broker, "1s");
    broker.kill();
    let ended = load.wait();
    let (sent, acknowledged) = (count(&ended, "sent"), count(&ended, "acknowledged"));
    assert_eq!(sent, acknowledged + count(&ended, "failed"));
    ended.expect_error(5);

    let stored = stored_in_order(&Broker::on(directory.path()));
    assert!(
        (acknowledged..=sent).contains(&stored),
        "acknowledged {acknowledged}, stored {stored}, sent {sent}"
    );
}

#[test]
fn a_producer_goes_on_when_a_killed_broker_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("the path is text");
    let broker = Broker::on(directory.path());
    let port = broker
        .address
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let load = Load::start(&broker, "60s");
    broker.kill();
    let broker = Broker::start(&["--data-dir", path, "--port", &port]);
    let before = stored_in_order(&broker);
    eventually("more records arriving", || {
        let from = before.to_string();
        !broker
            .ok(&["consume", "orders", "--from", &from, "--max", "1"])
            .is_empty()
    });
    load.stop();
    let ended = load.wait();
    assert_eq!((ended.code, count(&ended, "failed")), (0, 0), "{ended:?}");
    assert_eq!(
        stored_in_order(&broker),
        count(&ended, "acknowledged"),
        "each is there once"
    );
}
