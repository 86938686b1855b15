//! `kelda serve`.

use clap::Args;
use kelda_server::config::Config;

use super::{flags::Flags, run::run};
use crate::{failure::Failure, output::write_stdout};

/// Run a broker
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        run(vec![self.flags.load(&Config::of_cluster())?], |nodes| {
            for node in nodes {
                // Without a reader the node serves all the same.
                let _ = write_stdout(format!("ready {}\n", node.address()).as_bytes());
            }
        })
    }
}
