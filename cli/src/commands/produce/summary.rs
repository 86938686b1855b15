//! Counts what was sent, and says at the end what became of it.

use std::time::Instant;

use kelda_client::Error;
use kelda_proto::{batch, v1::Record};
use serde::Serialize;

use super::lines;
use crate::{
    failure::{Exit, Failure},
    output::{Output, write_stdout},
    parse::size,
};

/// What has been handed to the producer.
pub(super) struct Counts {
    started: Instant,
    /// Lines.
    pub(super) lines: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
}

/// Why no more is sent.
#[derive(Debug)]
pub(super) enum Stop {
    /// The input has ended, or a record that was sent has failed.
    End,
    /// Ctrl-C.
    Interrupted,
    /// The producer does not take this line, which then counts as failed.
    Refused(String),
    /// The input can not be read any further.
    Input(String),
}

impl Stop {
    /// The producer does not take a line.
    pub(super) fn refused(line: u64, error: Error) -> Self {
        Self::Refused(match error {
            Error::Batch(batch::Error::RecordTooLarge { size, limit, .. }) => {
                format!(
                    "line {line} makes a record of {size} bytes, and the topic takes at most {limit}"
                )
            }
            error => format!("line {line}: {error}"),
        })
    }

    /// The input is at fault.
    pub(super) fn input(error: &lines::Error) -> Self {
        match error {
            lines::Error::TooLong { .. } => Self::Refused(error.to_string()),
            lines::Error::Read(_) => Self::Input(error.to_string()),
        }
    }
}

impl Counts {
    /// Nothing sent yet.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            lines: 0,
            bytes: 0,
        }
    }

    /// Counts a record.
    pub(super) fn sent(&mut self, record: &Record) {
        let bytes =
            |field: &Option<bytes::Bytes>| field.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.lines += 1;
        self.bytes += bytes(&record.key) + bytes(&record.value);
    }

    /// What became of everything.
    pub(super) fn end(self, topic: &str, producer: kelda_client::Summary, stop: Stop) -> Summary {
        let refused = u64::from(matches!(stop, Stop::Refused(_)));
        let sent = producer.sent + refused;
        let seconds = self.started.elapsed().as_secs_f64();
        let first_error = producer.first_error.map(|error| error.to_string());
        let (exit, error) = match stop {
            Stop::Refused(error) => (Exit::Unacknowledged, Some(first_error.unwrap_or(error))),
            Stop::Input(error) => (Exit::Failed, Some(error)),
            Stop::Interrupted => (Exit::Interrupted, Some("interrupted".to_owned())),
            Stop::End => (Exit::Unacknowledged, first_error),
        };
        let failed = sent.saturating_sub(producer.acknowledged);
        Summary {
            topic: topic.to_owned(),
            sent,
            acknowledged: producer.acknowledged,
            failed,
            seconds,
            bytes: self.bytes,
            error,
            exit: if failed > 0 {
                Exit::Unacknowledged
            } else {
                exit
            },
        }
    }
}

/// What became of everything, also as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    topic: String,
    sent: u64,
    acknowledged: u64,
    /// Not written, or that is not known.
    failed: u64,
    seconds: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Summary {
    /// Prints the summary. A success is that everything was acknowledged.
    pub(super) fn finish(self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Json => {
                let json = serde_json::to_string(&self).expect("plain data");
                write_stdout(format!("{json}\n").as_bytes())?;
            }
            Output::Text => eprintln!("{}", self.text()),
        }
        let error = match (self.error, self.failed) {
            (None, 0) => return Ok(()),
            (error, _) => error.unwrap_or_else(|| "the broker did not say why".to_owned()),
        };
        Err(match self.failed {
            0 => Failure::new(self.exit, error),
            failed => Failure::new(
                self.exit,
                format!(
                    "{failed} of {} records were not acknowledged: {error}",
                    self.sent
                ),
            ),
        })
    }

    fn text(&self) -> String {
        let rate = if self.seconds > 0.0 {
            self.sent as f64 / self.seconds
        } else {
            0.0
        };
        format!(
            "sent {} records ({}), acknowledged {}, failed {}, in {:.3} s ({rate:.0} records/s)",
            self.sent,
            size::human(i64::try_from(self.bytes).unwrap_or(i64::MAX)),
            self.acknowledged,
            self.failed,
            self.seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(sent: u64, acknowledged: u64, first_error: Option<Error>, stop: Stop) -> Summary {
        let failed = sent - acknowledged;
        let producer = kelda_client::Summary {
            sent,
            acknowledged,
            failed,
            first_error,
            ..Default::default()
        };
        Counts::start().end("orders", producer, stop)
    }

    #[test]
    fn everything_acknowledged_is_a_success() {
        let summary = end(3, 3, None, Stop::End);
        assert_eq!((summary.failed, &summary.error), (0, &None));
        assert!(
            summary
                .text()
                .starts_with("sent 3 records (0 B), acknowledged 3, failed 0, in ")
        );
    }

    #[test]
    fn what_was_not_acknowledged_counts_as_failed_whatever_stopped_it() {
        for stop in [
            Stop::End,
            Stop::Interrupted,
            Stop::Input("unreadable".to_owned()),
        ] {
            let summary = end(3, 1, Some(Error::Closed), stop);
            assert_eq!((summary.failed, summary.exit), (2, Exit::Unacknowledged));
        }
    }

    #[test]
    fn a_refused_line_counts_as_sent_and_failed() {
        let summary = end(3, 3, None, Stop::refused(4, Error::Closed));
        assert_eq!(
            (summary.sent, summary.acknowledged, summary.failed),
            (4, 3, 1)
        );
        assert_eq!(summary.exit, Exit::Unacknowledged);
        assert!(
            summary
                .error
                .is_some_and(|error| error.starts_with("line 4: "))
        );
    }

    #[test]
    fn an_interrupt_with_everything_acknowledged_is_an_interrupt() {
        assert_eq!(end(3, 3, None, Stop::Interrupted).exit, Exit::Interrupted);
    }
}
