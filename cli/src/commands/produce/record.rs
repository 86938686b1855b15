//! Makes records of lines.

use bytes::Bytes;
use kelda_proto::v1::{Header, Record};

/// What is the same for every line.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    /// Key of every record, unless the line has one.
    pub(super) key: Option<Bytes>,
    /// Stands between key and value in a line.
    pub(super) separator: Option<Bytes>,
    /// Headers of every record.
    pub(super) headers: Vec<Header>,
}

impl Template {
    /// The record of a line.
    pub(super) fn record(&self, line: Bytes) -> Record {
        let (key, value) = match self
            .separator
            .as_deref()
            .and_then(|separator| cut(&line, separator))
        {
            Some((key, value)) => (Some(key), value),
            None => (self.key.clone(), line),
        };
        Record {
            key,
            value: Some(value),
            headers: self.headers.clone(),
            timestamp_ms: 0,
        }
    }
}

/// What is before and behind the first separator.
fn cut(line: &Bytes, separator: &[u8]) -> Option<(Bytes, Bytes)> {
    let at = match separator {
        [byte] => line.iter().position(|other| other == byte),
        _ => line
            .windows(separator.len().max(1))
            .position(|window| window == separator),
    }?;
    Some((line.slice(..at), line.slice(at + separator.len()..)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(line: &'static str, separator: &'static str) -> (Option<Bytes>, Bytes) {
        let separator = Some(Bytes::from_static(separator.as_bytes()));
        let record = Template {
            separator,
            ..Default::default()
        }
        .record(Bytes::from_static(line.as_bytes()));
        (record.key, record.value.expect("a line is a value"))
    }

    #[test]
    fn the_first_separator_ends_the_key() {
        assert_eq!(
            parts("alice:1:2", ":"),
            (Some("alice".into()), "1:2".into())
        );
        assert_eq!(
            parts("alice => 1", " => "),
            (Some("alice".into()), "1".into())
        );
        assert_eq!(parts(":value", ":"), (Some("".into()), "value".into()));
        assert_eq!(parts("key:", ":"), (Some("key".into()), "".into()));
    }

    #[test]
    fn a_line_without_separator_is_a_value() {
        assert_eq!(parts("value", ":"), (None, "value".into()));
        assert_eq!(parts("", "::"), (None, "".into()));
        let template = Template {
            key: Some("all".into()),
            separator: Some(":".into()),
            ..Default::default()
        };
        assert_eq!(template.record("value".into()).key, Some("all".into()));
        assert_eq!(template.record("own:value".into()).key, Some("own".into()));
    }

    proptest! {
        #[test]
        fn key_separator_and_value_make_the_line(line in "[ab:]{0,12}", separator in "[ab:]{1,3}") {
            let template = Template { separator: Some(separator.clone().into()), ..Default::default() };
            let record = template.record(line.clone().into());
            let value = record.value.expect("a line is a value");
            let joined = match &record.key {
                Some(key) => [key.as_ref(), separator.as_bytes(), &value].concat(),
                None => value.to_vec(),
            };
            prop_assert_eq!(joined, line.clone().into_bytes());
            prop_assert_eq!(record.key.is_some(), line.contains(&separator));
        }
    }
}
