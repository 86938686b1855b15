//! Points in time as RFC 3339 text and as milliseconds since the Unix epoch.
//!
//! Written here because the two functions need a page, and a calendar library would be the larger half of the
//! command line. The calendar is the proleptic Gregorian one; leap seconds do not exist in Unix time.

const DAY_MS: i64 = 86_400_000;

/// Reads `2026-01-31T12:30:00Z`, with a fraction or an offset if need be, or a date alone for its midnight in UTC.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let date = text.get(..10)?;
    let (year, month_day) = date.split_once('-')?;
    let (month, day) = month_day.split_once('-')?;
    let days = days_from_date(fixed(year, 4)?, fixed(month, 2)?, fixed(day, 2)?)?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(days * DAY_MS);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let clock = rest.get(..8)?;
    let mut parts = clock.split(':').map(|part| fixed(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = &rest[8..];
    let (fraction_ms, zone) = match rest.strip_prefix('.') {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days * DAY_MS + seconds * 1_000 + fraction_ms - offset_minutes(zone)? * 60_000)
}

/// Writes milliseconds since the epoch as RFC 3339 in UTC; years outside 0 to 9999 as the bare number.
pub(crate) fn format(milliseconds: i64) -> String {
    let (year, month, day) = date_from_days(milliseconds.div_euclid(DAY_MS));
    if !(0..=9999).contains(&year) {
        return milliseconds.to_string();
    }
    let clock = milliseconds.rem_euclid(DAY_MS);
    let (hour, minute) = (clock / 3_600_000, clock / 60_000 % 60);
    let (second, millisecond) = (clock / 1_000 % 60, clock % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// A number of exactly `digits` digits.
fn fixed(text: &str, digits: usize) -> Option<i64> {
    let all_digits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

/// Milliseconds of a fraction (digits beyond the third are dropped), and what follows it.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (fraction, zone) = text.split_at(digits);
    if fraction.is_empty() {
        return None;
    }
    let value = fraction.bytes().chain(*b"000").take(3);
    let value = value.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some((value, zone))
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, clock) = match zone.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let (hour, minute) = clock.split_once(':')?;
    let (hour, minute) = (fixed(hour, 2)?, fixed(minute, 2)?);
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 60 + minute))
}

/// Days since the epoch. A year is counted from March, so that the leap day is its last day.
fn days_from_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_read() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2001-09-09T01:46:40Z"), Some(1_000_000_000_000));
        assert_eq!(parse("2001-09-09 01:46:40.1239Z"), Some(1_000_000_000_123));
        assert_eq!(parse("2001-09-09T03:46:40+02:00"), Some(1_000_000_000_000));
        assert_eq!(parse("2001-09-08T20:16:40-05:30"), Some(1_000_000_000_000));
        assert_eq!(parse("2000-02-29"), Some(951_782_400_000));
        assert_eq!(parse("1969-12-31T23:59:59.999Z"), Some(-1));
    }

    #[test]
    fn wrong_times_are_refused() {
        for text in [
            "",
            "2026",
            "2026-02-29",
            "1900-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "2026-01-01T",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00Zx",
            "2026-01-01X00:00:00Z",
            "+026-01-01",
            "2026-01-01T00:00:00é",
            "äääää",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in -62_167_219_200_000..253_402_300_800_000_i64) {
            prop_assert_eq!(parse(&format(milliseconds)), Some(milliseconds));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9:TZ+. é-]{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_number_makes_it_panic(milliseconds: i64) {
            let _ = format(milliseconds);
        }
    }
}
