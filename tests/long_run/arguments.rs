//! What to inject, and how often.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::faults::Kind;

/// The command line.
pub(crate) struct Arguments {
    pub(crate) kinds: Vec<Kind>,
    /// Where the report goes.
    pub(crate) results: PathBuf,
    /// As they were given.
    pub(crate) given: String,
    scale: f64,
}

impl Arguments {
    pub(crate) fn parse(given: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let given: Vec<String> = given.collect();
        let mut arguments = Self {
            kinds: Vec::new(),
            results: PathBuf::from("bench/results"),
            given: given.join(" "),
            scale: 1.0,
        };
        let mut given = given.into_iter();
        while let Some(word) = given.next() {
            match word.as_str() {
                "--scale" => {
                    let scale = given.next().context("--scale needs a factor")?;
                    arguments.scale = scale.parse().context("--scale needs a number")?;
                }
                "--results" => {
                    let results = given.next().context("--results needs a directory")?;
                    arguments.results = results.into();
                }
                name => arguments.kinds.push(kind(name)?),
            }
        }
        if arguments.kinds.is_empty() {
            arguments.kinds = Kind::ALL.to_vec();
        }
        Ok(arguments)
    }

    /// How often to inject a fault: once at least.
    pub(crate) fn count(&self, kind: Kind) -> u32 {
        let count = f64::from(kind.count()) * self.scale;
        // A number that is too large is the largest there is.
        (count.round() as u32).max(1)
    }
}

fn kind(name: &str) -> anyhow::Result<Kind> {
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
        let names = Kind::ALL.map(Kind::name).join(", ");
        bail!("{name} is no kind of fault: there are {names}");
    };
    Ok(kind)
}
