//! Which room may import which.

use super::source::{Source, Violation};
use super::tokens::Token;

/// The rooms of `server/src`, top to bottom. A room imports from lower rows only.
const FLOORS: [&[&str]; 9] = [
    &["node"],
    &["config"],
    &["rpc"],
    &["broker"],
    &["consensus"],
    &["storage", "membership", "peers"],
    &["middleware"],
    &["telemetry", "machine"],
    &["types"],
];

const SERVER: &str = "server/src/";

/// Finds imports that do not run downward, and rooms that are not in the plan.
pub(crate) fn imports(source: &Source) -> Vec<Violation> {
    if !source.is_rust_in(&[SERVER]) {
        return Vec::new();
    }
    let file = file_module(&source.path);
    // lib.rs only says which rooms there are.
    let Some(room) = file.first() else {
        return Vec::new();
    };
    let Some(own) = floor(room) else {
        return vec![source.violation(1, format!("{room} is not a room: see FLOORS"))];
    };
    imported(&file, &source.tokens)
        .into_iter()
        .filter(|(_, target)| target != room)
        .filter(|(_, target)| floor(target).is_none_or(|floor| floor <= own))
        .map(|(line, target)| {
            source.violation(line, format!("{room} may not import crate::{target}"))
        })
        .collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// Module path of a file below the crate's root.
fn file_module(path: &str) -> Vec<String> {
    let below = path.strip_prefix(SERVER).unwrap_or(path);
    let mut module: Vec<String> = below
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// First components of all paths that start at the crate's root, with their lines.
fn imported(file: &[String], tokens: &[Token]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let starts_path = text(at + 1) == "::" && (at == 0 || text(at - 1) != "::");
        if !starts_path {
            continue;
        }
        if token.text == "crate" {
            follow(&tokens[at + 2..], 0, &mut found);
        } else if token.text == "super" {
            // How far above the token the path may climb before it is at the root.
            let depth = file.len() + token.modules.len();
            follow(&tokens[at..], depth, &mut found);
        }
    }
    found
}

/// Follows a path, or a group of paths in braces, from a module `depth` below the root, and notes what it names there.
/// Returns how many tokens the path or group has.
fn follow(tokens: &[Token], depth: usize, found: &mut Vec<(usize, String)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    match text(0) {
        "super" if text(1) == "::" => 2 + follow(&tokens[2..], depth.saturating_sub(1), found),
        "self" if text(1) == "::" => 2 + follow(&tokens[2..], depth, found),
        "{" => {
            let mut at = 1;
            while !matches!(text(at), "}" | "") {
                at += follow(&tokens[at..], depth, found);
                at += path_end(&tokens[at..]);
                at += usize::from(text(at) == ",");
            }
            at + 1
        }
        _ => {
            if depth == 0
                && let Some(token) = tokens.first()
            {
                found.push((token.line, token.text.clone()));
            }
            1
        }
    }
}

/// Tokens up to the comma or brace that ends the element of a group.
fn path_end(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "," | "}" if depth == 0 => return at,
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}
