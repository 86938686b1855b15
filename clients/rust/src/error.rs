//! What can go wrong, and whether to try again.

use std::collections::BTreeMap;
use std::time::Duration;

use kelda_proto::v1::ErrorReason;
use kelda_proto::{ERROR_DOMAIN, batch, v1};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What went wrong with a call, a producer or a consumer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The broker refused or failed.
    #[error("{message}")]
    Rpc {
        /// gRPC code.
        code: Code,
        /// Why, if the broker said.
        reason: Option<ErrorReason>,
        /// For people.
        message: String,
        /// Details, as documented at the reason.
        metadata: BTreeMap<String, String>,
        /// How long the broker asks to wait before trying again.
        retry_after: Option<Duration>,
    },
    /// No server could be reached.
    #[error("cannot connect to {}: {detail}", servers.join(", "))]
    Connect {
        /// The addresses that were tried.
        servers: Vec<String>,
        /// Why the last one failed.
        detail: String,
    },
    /// The connection broke before there was an answer, so it is not known whether the call took effect.
    #[error("connection lost: {detail}")]
    Disconnected {
        /// What broke.
        detail: String,
    },
    /// There was no answer in time, so it is not known whether the call took effect.
    #[error("no answer within {after:?}")]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The time for all attempts of a call was up. It is not known whether the last one took effect.
    #[error("no answer within {after:?}, and before that: {cause}")]
    GaveUp {
        /// How long all attempts took.
        after: Duration,
        /// Why an earlier one failed.
        cause: Box<Error>,
    },
    /// An address is not of the form `host:port`.
    #[error("`{server}` is no server address, give host:port: {detail}")]
    Address {
        /// The address.
        server: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A record or batch breaks a rule: refused before it was sent, or damaged when it was read.
    #[error(transparent)]
    Batch(#[from] batch::Error),
    /// The topic has no such partition.
    #[error("the topic has {partition_count} partitions, there is no partition {partition}")]
    UnknownPartition {
        /// Partition asked for.
        partition: u32,
        /// Partitions of the topic.
        partition_count: u32,
    },
    /// The broker's answer breaks the contract.
    #[error("the broker broke the contract: {detail}")]
    Protocol {
        /// How.
        detail: &'static str,
    },
    /// An earlier batch of the producer failed for good while this one was on its way behind it, so it is not known
    /// whether this one was written.
    #[error("not known to be written, because an earlier batch failed: {cause}")]
    Abandoned {
        /// Why the earlier one failed.
        cause: Box<Error>,
    },
    /// The producer is closed, or was dropped with this record unsent.
    #[error("the producer is closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later. It says nothing about whether this one took effect.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Rpc { code, reason, .. } => match reason {
                Some(reason) => retryable_reason(*reason),
                None => matches!(
                    code,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
                ),
            },
            Error::Connect { .. }
            | Error::Disconnected { .. }
            | Error::Timeout { .. }
            | Error::GaveUp { .. } => true,
            Error::Address { .. }
            | Error::Batch(_)
            | Error::UnknownPartition { .. }
            | Error::Protocol { .. }
            | Error::Abandoned { .. }
            | Error::Closed => false,
        }
    }

    /// The error of a call that ends with this one, when an earlier attempt ended with `said`.
    pub(crate) fn after(self, said: Option<Error>, spent: Duration) -> Error {
        match (&self, said) {
            (Error::Timeout { .. }, Some(said)) => Error::GaveUp {
                after: spent,
                cause: Box::new(said),
            },
            _ => self,
        }
    }

    /// The broker's reason, if it gave one.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Error::Rpc { reason, .. } => *reason,
            _ => None,
        }
    }

    /// How long the broker asks to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Rpc { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another server may do better than the one that made this error.
    pub(crate) fn blames_server(&self) -> bool {
        match self {
            Error::Rpc { code, reason, .. } => match reason {
                // A server that is cut off from the others knows of no leader while they have one.
                Some(reason) => matches!(
                    reason,
                    ErrorReason::NotReady
                        | ErrorReason::NoLeader
                        | ErrorReason::NoCatalogLeader
                        | ErrorReason::ChangeUnknown
                ),
                None => *code == Code::Unavailable,
            },
            Error::Connect { .. }
            | Error::Disconnected { .. }
            | Error::Timeout { .. }
            | Error::GaveUp { .. } => true,
            _ => false,
        }
    }

    /// Whether the call may have taken effect all the same.
    pub(crate) fn indefinite(&self) -> bool {
        match self {
            Error::Rpc { code, reason, .. } => {
                !matches!(
                    reason,
                    Some(
                        ErrorReason::NotReady
                            | ErrorReason::NoCatalogLeader
                            | ErrorReason::Overloaded
                    )
                ) && matches!(
                    code,
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal
                )
            }
            Error::Disconnected { .. } | Error::Timeout { .. } | Error::GaveUp { .. } => true,
            _ => false,
        }
    }
}

fn retryable_reason(reason: ErrorReason) -> bool {
    matches!(
        reason,
        ErrorReason::NotLeader
            | ErrorReason::NoLeader
            | ErrorReason::NoCatalogLeader
            | ErrorReason::ChangeUnknown
            | ErrorReason::NotReady
            | ErrorReason::Overloaded
            | ErrorReason::DiskFull
            | ErrorReason::DeadlineExceeded
    )
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        // A broker names its reason. Without one, a status with a source was made on this side of the
        // connection, and Unknown stands for a stream that ended without any.
        if info.is_none() {
            let source = std::error::Error::source(&status);
            if source.is_some() || status.code() == Code::Unknown {
                return Error::Disconnected {
                    detail: root_cause(&status),
                };
            }
        }
        let (reason, metadata) = match info {
            Some(info) => (
                ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)),
                info.metadata.into_iter().collect(),
            ),
            None => (None, BTreeMap::new()),
        };
        Error::Rpc {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            metadata,
            retry_after: status
                .get_details_retry_info()
                .and_then(|info| info.retry_delay),
        }
    }
}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        Error::Rpc {
            code: Code::from(error.code),
            reason: ErrorReason::try_from(error.reason)
                .ok()
                .filter(|reason| *reason != ErrorReason::Unspecified),
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
            retry_after: None,
        }
    }
}

/// Message of the innermost cause: the outer ones only say "transport error".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, domain: &str) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, domain, [("topic".to_owned(), "t".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(250)));
        Status::with_error_details(code, "words", details)
    }

    #[test]
    fn a_status_gives_its_reason_metadata_and_delay() {
        let error = Error::from(status(Code::Unavailable, "NO_LEADER", ERROR_DOMAIN));
        assert_eq!(error.reason(), Some(ErrorReason::NoLeader));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert!(error.retryable() && error.indefinite() && error.blames_server());
        let Error::Rpc {
            metadata, message, ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (metadata["topic"].as_str(), message.as_str()),
            ("t", "words")
        );
    }

    #[test]
    fn a_reason_of_another_domain_is_not_ours() {
        let error = Error::from(status(Code::NotFound, "UNKNOWN_TOPIC", "elsewhere"));
        assert_eq!(error.reason(), None);
        assert!(!error.retryable());
    }

    #[test]
    fn reasons_decide_before_codes() {
        let cases = [
            (Code::ResourceExhausted, "OVERLOADED", true, false),
            (Code::ResourceExhausted, "LIMIT_REACHED", false, false),
            (Code::Unavailable, "NOT_READY", true, true),
            (Code::NotFound, "UNKNOWN_TOPIC", false, false),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", true, false),
        ];
        for (code, reason, retryable, blames_server) in cases {
            let error = Error::from(status(code, reason, ERROR_DOMAIN));
            assert_eq!(error.retryable(), retryable, "{reason}");
            assert_eq!(error.blames_server(), blames_server, "{reason}");
        }
    }

    #[test]
    fn who_gave_up_says_what_came_before_and_that_the_end_is_open() {
        let after = Duration::from_secs(10);
        let silence = || Error::Timeout { after };
        let said = Error::from(status(Code::Unavailable, "NO_CATALOG_LEADER", ERROR_DOMAIN));
        assert!(!said.indefinite(), "nothing was changed");
        let error = silence().after(Some(said.clone()), after);
        assert!(error.indefinite() && error.reason().is_none());
        assert!(error.to_string().ends_with("before that: words"), "{error}");
        assert_eq!(silence().after(None, after), silence());
        assert_eq!(said.clone().after(Some(silence()), after), said);
    }

    #[test]
    fn a_status_made_by_the_transport_is_a_lost_connection() {
        let broken = std::io::Error::other("pipe burst");
        let error = Error::from(Status::from_error(Box::new(broken)));
        let detail = "pipe burst".to_owned();
        assert_eq!(error, Error::Disconnected { detail });
        assert!(error.retryable() && error.blames_server() && error.indefinite());
    }
}
