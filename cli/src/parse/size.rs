//! Byte sizes with units: `512`, `64KiB`, `1MB`.

/// Units and their bytes. `Ki` and `k` alone follow the field's habit: binary with an `i`, decimal without.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
];

/// Reads a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size such as 512, 64KiB or 1MB".to_owned())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (_, bytes) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| {
            format!("unknown unit '{unit}': use B, KB, MB, GB, TB, KiB, MiB, GiB or TiB")
        })?;
    number
        .checked_mul(*bytes)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// Reads a size for a field in which -1 means no limit: `1GiB` or `unlimited`.
pub(crate) fn size_or_unlimited(text: &str) -> Result<i64, String> {
    if matches!(text, "unlimited" | "-1") {
        return Ok(-1);
    }
    size(text).map(|bytes| bytes as i64)
}

/// Reads a size of at least 1 that fits a request's field.
pub(crate) fn size_at_least_one(text: &str) -> Result<usize, String> {
    match size(text)? {
        0 => Err("must be at least 1".to_owned()),
        bytes => usize::try_from(bytes).map_err(|_| "the size is too large".to_owned()),
    }
}

/// Writes a number of bytes for people, with three digits or more: `1.50 MiB`.
pub(crate) fn human(bytes: i64) -> String {
    const NAMES: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes.unsigned_abs() < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut name = 0;
    while value.abs() >= 1024.0 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    format!("{value:.2} {}", NAMES[name])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("64 kib"), Ok(65_536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("2Gi"), Ok(2 << 30));
        assert_eq!(size_or_unlimited("unlimited"), Ok(-1));
        assert_eq!(size_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "MiB",
            "-5",
            "1.5GiB",
            "3 parsecs",
            "99999999999TiB",
            "9223372036854775808",
            "0x10",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size_at_least_one("0").is_err());
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.50 KiB");
        assert_eq!(human(3 << 30), "3.00 GiB");
    }

    proptest! {
        #[test]
        fn plain_numbers_are_bytes(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(size(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = size(&text);
        }
    }
}
