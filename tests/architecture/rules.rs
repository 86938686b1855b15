//! Rules besides the one about rooms.

use super::source::{Source, Violation};
use super::tokens::Token;

/// Our Rust sources that ship.
const SHIPPED: [&str; 4] = ["server/", "cli/", "clients/", "proto/"];

/// Most lines of a Rust file.
const LINES_MAX: usize = 500;

/// Names of libraries, as their paths start, and where they may be used. A name stands for all that start with it.
const HOMES: [(&str, &[&str]); 7] = [
    ("openraft", &["server/src/consensus"]),
    ("redb", &["server/src/storage"]),
    ("memberlist", &["server/src/membership"]),
    ("opentelemetry", &["server/src/telemetry"]),
    ("tracing_opentelemetry", &["server/src/telemetry"]),
    ("prometheus", &["server/src/telemetry"]),
    (
        "tonic",
        &[
            "server/src/rpc",
            "server/src/middleware",
            "server/src/peers",
            "server/src/node",
            "server/tests/rpc",
            "cli/",
            "clients/",
            "proto/",
        ],
    ),
];

/// Where a gRPC status may be made: for calls, and for what a layer answers before a call is one.
const STATUS_MAKERS: [&str; 2] = ["server/src/rpc/status.rs", "server/src/middleware/reply.rs"];

const CLOCK: &str = "server/src/telemetry/clock.rs";

/// Finds libraries outside their rooms.
pub(crate) fn libraries(source: &Source) -> Vec<Violation> {
    if !source.is_rust_in(&SHIPPED) {
        return Vec::new();
    }
    path_heads(&source.tokens)
        .filter_map(|token| {
            let (library, homes) = HOMES
                .iter()
                .find(|(library, _)| token.text.starts_with(library))?;
            (!source.is_rust_in(homes)).then(|| {
                source.violation(
                    token.line,
                    format!("{library} may be used only in {}", homes.join(", ")),
                )
            })
        })
        .collect()
}

/// Tokens that start a path, or are imported as a whole.
fn path_heads(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    tokens.iter().enumerate().filter_map(move |(at, token)| {
        let before = if at == 0 { "" } else { text(at - 1) };
        let is_head = before != "::" && text(at + 1) == "::";
        let is_import =
            before == "use" || (before == "crate" && text(at.wrapping_sub(2)) == "extern");
        (is_head || is_import).then_some(token)
    })
}

/// Finds calls that make a `tonic::Status` outside of the files for it; tests may make what they like.
pub(crate) fn statuses(source: &Source) -> Vec<Violation> {
    if !source.is_rust_in(&["server/src"])
        || STATUS_MAKERS.contains(&source.path.as_str())
        || source.path.contains("/tests")
    {
        return Vec::new();
    }
    let tokens = &source.tokens;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let name = status_name(tokens);
    let mut violations = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_full = text(at) == "tonic" && text(at + 1) == "::" && text(at + 2) == "Status";
        let is_imported = Some(token.text.as_str()) == name && (at == 0 || text(at - 1) != "::");
        let call = match (is_full, is_imported) {
            (true, _) => at + 3,
            (_, true) => at + 1,
            _ => continue,
        };
        let function = text(call + 1);
        let is_call = text(call) == "::" && text(call + 2) == "(";
        let is_test = token.modules.iter().any(|module| module == "tests");
        // It reads a status that came from elsewhere.
        if is_call && !is_test && function != "from_header_map" {
            let makers = STATUS_MAKERS.join(" or ");
            violations.push(source.violation(
                token.line,
                format!("Status::{function} is called outside of {makers}"),
            ));
        }
    }
    violations
}

/// What the file calls `tonic::Status`, if it imports it.
fn status_name(tokens: &[Token]) -> Option<&str> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let imports = (0..tokens.len()).filter(|at| text(*at) == "use" && text(at + 1) == "tonic");
    for start in imports {
        let end = (start..).find(|at| matches!(text(*at), ";" | ""))?;
        if let Some(at) = (start..end).find(|at| text(*at) == "Status") {
            return Some(if text(at + 1) == "as" {
                text(at + 2)
            } else {
                "Status"
            });
        }
    }
    None
}

/// Finds uses of the wall clock.
pub(crate) fn wall_clock(source: &Source) -> Vec<Violation> {
    if !source.is_rust_in(&["server/src"]) || source.path == CLOCK {
        return Vec::new();
    }
    source
        .tokens
        .iter()
        .filter(|token| token.text == "SystemTime")
        .map(|token| source.violation(token.line, format!("SystemTime belongs in {CLOCK}")))
        .collect()
}

/// Finds files that are too long.
pub(crate) fn length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    if !source.path.ends_with(".rs") || lines <= LINES_MAX {
        return Vec::new();
    }
    vec![source.violation(
        lines,
        format!("{lines} lines are more than {LINES_MAX}: split the file by what it does"),
    )]
}

/// Finds lints that are switched off without `reason = ".."`, or a comment beside or above that says why.
pub(crate) fn allows(source: &Source) -> Vec<Violation> {
    if !source.is_rust_in(&SHIPPED) {
        return Vec::new();
    }
    let tokens = &source.tokens;
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let lines: Vec<&str> = source.text.lines().collect();
    let mut violations = Vec::new();
    for at in (0..tokens.len()).filter(|at| text(*at) == "#") {
        let open = if text(at + 1) == "!" { at + 2 } else { at + 1 };
        if text(open) != "[" {
            continue;
        }
        let end = (open..)
            .find(|at| matches!(text(*at), "]" | ""))
            .unwrap_or(open);
        let words: Vec<&str> = (open..end).map(text).collect();
        let switches_off = words
            .windows(2)
            .any(|pair| matches!(pair, ["allow" | "expect", "("]));
        let line = tokens[at].line;
        let above = line.checked_sub(2).and_then(|index| lines.get(index));
        let above = above.map_or("", |line| line.trim_start());
        let explained = words.contains(&"reason")
            || lines[line - 1].contains("//")
            || (above.starts_with("//") && !above.starts_with("///"));
        if switches_off && !explained {
            violations.push(source.violation(line, "a lint is switched off: add reason = \"..\""));
        }
    }
    violations
}

/// Finds marks of unfinished work, also in comments.
pub(crate) fn unfinished(source: &Source) -> Vec<Violation> {
    // In halves, so that this file does not hold them.
    let marks = [["to", "do!"], ["unimple", "mented!"], ["FIX", "ME"]].map(|it| it.concat());
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        for mark in marks.iter().filter(|mark| line.contains(mark.as_str())) {
            violations.push(source.violation(number, format!("{mark} is left")));
        }
    }
    violations
}
