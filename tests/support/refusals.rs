//! Asserts that a refusal is all that the contract promises.

use std::collections::HashMap;

use kelda_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::assert_refused;

/// Asserts code, reason and exactly this metadata, and that the message gives this advice.
pub(crate) fn assert_refusal(
    status: &Status,
    code: Code,
    reason: v1::ErrorReason,
    metadata: &[(&str, &str)],
    advice: &str,
) {
    let found = assert_refused(status, code, reason);
    assert_eq!(found, owned(metadata), "{status:?}");
    let message = status.message();
    assert!(message.contains(advice), "{advice:?} in {message:?}");
    assert!(!message.contains('\n'), "one line: {message:?}");
}

/// As [`assert_refusal`], of an error inside a stream.
pub(crate) fn assert_error_item(
    error: &v1::Error,
    code: Code,
    reason: v1::ErrorReason,
    metadata: &[(&str, &str)],
    advice: &str,
) {
    assert_eq!(Code::from_i32(error.code), code, "{error:?}");
    assert_eq!(error.reason(), reason, "{error:?}");
    assert_eq!(error.metadata, owned(metadata), "{error:?}");
    assert!(error.message.contains(advice), "{advice:?} in {error:?}");
}

/// Asserts that exactly these fields are named as invalid, and that the message says what each must be.
pub(crate) fn assert_invalid_fields(status: &Status, fields: &[&str]) {
    let metadata = assert_refused(status, Code::InvalidArgument, v1::ErrorReason::InvalidField);
    assert_eq!(metadata, HashMap::new());
    let details = status
        .get_details_bad_request()
        .expect("the fields are listed");
    let found: Vec<_> = details
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(found, fields, "{status:?}");
    for violation in &details.field_violations {
        assert!(!violation.description.is_empty(), "{violation:?}");
        assert!(
            status.message().contains(&violation.description),
            "{status:?}"
        );
    }
}

fn owned(metadata: &[(&str, &str)]) -> HashMap<String, String> {
    metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
