//! Where to start reading: `earliest`, `latest`, an offset, or `@` and a time.

use kelda_proto::v1::{Boundary, StartPosition, start_position::Position};

use super::time;

/// Reads the value of `--from`.
pub(crate) fn start(text: &str) -> Result<StartPosition, String> {
    let position = match text {
        "earliest" => Position::Boundary(Boundary::Earliest.into()),
        "latest" => Position::Boundary(Boundary::Latest.into()),
        _ => match text.strip_prefix('@') {
            Some(time) => Position::TimestampMs(timestamp_ms(time)?),
            None => Position::Offset(offset(text)?),
        },
    };
    Ok(StartPosition {
        position: Some(position),
    })
}

fn offset(text: &str) -> Result<i64, String> {
    let expected = "expected earliest, latest, an offset such as 1500, or a time such as \
                    @2026-01-31T12:00:00Z or @1769860800000";
    text.parse()
        .ok()
        .filter(|offset| *offset >= 0)
        .ok_or_else(|| expected.to_owned())
}

fn timestamp_ms(text: &str) -> Result<i64, String> {
    let milliseconds = text.parse().ok().or_else(|| time::parse(text));
    let expected =
        "expected, behind the @, milliseconds since 1970 or RFC 3339 such as 2026-01-31T12:00:00Z";
    milliseconds.ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(text: &str) -> Option<Position> {
        start(text).ok().and_then(|start| start.position)
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(
            position("earliest"),
            Some(Position::Boundary(Boundary::Earliest.into()))
        );
        assert_eq!(
            position("latest"),
            Some(Position::Boundary(Boundary::Latest.into()))
        );
        assert_eq!(position("@1000"), Some(Position::TimestampMs(1_000)));
        assert_eq!(
            position("@1970-01-01T00:00:01Z"),
            Some(Position::TimestampMs(1_000))
        );
        assert_eq!(position("@-5"), Some(Position::TimestampMs(-5)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "-1",
            "first",
            "@",
            "@yesterday",
            "1.5",
            "9223372036854775808",
        ] {
            assert_eq!(position(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn offsets_are_read(offset in 0..i64::MAX) {
            prop_assert_eq!(position(&offset.to_string()), Some(Position::Offset(offset)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = start(&text);
        }
    }
}
