//! `kelda completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{arguments::Arguments, failure::Failure, output::write_stdout};

/// Print a completion script for a shell
///
/// For bash: kelda completions bash > /etc/bash_completion.d/kelda
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "kelda", &mut script);
        write_stdout(&script)
    }
}
