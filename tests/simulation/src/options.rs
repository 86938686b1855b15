//! What the command line asks for.

use std::path::PathBuf;

use crate::schedule::Faults;

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run many seeds and count.
    Seeds { from: u64, count: u64 },
    /// Run one seed and print what happens.
    Trace(u64),
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) faults: Faults,
    /// File that gets a line about the run.
    pub(crate) report: Option<PathBuf>,
}

impl Options {
    /// Reads arguments, or says in one line what is wrong with them.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let first = arguments.next().unwrap_or_default();
        let (is_trace, number) = match first.as_str() {
            "trace" => (true, arguments.next().unwrap_or_default()),
            _ => (false, first),
        };
        let number = number
            .parse()
            .map_err(|_| format!("{number:?} is no number: say how many seeds to run"))?;
        let (mut faults, mut from, mut report) = (Faults::Mixed, 1, None);
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_default();
            match (name.as_str(), value.as_str()) {
                ("--faults", "mixed") => faults = Faults::Mixed,
                ("--faults", "power") => faults = Faults::Power,
                ("--from", seed) => {
                    from = seed
                        .parse()
                        .map_err(|_| format!("--from {seed:?} is no number"))?;
                }
                ("--report", path) if !path.is_empty() => report = Some(path.into()),
                _ => return Err(format!("{name} {value} is not known")),
            }
        }
        Ok(Self {
            command: match is_trace {
                true => Command::Trace(number),
                false => Command::Seeds {
                    from,
                    count: number,
                },
            },
            faults,
            report,
        })
    }
}
