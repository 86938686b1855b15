//! Keeps the floor plan: which room may import which, where each library lives, how long a file may be.
//!
//! The rules read sources as text, in tokens: fast, and blind to what a macro makes. `planted.rs` breaks every
//! rule on purpose, because a rule that cannot fail is worth nothing.

mod architecture {
    pub(crate) mod planted;
    pub(crate) mod rooms;
    pub(crate) mod rules;
    pub(crate) mod source;
    pub(crate) mod tokens;
}

use std::path::Path;

use architecture::rules;
use architecture::source::{Source, Violation};

/// Runs a rule on every source of the workspace.
fn check(rule: fn(&Source) -> Vec<Violation>) {
    let sources = Source::all(Path::new(env!("CARGO_MANIFEST_DIR")));
    for expected in [
        "server/src/lib.rs",
        "cli/src/main.rs",
        "tests/architecture.rs",
    ] {
        let found = sources.iter().any(|source| source.path == expected);
        assert!(found, "{expected} was not looked at");
    }
    let violations: Vec<String> = sources
        .iter()
        .flat_map(rule)
        .map(|violation| violation.to_string())
        .collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn imports_run_downward_only() {
    check(architecture::rooms::imports);
}

#[test]
fn each_library_stays_in_its_room() {
    check(rules::libraries);
}

#[test]
fn statuses_are_made_in_one_place() {
    check(rules::statuses);
}

#[test]
fn the_wall_clock_is_read_in_one_place() {
    check(rules::wall_clock);
}

#[test]
fn files_are_short() {
    check(rules::length);
}

#[test]
fn lints_are_switched_off_only_with_a_reason() {
    check(rules::allows);
}

#[test]
fn nothing_is_left_unfinished() {
    check(rules::unfinished);
}
