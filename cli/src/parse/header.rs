//! Headers as `name=value`.

use bytes::Bytes;
use kelda_proto::v1::Header;

/// Reads one header; the value is everything behind the first `=`.
pub(crate) fn header(text: &str) -> Result<Header, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Header {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }),
        _ => Err("expected name=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equals_sign_separates() {
        let read = header("trace=a=b").expect("well-formed");
        assert_eq!(
            (read.key.as_str(), read.value.as_ref()),
            ("trace", b"a=b".as_slice())
        );
        assert_eq!(header("empty=").expect("well-formed").value, Bytes::new());
    }

    #[test]
    fn a_header_needs_a_name_and_an_equals_sign() {
        assert!(header("trace").is_err());
        assert!(header("=value").is_err());
        assert!(header("").is_err());
    }
}
