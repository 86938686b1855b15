//! How a command fails: one line that says what to do, and an exit code that scripts can rely on.

use std::{fmt, io, process::ExitCode};

/// Exit codes, as `kelda --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The broker refused, or something on this machine failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No broker could be reached.
    Unreachable = 3,
    /// The topic, partition or node does not exist.
    NotFound = 4,
    /// `produce` or `bench`: not every record was acknowledged.
    Unacknowledged = 5,
    /// The command was interrupted.
    Interrupted = 130,
}

/// Text behind `kelda --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
    0  done; for produce: every record was acknowledged
    1  the operation failed
    2  the command line or the configuration is wrong
    3  no broker can be reached
    4  the topic, partition or node does not exist
    5  not every record was acknowledged
  130  interrupted by Ctrl-C";

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with a message of one line.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// The operation failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The same kind of failure, told with what was being done.
    pub(crate) fn context(self, doing: impl fmt::Display) -> Self {
        Self {
            message: format!("{doing}: {}", self.message),
            ..self
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    /// One line, whatever a broker or the system wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self
            .message
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .enumerate()
        {
            f.write_str(if index == 0 { "" } else { "; " })?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_always_one_line() {
        let failure = Failure::failed("first\n  second\n\n").context("topic orders");
        assert_eq!(failure.to_string(), "topic orders: first; second");
    }
}
