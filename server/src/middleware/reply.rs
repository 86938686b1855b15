//! The one way to make a gRPC error: a code, an `ErrorReason` and the details that go with it.
//!
//! The code follows from the reason, as the contract says beside each reason, so the two can not contradict each
//! other.

use std::{collections::HashMap, time::Duration};

use http::Response;
use kelda_proto::{
    ERROR_DOMAIN,
    v1::{self, ErrorReason},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Longest message. What is longer is cut: it may hold text that the client sent, and a status travels in headers,
/// of which a peer takes only so many bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// Longest value of the metadata, and longest text of a violation.
const VALUE_BYTES_MAX: usize = 256;
/// Most violations listed.
const VIOLATIONS_MAX: usize = 10;

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub struct Reply {
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
    quota: Option<&'static str>,
}

impl Reply {
    /// An error with a message for people: one line that says what to do.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: shortened(message.into(), MESSAGE_BYTES_MAX),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
            quota: None,
        }
    }

    /// An error that another node made with [`Reply::into_item`].
    pub fn from_item(item: &v1::Error) -> Self {
        Self {
            metadata: item.metadata.clone(),
            ..Self::new(item.reason(), item.message.clone())
        }
    }

    /// Adds to the metadata. The contract says which keys each reason has.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: &impl ToString) -> Self {
        let value = shortened(value.to_string(), VALUE_BYTES_MAX);
        self.metadata.insert(key.to_owned(), value);
        self
    }

    /// Names a field at fault (`google.rpc.BadRequest`).
    #[must_use]
    pub fn with_violation(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push((
                shortened(field.into(), VALUE_BYTES_MAX),
                shortened(message.into(), VALUE_BYTES_MAX),
            ));
        }
        self
    }

    /// Says when to try again (`google.rpc.RetryInfo`).
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Says what there is too much of (`google.rpc.QuotaFailure`).
    #[must_use]
    pub fn with_quota(mut self, subject: &'static str) -> Self {
        self.quota = Some(subject);
        self
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        code_of(self.reason)
    }

    /// As the status of a call.
    pub fn into_status(self) -> Status {
        let code = self.code();
        let reason = self.reason.as_str_name();
        let reason = reason.strip_prefix("ERROR_REASON_").unwrap_or(reason);
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, self.metadata);
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        for (field, message) in self.violations {
            details.add_bad_request_violation(field, message);
        }
        if let Some(subject) = self.quota {
            details.add_quota_failure_violation(subject, self.message.clone());
        }
        Status::with_error_details(code, self.message, details)
    }

    /// As a whole response: the status in the headers and no body.
    pub fn into_response<B: Default>(self) -> Response<B> {
        self.into_status().into_http()
    }

    /// As an error inside a stream that goes on.
    pub fn into_item(self) -> v1::Error {
        v1::Error {
            code: self.code() as i32,
            reason: self.reason.into(),
            message: self.message,
            metadata: self.metadata,
        }
    }
}

/// The code that the contract gives to a reason.
fn code_of(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::Unspecified => Code::Unknown,
        ErrorReason::InvalidField
        | ErrorReason::InvalidTopicName
        | ErrorReason::RecordTooLarge
        | ErrorReason::BatchTooLarge
        | ErrorReason::ChecksumMismatch
        | ErrorReason::RecordCountMismatch
        | ErrorReason::MalformedRecords
        | ErrorReason::NotEnoughNodes => Code::InvalidArgument,
        ErrorReason::UnknownTopic | ErrorReason::UnknownPartition | ErrorReason::UnknownNode => {
            Code::NotFound
        }
        ErrorReason::TopicExists => Code::AlreadyExists,
        ErrorReason::DecompressedTooLarge
        | ErrorReason::Overloaded
        | ErrorReason::DiskFull
        | ErrorReason::LimitReached => Code::ResourceExhausted,
        ErrorReason::OffsetOutOfRange => Code::OutOfRange,
        ErrorReason::ExpectedOffsetMismatch
        | ErrorReason::ProducerFenced
        | ErrorReason::SequenceOutOfOrder
        | ErrorReason::NodeInUse
        | ErrorReason::LastNode
        | ErrorReason::NodeAlive
        | ErrorReason::TooFewNodesLeft
        | ErrorReason::NotAReplica
        | ErrorReason::QuorumLost => Code::FailedPrecondition,
        ErrorReason::NotLeader
        | ErrorReason::NoLeader
        | ErrorReason::NoCatalogLeader
        | ErrorReason::ChangeUnknown
        | ErrorReason::NotReady
        | ErrorReason::ReplicaBehind => Code::Unavailable,
        ErrorReason::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorReason::CorruptData => Code::DataLoss,
        ErrorReason::NotAMember => Code::PermissionDenied,
        ErrorReason::Internal => Code::Internal,
    }
}

/// Cuts a text to at most `bytes_max` bytes, between characters.
fn shortened(mut text: String, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes_max {
        let mut end = bytes_max - ELLIPSIS.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name of a code as the contract writes it: `INVALID_ARGUMENT`.
    fn spelled(code: Code) -> String {
        let mut name = String::new();
        for c in format!("{code:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn every_reason_has_the_code_that_the_contract_says() {
        let contract = include_str!("../../../proto/kelda/v1/errors.proto");
        let mut comment = String::new();
        let mut checked = 0;
        for line in contract.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("//") {
                comment.push_str(text.trim());
                comment.push(' ');
            } else if let Some((name, _)) = line.split_once(" = ") {
                if let Some(reason) = ErrorReason::from_str_name(name)
                    && reason != ErrorReason::Unspecified
                {
                    let code = comment.split([',', '.']).next().unwrap();
                    assert_eq!(code, spelled(code_of(reason)), "{name}");
                    checked += 1;
                }
                comment.clear();
            } else {
                comment.clear();
            }
        }
        assert_eq!(checked, 36, "every reason of the contract was found");
    }

    #[test]
    fn a_status_carries_its_details() {
        let status = Reply::new(ErrorReason::Overloaded, "too many calls")
            .with("limit", &4096)
            .with_retry_after(Duration::from_millis(50))
            .with_quota("calls")
            .into_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "OVERLOADED");
        assert_eq!(info.domain, "kelda");
        assert_eq!(info.metadata["limit"], "4096");
        let retry = details.retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(50)));
        let quota = details.quota_failure().unwrap();
        assert_eq!(quota.violations[0].subject, "calls");
    }

    #[test]
    fn what_a_client_sent_can_not_make_headers_too_large() {
        let long = "ä".repeat(100_000);
        let mut reply = Reply::new(ErrorReason::InvalidField, long.clone()).with("topic", &long);
        for _ in 0..1000 {
            reply = reply.with_violation(long.clone(), long.clone());
        }
        let response: Response<()> = reply.into_response();
        let bytes: usize = response
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        // The smallest limit on a header list that is common among gRPC clients.
        assert!(bytes <= 12 * 1024, "{bytes}");
    }
}
