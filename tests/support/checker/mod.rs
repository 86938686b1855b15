//! Checks what clients saw: does a recorded history fit a log that loses, doubles, reorders and invents nothing?
//!
//! The rules are those of Jepsen's checker of logs, as far as they apply to a log without transactions; [`Rule`] says
//! each exactly. A [`Recorder`] writes down what clients do while faults are injected, [`check`] judges it afterwards,
//! and [`Report::assert_valid`] fails a test with what it needs to be understood. [`dump`] compares replicas, and
//! needs no clients.
//!
//! What a history must fulfil to be judged:
//! - At its end, when no fault comes any more, clients drain every partition: they read it from its start to its end
//!   and say so. What nobody has read by then counts as lost, and so does what others have read but they have not.
//! - A value is sent by one operation only. All attempts of one send with one producer session are one operation.
//! - An operation that failed certainly had no effect. What may have had one has an unknown outcome, and the client
//!   that did it ends with a crash: its next send could otherwise overtake one that is still on its way.
//! - Nothing is deleted from the partitions meanwhile, neither by retention nor by a call.
//!
//! This module needs the standard library and `serde_json` alone, so that other test workspaces can include it.
#![allow(dead_code, unused_imports, reason = "each test binary uses some of it")]

mod facts;
mod history;
mod log;
mod queue;
mod recorder;
mod report;
mod rules;

pub(crate) mod dump;

pub(crate) use history::{History, Kind, Operation, Outcome, Sent, Value};
pub(crate) use queue::Losses;
pub(crate) use recorder::{ClientLog, Recorder};
pub(crate) use report::{Place, Report, Rule, Violation};

use facts::Facts;

/// Judges a history.
pub(crate) fn check(history: History) -> Report {
    let facts = Facts::of(&history);
    let mut violations = Vec::new();
    rules::places::check(&facts, &mut violations);
    rules::reads::check(&facts, &mut violations);
    rules::losses::check(&facts, &mut violations);
    rules::polls::check(&facts, &mut violations);
    rules::sends::check(&facts, &mut violations);
    violations.sort_by_key(|violation| violation.rule);
    let queue = queue::count(&facts);
    Report::new(history, violations, queue)
}
