//! Output formats of `consume`, with the letters that kcat uses.

use std::{fmt::Display, io::Write};

use bytes::Bytes;
use kelda_proto::v1::{Header, Record};

/// One record and where it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'a> {
    /// Its topic.
    pub(crate) topic: &'a str,
    /// Its partition.
    pub(crate) partition: u32,
    /// Its offset.
    pub(crate) offset: u64,
    /// The record.
    pub(crate) record: &'a Record,
}

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

impl Format {
    /// Reads a format such as `%k %v\n`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\\' => literal.push(escape(&mut rest)?),
                '%' => match rest.next() {
                    Some('%') => literal.push(b'%'),
                    letter => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                        }
                        pieces.push(field(letter)?);
                    }
                },
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces })
    }

    /// Appends the record in this format.
    pub(crate) fn write(&self, located: &Located<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            piece.write(located, out);
        }
    }
}

/// Reads text in which a backslash makes control characters: `\t`, `\x1f`.
pub(crate) fn unescape(text: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => bytes.push(escape(&mut rest)?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(Bytes::from(bytes))
}

impl Default for Format {
    /// The value and a line feed.
    fn default() -> Self {
        Self {
            pieces: vec![Piece::Value, Piece::Literal(b"\n".to_vec())],
        }
    }
}

impl Piece {
    fn write(&self, located: &Located<'_>, out: &mut Vec<u8>) {
        let record = located.record;
        match self {
            Self::Literal(bytes) => out.extend_from_slice(bytes),
            Self::Key => out.extend_from_slice(record.key.as_deref().unwrap_or_default()),
            Self::KeyLength => number(length(record.key.as_deref()), out),
            Self::Value => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            Self::ValueLength => number(length(record.value.as_deref()), out),
            Self::Headers => headers(&record.headers, out),
            Self::Topic => out.extend_from_slice(located.topic.as_bytes()),
            Self::Partition => number(located.partition, out),
            Self::Offset => number(located.offset, out),
            Self::Timestamp => number(record.timestamp_ms, out),
        }
    }
}

fn field(letter: Option<char>) -> Result<Piece, String> {
    Ok(match letter {
        Some('k') => Piece::Key,
        Some('K') => Piece::KeyLength,
        Some('v' | 's') => Piece::Value,
        Some('V' | 'S') => Piece::ValueLength,
        Some('h') => Piece::Headers,
        Some('t') => Piece::Topic,
        Some('p') => Piece::Partition,
        Some('o') => Piece::Offset,
        Some('T') => Piece::Timestamp,
        Some(other) => {
            return Err(format!(
                "unknown field %{other}: use %k %K %v %V %h %t %p %o %T or %%"
            ));
        }
        None => return Err("a % at the end: write %% for a percent sign".to_owned()),
    })
}

/// What stands behind a backslash.
fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    Ok(match rest.next() {
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let hexadecimal =
                digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let byte = hexadecimal
                .then(|| u8::from_str_radix(&digits, 16).ok())
                .flatten();
            byte.ok_or_else(|| "expected two hexadecimal digits behind \\x".to_owned())?
        }
        Some(other) => {
            return Err(format!(
                "unknown escape \\{other}: use \\n \\r \\t \\0 \\\\ or \\xNN"
            ));
        }
        None => return Err("a backslash at the end: write \\\\ for a backslash".to_owned()),
    })
}

/// Bytes of a key or value; -1 where it is absent.
fn length(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| bytes.len() as i64)
}

fn number(value: impl Display, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("writing to a Vec does not fail");
}

fn headers(headers: &[Header], out: &mut Vec<u8>) {
    for (index, header) in headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(header.key.as_bytes());
        out.push(b'=');
        out.extend_from_slice(&header.value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(format: &str, record: &Record) -> String {
        let mut out = Vec::new();
        let located = Located {
            topic: "orders",
            partition: 3,
            offset: 42,
            record,
        };
        Format::parse(format)
            .expect("well-formed")
            .write(&located, &mut out);
        String::from_utf8(out).expect("text")
    }

    fn record() -> Record {
        let header = |key: &str, value: &'static [u8]| Header {
            key: key.to_owned(),
            value: Bytes::from_static(value),
        };
        Record {
            key: Some(Bytes::from_static(b"alice")),
            value: Some(Bytes::from_static(b"{}")),
            headers: vec![header("a", b"1"), header("b", b"2")],
            timestamp_ms: 1_000,
        }
    }

    #[test]
    fn every_field_and_escape_is_written() {
        assert_eq!(
            rendered("%k %v %o %p %t %h %T %s\\n", &record()),
            "alice {} 42 3 orders a=1,b=2 1000 {}\n"
        );
        assert_eq!(rendered("%K/%V/%S", &record()), "5/2/2");
        assert_eq!(
            rendered("100%% \\x41\\t\\\\\\0\\r|ü", &record()),
            "100% A\t\\\0\r|ü"
        );
        assert_eq!(rendered("", &record()), "");
    }

    #[test]
    fn absent_keys_and_values_are_empty_and_have_length_minus_one() {
        assert_eq!(
            rendered("[%k|%K|%v|%V|%h]", &Record::default()),
            "[|-1||-1|]"
        );
    }

    #[test]
    fn the_default_is_the_value_and_a_line_feed() {
        assert_eq!(Ok(Format::default()), Format::parse("%v\\n"));
    }

    #[test]
    fn nonsense_is_refused() {
        for format in ["%", "%z", "\\", "\\q", "\\x4", "\\xzz", "\\x+1", "100%"] {
            assert!(Format::parse(format).is_err(), "{format}");
        }
    }

    #[test]
    fn separators_may_be_escaped() {
        assert_eq!(unescape("\\t"), Ok(Bytes::from_static(b"\t")));
        assert_eq!(
            unescape("a%\\x1fé"),
            Ok(Bytes::from_static("a%\x1fé".as_bytes()))
        );
        assert!(unescape("\\").is_err());
    }

    proptest! {
        #[test]
        fn text_without_marks_stands_for_itself(text in "[^%\\\\]{0,40}") {
            prop_assert_eq!(rendered(&text, &record()), text);
        }

        #[test]
        fn no_format_makes_it_panic(text in "[%\\\\a-zA-Z0-9é]{0,40}") {
            if let Ok(format) = Format::parse(&text) {
                let record = record();
                format.write(&Located { topic: "t", partition: 0, offset: 0, record: &record }, &mut Vec::new());
            }
        }
    }
}
