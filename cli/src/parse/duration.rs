//! Durations with units: `250ms`, `90s`, `7d`, `1h30m`.

use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a duration; the largest is that of 2^63 - 1 milliseconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    milliseconds(text).map(|value| Duration::from_millis(value as u64))
}

/// Reads a duration for a field in which -1 means forever: `7d` or `forever`.
pub(crate) fn duration_or_forever(text: &str) -> Result<i64, String> {
    if matches!(text, "forever" | "unlimited" | "-1") {
        return Ok(-1);
    }
    milliseconds(text)
}

fn milliseconds(text: &str) -> Result<i64, String> {
    let wrong = || "expected a duration such as 250ms, 90s, 12h, 7d or 1h30m".to_owned();
    let too_long = || "the duration is too long".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        let (_, unit_ms) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        total = number
            .checked_mul(*unit_ms as i64)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(too_long)?;
        rest = tail.trim_start();
    }
    Ok(total)
}

/// Writes a number of milliseconds for people, exactly: `7d`, `1h30m`.
pub(crate) fn human(milliseconds: i64) -> String {
    if milliseconds < 0 {
        return "forever".to_owned();
    }
    let mut rest = milliseconds as u64;
    let mut text = String::new();
    // Weeks are read but not written: people say 14 days.
    for (name, unit_ms) in UNITS.iter().take(5).rev() {
        if rest >= *unit_ms {
            text.push_str(&format!("{}{name}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration_or_forever("7d"), Ok(604_800_000));
        assert_eq!(duration_or_forever("2w"), Ok(1_209_600_000));
        assert_eq!(duration_or_forever("forever"), Ok(-1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            " ",
            "7",
            "d",
            "7days",
            "-7d",
            "1.5h",
            "7d3",
            "99999999999999999w",
            "9223372036854775807d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in 0..i64::MAX) {
            prop_assert_eq!(duration_or_forever(&human(value)), Ok(value));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = duration(&text);
        }
    }
}
