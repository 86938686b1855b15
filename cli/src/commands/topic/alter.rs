//! `kelda topic alter`.

use clap::Args;
use kelda_proto::v1::UpdateTopicRequest;
use prost_types::FieldMask;

use super::{
    config::{ConfigOptions, Field},
    view,
};
use crate::{
    client::ClientOptions,
    failure::{Exit, Failure},
    output::OutputOption,
};

/// Change a topic's configuration or replication factor, or add partitions
///
/// JSON: as for topic describe.
#[derive(Debug, Args)]
pub(crate) struct Alter {
    /// Name of the topic
    name: String,
    #[command(flatten)]
    config: ConfigOptions,
    /// Set a field back to its default; may be repeated
    #[arg(long, value_enum, value_name = "FIELD")]
    reset: Vec<Field>,
    /// Number of partitions that the topic shall have; more than now. Keys may move to other partitions
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// Replicas that each partition shall have: 1, 3 or 5. They are added and left out in the background
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), value_name = "N")]
    replication_factor: Option<i32>,
    #[command(flatten)]
    output: OutputOption,
}

impl Alter {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let fields = self.fields()?;
        let client = options.connect().await?;
        let mut altered = None;
        if !fields.is_empty() || self.replication_factor.is_some() {
            let paths = fields.iter().map(|field| field.path().to_owned()).collect();
            let request = UpdateTopicRequest {
                name: self.name.clone(),
                config: Some(self.config.config()),
                update_mask: Some(FieldMask { paths }),
                replication_factor: self.replication_factor.unwrap_or_default(),
            };
            altered = Some(client.topics().update(request).await?);
        }
        if let Some(partitions) = self.partitions {
            altered = Some(
                client
                    .topics()
                    .add_partitions(&self.name, partitions)
                    .await?,
            );
        }
        let topic = view::Topic::from(altered.expect("there is something to change"));
        self.output
            .output
            .print(&topic, |topic| topic.sentence("altered"))
    }

    /// The fields to change: those with a new value and those to reset.
    fn fields(&self) -> Result<Vec<Field>, Failure> {
        let mut fields = self.config.fields();
        if let Some(field) = self.reset.iter().find(|field| fields.contains(field)) {
            let message = format!(
                "{} is both set and reset: leave out one of the two",
                field.path()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        fields.extend(&self.reset);
        if fields.is_empty() && self.partitions.is_none() && self.replication_factor.is_none() {
            let message = "nothing to change: give --partitions, --replication-factor, --retention or another field, see kelda topic alter --help";
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(fields)
    }
}
