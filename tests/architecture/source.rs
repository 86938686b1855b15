//! The sources that the rules read, and what they find.

use std::fmt;
use std::fs;
use std::path::Path;

use super::tokens::{Token, tokenize};

/// Kinds of files that are looked at.
const EXTENSIONS: [&str; 6] = ["rs", "proto", "toml", "py", "sh", "go"];
/// Directories that hold nothing of ours.
const SKIPPED: [&str; 5] = [
    "target",
    "node_modules",
    "kelda-data",
    "corpus",
    "artifacts",
];

/// A file.
pub(crate) struct Source {
    /// Path from the root of the workspace, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
    /// The Rust tokens in it; none of another language.
    pub(crate) tokens: Vec<Token>,
}

/// A place where a rule is broken.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    /// From 1.
    pub(crate) line: usize,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            message,
        } = self;
        write!(f, "{path}:{line}: {message}")
    }
}

impl Source {
    /// Makes a source from what is in a file.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let tokens = if path.ends_with(".rs") {
            tokenize(text)
        } else {
            Vec::new()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
        }
    }

    /// Reads every source below `root`, in order of path.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        let mut sources = Vec::new();
        collect(root, root, &mut sources);
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// Whether it is a Rust file in one of `directories`.
    pub(crate) fn is_rust_in(&self, directories: &[&str]) -> bool {
        self.path.ends_with(".rs") && directories.iter().any(|it| self.path.starts_with(it))
    }

    /// Reports a violation.
    pub(crate) fn violation(&self, line: usize, message: impl Into<String>) -> Violation {
        Violation {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a directory of the workspace can be listed") {
        let entry = entry.expect("a directory of the workspace can be listed");
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("the kind of a file is known");
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, sources);
        } else if kind.is_file() && EXTENSIONS.iter().any(|it| has_extension(&path, it)) {
            let relative = path.strip_prefix(root).expect("it is below the root");
            let text = fs::read_to_string(&path).expect("a source is UTF-8");
            let relative = relative.to_string_lossy().replace('\\', "/");
            sources.push(Source::new(&relative, &text));
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
