//! The log: lines or JSON on stderr, quiet unless asked.
//!
//! A filter is a list by commas: a level (`off`, `error`, `warn`, `info`, `debug`) for Kelda as a whole, and
//! `target=level` for a part. A target is a room of the broker (`storage=debug`) or the path of any module
//! (`h2=debug`). Libraries are heard from `warn` up unless they are named: `--log debug` means Kelda's own doings,
//! not every HTTP/2 frame.
//!
//! Lines are written by a thread of their own, `logging`: whoever reads stderr slowly, or not at all, does not make the
//! broker slow. What does not fit its queue is dropped and counted.

use std::{
    io,
    io::IsTerminal as _,
    str::FromStr as _,
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured if stderr is a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Name of the thread that writes.
const THREAD: &str = "logging";
/// Lines that may wait for it.
const LINES_MAX: usize = 8192;

/// How long they may take to be written at the end.
const END_MAX: Duration = Duration::from_millis(1500);

/// Lines that were dropped in this process.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// The thread, until the log ends.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Dropped, it ends the log.
#[must_use = "lines are written only while it lives"]
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        end();
    }
}

/// Why logging could not be set up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A piece of the filter is neither a level nor `target=level`.
    #[error(
        "log filter has {0:?}: use off, error, warn, info or debug, or TARGET=LEVEL such as storage=debug"
    )]
    BadFilter(String),
    /// Logging was set up before in this process.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Crates whose level a bare level sets.
const OWN_CRATES: [&str; 3] = ["kelda_server", "kelda_client", "kelda"];

/// Rooms that a filter may name without their crate.
const ROOMS: [&str; 11] = [
    "node",
    "config",
    "rpc",
    "broker",
    "consensus",
    "storage",
    "membership",
    "peers",
    "middleware",
    "telemetry",
    "machine",
];

/// Libraries that are silent unless they are named: they write a line for each packet of a stranger, and the room that
/// uses them says what matters.
const SILENT: [&str; 1] = ["memberlist"];

/// Libraries that log errors only, unless they are named: they warn of every message to a node that is not there.
const BRIEF: [&str; 1] = ["openraft"];

/// Sends the log of the whole process to stderr, once, until the guard is dropped.
pub fn init(filter: &str, format: Format) -> Result<Guard, Error> {
    let targets = parse(filter)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .thread_name(THREAD)
        .buffered_lines_limit(LINES_MAX)
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => registry.with(lines.with_filter(targets)).try_init(),
        Format::Json => registry
            .with(lines.json().flatten_event(true).with_filter(targets))
            .try_init(),
    }
    .map_err(|_| Error::AlreadySet)?;
    // The first is the only one that gets here.
    let _ = DROPPED.set(dropped);
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    Ok(Guard(()))
}

/// Writes what still waits, before the process ends; the log is silent from then on. Where nobody reads, it is given up
/// after a while: the process has to end all the same.
pub fn end() {
    let Some(writer) = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let (ended, end) = mpsc::sync_channel(1);
    let last = thread::Builder::new().name(THREAD.to_owned());
    // With a full queue the guard complains on stdout, and waits for whoever reads that. Without a thread it is dropped
    // here, with the closure.
    let last = last.spawn(move || {
        drop(writer);
        // Whoever waits may have given up.
        let _ = ended.send(());
    });
    if last.is_ok() {
        let _ = end.recv_timeout(END_MAX);
    }
}

/// Lines that were dropped, since nobody read them.
pub(super) fn dropped() -> u64 {
    let dropped = DROPPED.get().map(ErrorCounter::dropped_lines);
    dropped.map_or(0, |lines| lines as u64)
}

/// Checks a filter without setting anything up.
pub fn check(filter: &str) -> Result<(), Error> {
    parse(filter).map(drop)
}

/// tracing's own parser takes any bare word for a target, so that a misspelt level would silence the log; this one
/// refuses it.
fn parse(filter: &str) -> Result<Targets, Error> {
    let mut targets = Targets::new().with_default(LevelFilter::WARN);
    for name in OWN_CRATES {
        targets = targets.with_target(name, LevelFilter::INFO);
    }
    for name in SILENT {
        targets = targets.with_target(name, LevelFilter::OFF);
    }
    for name in BRIEF {
        targets = targets.with_target(name, LevelFilter::ERROR);
    }
    for piece in filter.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let bad = || Error::BadFilter(piece.to_owned());
        let level = |text: &str| match LevelFilter::from_str(text) {
            // Numbers are levels to tracing, but to nobody else.
            Ok(level) if !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(level)
            }
            _ => Err(bad()),
        };
        match piece.split_once('=') {
            None => {
                let level = level(piece)?;
                targets = targets.with_default(level.min(LevelFilter::WARN));
                for name in OWN_CRATES {
                    targets = targets.with_target(name, level);
                }
            }
            Some((target, text)) => {
                let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                if target.is_empty() || !target.chars().all(is_path) {
                    return Err(bad());
                }
                let level = level(text)?;
                targets = if ROOMS.contains(&target) {
                    targets.with_target(format!("kelda_server::{target}"), level)
                } else {
                    targets.with_target(target, level)
                };
            }
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn an_empty_filter_is_quiet() {
        let targets = parse("").unwrap();
        assert!(targets.would_enable("kelda_server::storage", &Level::INFO));
        assert!(!targets.would_enable("kelda_server::storage", &Level::DEBUG));
        assert!(!targets.would_enable("openraft::core", &Level::INFO));
        assert!(!targets.would_enable("openraft::core", &Level::WARN));
        assert!(targets.would_enable("openraft::core", &Level::ERROR));
        assert!(targets.would_enable("redb", &Level::WARN));
        let named = parse("openraft=warn").unwrap();
        assert!(named.would_enable("openraft::core", &Level::WARN));
    }

    #[test]
    fn a_silent_library_is_heard_when_it_is_named() {
        for filter in ["", "info", "debug"] {
            let targets = parse(filter).unwrap();
            assert!(!targets.would_enable("memberlist_core::state", &Level::ERROR));
        }
        let targets = parse("info,memberlist=warn").unwrap();
        assert!(targets.would_enable("memberlist_core::state", &Level::WARN));
    }

    #[test]
    fn a_level_means_kelda_and_a_room_means_that_room() {
        let targets = parse("info, storage=debug,h2=info").unwrap();
        assert!(targets.would_enable("kelda_server::storage::writer", &Level::DEBUG));
        assert!(!targets.would_enable("kelda_server::rpc", &Level::DEBUG));
        assert!(targets.would_enable("h2::codec", &Level::INFO));
        let targets = parse("debug").unwrap();
        assert!(targets.would_enable("kelda_server::rpc", &Level::DEBUG));
        assert!(!targets.would_enable("h2::codec", &Level::DEBUG));
        let targets = parse("off").unwrap();
        assert!(!targets.would_enable("kelda_server::rpc", &Level::ERROR));
        assert!(!targets.would_enable("h2::codec", &Level::ERROR));
    }

    #[test]
    fn a_misspelt_filter_is_refused() {
        for filter in ["debg", "storage=", "storage=loud", "=info", "5", "a b=info"] {
            assert!(check(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn logging_is_set_up_once() {
        let error = init("nonsense", Format::Text).unwrap_err();
        assert_eq!(error, Error::BadFilter("nonsense".to_owned()));
        let _guard = init("off", Format::Json).unwrap();
        assert_eq!(init("off", Format::Text).unwrap_err(), Error::AlreadySet);
        assert_eq!(dropped(), 0);
    }
}
