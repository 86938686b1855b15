//! Options for a topic's configuration, shared by `create` and `alter`.

use clap::{Args, ValueEnum};
use kelda_proto::v1::TopicConfig;

use crate::parse::{duration::duration_or_forever, size};

/// Options that stand for fields of a topic's configuration.
#[derive(Debug, Default, Args)]
pub(crate) struct ConfigOptions {
    /// Records older than this may be deleted: 7d, 12h, forever
    #[arg(long, value_name = "DURATION", value_parser = duration_or_forever, allow_hyphen_values = true)]
    retention: Option<i64>,
    /// The oldest records of a partition may be deleted while it is larger than this: 1GiB, unlimited
    #[arg(long, value_name = "SIZE", value_parser = size::size_or_unlimited, allow_hyphen_values = true)]
    retention_bytes: Option<i64>,
    /// Largest record: 1MiB
    #[arg(long, value_name = "SIZE", value_parser = message_size)]
    record_bytes_max: Option<i32>,
    /// Largest packed batch: 8MiB
    #[arg(long, value_name = "SIZE", value_parser = message_size)]
    batch_bytes_max: Option<i32>,
}

/// A field of a topic's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Field {
    Retention,
    RetentionBytes,
    RecordBytesMax,
    BatchBytesMax,
}

impl Field {
    /// Its path in an update mask.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Retention => "retention_ms",
            Self::RetentionBytes => "retention_bytes",
            Self::RecordBytesMax => "record_bytes_max",
            Self::BatchBytesMax => "batch_bytes_max",
        }
    }
}

impl ConfigOptions {
    /// The configuration with the fields that were given.
    pub(crate) fn config(&self) -> TopicConfig {
        TopicConfig {
            retention_ms: self.retention,
            retention_bytes: self.retention_bytes,
            record_bytes_max: self.record_bytes_max,
            batch_bytes_max: self.batch_bytes_max,
        }
    }

    /// The fields that were given.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let given = [
            (Field::Retention, self.retention.is_some()),
            (Field::RetentionBytes, self.retention_bytes.is_some()),
            (Field::RecordBytesMax, self.record_bytes_max.is_some()),
            (Field::BatchBytesMax, self.batch_bytes_max.is_some()),
        ];
        given
            .into_iter()
            .filter_map(|(field, given)| given.then_some(field))
            .collect()
    }
}

fn message_size(text: &str) -> Result<i32, String> {
    let bytes = size::size_at_least_one(text)?;
    i32::try_from(bytes).map_err(|_| "the size is too large".to_owned())
}
