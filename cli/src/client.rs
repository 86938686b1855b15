//! The connection that a command's options ask for, and what the client's errors mean to a command.

use std::time::Duration;

use clap::Args;
use kelda_client::{Client, Error, Options};
use kelda_proto::v1::ErrorReason;
use tonic::Status;

use crate::{
    failure::{Exit, Failure},
    parse::duration::duration,
};

/// How to reach a broker.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of commands that talk to a broker")]
pub(crate) struct ClientOptions {
    /// Brokers as host:port, several by commas: the first that answers is used
    #[arg(
        long,
        global = true,
        env = "KELDA_SERVER",
        value_name = "ADDRESSES",
        default_value = "127.0.0.1:8080",
        value_delimiter = ','
    )]
    server: Vec<String>,
    /// How long to wait for a connection, and then for the answer to a request, with all its attempts
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

impl ClientOptions {
    /// Connects to the first broker that answers.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let options = Options {
            servers: self.server.clone(),
            connect_timeout: self.timeout,
            request_timeout: self.timeout,
            call_timeout: self.timeout,
            ..Options::default()
        };
        Ok(Client::connect(options).await?)
    }
}

/// The failure that a refused call of a bare stub stands for.
pub(crate) fn refused(status: Status) -> Failure {
    Error::from(status).into()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = match &error {
            Error::Connect { .. } => {
                format!(
                    "{error}: start a broker with 'kelda dev', or name a running one with --server"
                )
            }
            _ => error.to_string(),
        };
        Self::new(exit(&error), message)
    }
}

fn exit(error: &Error) -> Exit {
    match error {
        Error::Connect { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => {
            Exit::Unreachable
        }
        Error::Address { .. } => Exit::Usage,
        Error::UnknownPartition { .. } => Exit::NotFound,
        Error::Rpc {
            reason:
                Some(
                    ErrorReason::UnknownTopic
                    | ErrorReason::UnknownPartition
                    | ErrorReason::UnknownNode,
                ),
            ..
        } => Exit::NotFound,
        _ => Exit::Failed,
    }
}
