//! The command line: global options and the list of commands.

use clap::{Parser, Subcommand};

use crate::{
    client::ClientOptions,
    commands::{
        bench::Bench,
        broker::{Dev, Serve},
        cluster::Cluster,
        completions::Completions,
        consume::Consume,
        produce::Produce,
        topic::Topic,
    },
    failure::{EXIT_CODES_HELP, Failure},
};

/// Kelda: a durable, partitioned log that speaks gRPC. Broker and command line in one binary.
#[derive(Debug, Parser)]
#[command(name = "kelda", version, after_help = EXIT_CODES_HELP, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    client: ClientOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(Dev),
    Serve(Serve),
    /// Create, show, change and delete topics
    #[command(subcommand)]
    Topic(Topic),
    Produce(Produce),
    Consume(Consume),
    /// Show the state of the cluster
    #[command(subcommand)]
    Cluster(Cluster),
    /// Measure a broker
    #[command(subcommand)]
    Bench(Bench),
    Completions(Completions),
}

impl Arguments {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let options = self.client;
        match self.command {
            Command::Dev(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Topic(command) => block_on(command.run(&options)),
            Command::Produce(command) => block_on(command.run(&options)),
            Command::Consume(command) => block_on(command.run(&options)),
            Command::Cluster(command) => block_on(command.run(&options)),
            Command::Bench(command) => command.run(&options),
            Command::Completions(command) => command.run(),
        }
    }
}

/// Runs a client's command. One thread is enough for it, and wakes no other.
pub(crate) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(command);
    // A thread that is still reading standard input must not keep the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Arguments::command().debug_assert();
    }
}
