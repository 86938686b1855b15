//! Finds the binary `kelda`, and refuses an old one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Names a binary to test instead of the one that was built with the tests.
const BINARY: &str = "KELDA_TEST_BINARY";

/// What the binary is built from.
const SOURCES: [&str; 4] = ["server/src", "cli/src", "clients/rust/src", "proto"];

/// The binary to test.
pub(super) fn kelda() -> PathBuf {
    if let Some(named) = env::var_os(BINARY) {
        return named.into();
    }
    let tests = env::current_exe().expect("this binary");
    let directory = tests.ancestors().nth(2).expect("target/debug/deps/test");
    let binary = directory.join("kelda");
    let advice = "run `cargo test --workspace --no-run`, which builds it together with the tests";
    match newer_source(&binary) {
        Ok(None) => binary,
        Ok(Some(source)) => {
            let (binary, source) = (binary.display(), source.display());
            panic!("{binary} is older than {source}: {advice}")
        }
        Err(error) => panic!("{}: {error}: {advice}", binary.display()),
    }
}

/// A source that has changed since the binary was built. Cargo builds the binary only with a whole workspace.
fn newer_source(binary: &Path) -> io::Result<Option<PathBuf>> {
    let built = fs::metadata(binary)?.modified()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = SOURCES.iter().map(|source| root.join(source)).collect();
    while let Some(path) = paths.pop() {
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
            continue;
        }
        let is_source = path
            .extension()
            .is_some_and(|end| end == "rs" || end == "proto");
        if is_source && metadata.modified()? > built {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
