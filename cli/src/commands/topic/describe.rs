//! `kelda topic describe`.

use clap::Args;

use super::view;
use crate::{client::ClientOptions, failure::Failure, output::OutputOption};

/// Show a topic's configuration and partitions
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name of the topic
    name: String,
    #[command(flatten)]
    output: OutputOption,
}

impl Describe {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        let topic = view::Topic::from(client.topics().get(&self.name).await?);
        self.output.output.print(&topic, view::Topic::description)
    }
}
