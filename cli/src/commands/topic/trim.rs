//! `kelda topic trim`.

use clap::Args;
use kelda_client::Client;
use kelda_proto::v1::{Boundary, PartitionTrim, StartPosition, start_position::Position};
use serde::Serialize;

use crate::{
    client::ClientOptions,
    failure::Failure,
    output::{OutputOption, Table},
    parse::start::start,
};

/// Delete a topic's oldest records
///
/// JSON: an array of objects with partition, log_start_offset, end_offset.
#[derive(Debug, Args)]
pub(crate) struct Trim {
    /// Name of the topic
    name: String,
    /// Delete the records before this: an offset, @TIME, or latest for all that are there now
    #[arg(long, value_name = "PLACE", value_parser = start)]
    before: StartPosition,
    /// Only in this partition; may be repeated
    #[arg(long = "partition", short, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    partitions: Vec<u32>,
    #[command(flatten)]
    output: OutputOption,
}

/// A trimmed partition as JSON.
#[derive(Debug, Serialize)]
struct Trimmed {
    partition: i32,
    log_start_offset: i64,
    end_offset: i64,
}

impl Trim {
    pub(super) async fn run(self, options: &ClientOptions) -> Result<(), Failure> {
        let client = options.connect().await?;
        let partitions = self.trims(&client).await?;
        let offsets = client
            .topics()
            .delete_records(&self.name, partitions)
            .await?;
        let trimmed: Vec<Trimmed> = offsets
            .into_iter()
            .map(|found| Trimmed {
                partition: found.partition,
                log_start_offset: found.log_start_offset,
                end_offset: found.end_offset,
            })
            .collect();
        self.output.output.print(&trimmed, |trimmed| table(trimmed))
    }

    /// What to delete in each partition: a time is a different offset in each.
    async fn trims(&self, client: &Client) -> Result<Vec<PartitionTrim>, Failure> {
        let position = match self.before.position {
            Some(Position::TimestampMs(_)) => self.before,
            // The partitions are wanted, wherever they end.
            _ => StartPosition {
                position: Some(Position::Boundary(Boundary::Latest.into())),
            },
        };
        let found = client
            .topics()
            .list_offsets(&self.name, &self.partitions, position)
            .await?;
        let trim = found.into_iter().map(|found| PartitionTrim {
            partition: found.partition,
            before_offset: match self.before.position {
                Some(Position::Offset(offset)) => offset,
                Some(Position::Boundary(boundary)) if boundary == i32::from(Boundary::Earliest) => {
                    found.log_start_offset
                }
                _ => found.offset,
            },
        });
        Ok(trim.collect())
    }
}

fn table(trimmed: &[Trimmed]) -> String {
    let mut table = Table::new(["PARTITION", "START", "END"]);
    for partition in trimmed {
        let Trimmed {
            partition,
            log_start_offset,
            end_offset,
        } = partition;
        table.row([
            partition.to_string(),
            log_start_offset.to_string(),
            end_offset.to_string(),
        ]);
    }
    table.render()
}
