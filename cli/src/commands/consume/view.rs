//! Records as JSON, one object a line.

use base64::{Engine, prelude::BASE64_STANDARD};
use kelda_proto::v1;
use serde::Serialize;

use crate::parse::format::Located;

/// A record as JSON. Bytes that are no UTF-8 text stand in the field of the same name with `_base64`.
#[derive(Debug, Serialize)]
struct Record<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header<'a>>,
}

#[derive(Debug, Serialize)]
struct Header<'a> {
    key: &'a str,
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Appends the record as one line of JSON.
pub(super) fn write(located: &Located<'_>, out: &mut Vec<u8>) {
    let record = located.record;
    let (key, key_base64) = record.key.as_deref().map_or((None, None), text_or_base64);
    let (value, value_base64) = record.value.as_deref().map_or((None, None), text_or_base64);
    let record = Record {
        topic: located.topic,
        partition: located.partition,
        offset: located.offset,
        timestamp_ms: record.timestamp_ms,
        key,
        key_base64,
        value,
        value_base64,
        headers: record.headers.iter().map(Header::from).collect(),
    };
    serde_json::to_writer(&mut *out, &record).expect("a Vec takes all bytes and every key is text");
    out.push(b'\n');
}

impl<'a> From<&'a v1::Header> for Header<'a> {
    fn from(header: &'a v1::Header) -> Self {
        let (value, value_base64) = text_or_base64(&header.value);
        Self {
            key: &header.key,
            value,
            value_base64,
        }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read_back(record: &v1::Record) -> Value {
        let mut out = Vec::new();
        write(
            &Located {
                topic: "orders",
                partition: 1,
                offset: 7,
                record,
            },
            &mut out,
        );
        assert_eq!(
            out.iter().filter(|byte| **byte == b'\n').count(),
            1,
            "one record is one line"
        );
        serde_json::from_slice(&out).expect("valid JSON")
    }

    #[test]
    fn text_is_text_and_other_bytes_are_base64() {
        let record = v1::Record {
            key: Some(Bytes::from_static(b"line\nfeed")),
            value: Some(Bytes::from_static(&[0xff, 0xfe])),
            headers: vec![v1::Header {
                key: "h".to_owned(),
                value: Bytes::from_static(b"v"),
            }],
            timestamp_ms: 5,
        };
        let expected = json!({
            "topic": "orders", "partition": 1, "offset": 7, "timestamp_ms": 5, "key": "line\nfeed",
            "value": null, "value_base64": "//4=", "headers": [{ "key": "h", "value": "v" }],
        });
        assert_eq!(read_back(&record), expected);
    }

    #[test]
    fn absent_and_empty_differ() {
        let record = v1::Record {
            value: Some(Bytes::new()),
            ..Default::default()
        };
        let json = read_back(&record);
        assert_eq!((&json["key"], &json["value"]), (&Value::Null, &json!("")));
        assert!(json.get("key_base64").is_none());
    }

    proptest! {
        #[test]
        fn every_value_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let record = v1::Record { value: Some(Bytes::from(bytes.clone())), ..Default::default() };
            let json = read_back(&record);
            let decoded = match json.get("value_base64") {
                Some(encoded) => BASE64_STANDARD.decode(encoded.as_str().expect("text")).expect("base64"),
                None => json["value"].as_str().expect("text").as_bytes().to_vec(),
            };
            prop_assert_eq!(decoded, bytes);
        }
    }
}
