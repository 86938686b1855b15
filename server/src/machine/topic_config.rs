//! Names and configuration of topics: what is valid, what is in force, and how an update changes it.

use std::fmt::Display;

use kelda_proto::limits::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, RECORD_BYTES_MAX, TOPIC_NAME_BYTES_MAX,
};
use kelda_proto::v1::TopicConfig;

/// How long records are kept unless the topic says otherwise: 7 days.
pub const RETENTION_MS_DEFAULT: i64 = 7 * 24 * 60 * 60 * 1000;

/// Stands for no limit in [`TopicConfig`].
const UNLIMITED: i64 = -1;

/// Fields of [`TopicConfig`], as an update mask names them.
const FIELDS: [&str; 4] = [
    "retention_ms",
    "retention_bytes",
    "record_bytes_max",
    "batch_bytes_max",
];

/// Paths of an update mask that are listed as unknown: a request has room for millions.
const UNKNOWN_PATHS_MAX: usize = 100;

/// Configuration in force: every field has a value that can be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Records older than this may be deleted; `None`: never.
    pub retention_ms: Option<i64>,
    /// The oldest records of a partition may be deleted while it has more bytes; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// Largest record, encoded.
    pub record_bytes_max: usize,
    /// Largest batch.
    pub batch_bytes_max: usize,
}

impl Effective {
    /// Fills in the defaults. A value that [`validate`] refuses, which another version may have taken, counts as
    /// the nearest valid one.
    pub fn of(config: &TopicConfig) -> Self {
        Self {
            retention_ms: limit(config.retention_ms.unwrap_or(RETENTION_MS_DEFAULT)),
            retention_bytes: limit(config.retention_bytes.unwrap_or(UNLIMITED))
                .map(i64::cast_unsigned),
            record_bytes_max: size(config.record_bytes_max, RECORD_BYTES_MAX, RECORD_BYTES_MAX),
            batch_bytes_max: size(config.batch_bytes_max, BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX),
        }
    }
}

impl From<Effective> for TopicConfig {
    fn from(effective: Effective) -> Self {
        // The sizes are below 2^31: see `limits`.
        let size = |bytes: usize| i32::try_from(bytes).ok();
        Self {
            retention_ms: Some(effective.retention_ms.unwrap_or(UNLIMITED)),
            retention_bytes: Some(
                effective
                    .retention_bytes
                    .map_or(UNLIMITED, u64::cast_signed),
            ),
            record_bytes_max: size(effective.record_bytes_max),
            batch_bytes_max: size(effective.batch_bytes_max),
        }
    }
}

/// A field of a request that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, such as `config.retention_ms`.
    pub field: String,
    /// What it must be.
    pub message: String,
}

/// Checks the name of a topic.
///
/// # Errors
/// Says what a name must be.
pub fn validate_name(name: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > TOPIC_NAME_BYTES_MAX {
        Err("a topic name has 1 to 249 characters")
    } else if !name.bytes().all(allowed) {
        Err("a topic name holds only letters a-z and A-Z, digits, '.', '_' and '-'")
    } else if name == "." || name == ".." {
        Err("a topic can not be named \".\" or \"..\"")
    } else {
        Ok(())
    }
}

/// Returns everything that is wrong with the configuration of a request; nothing if it is valid.
pub fn validate(config: &TopicConfig) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut check = |field, valid: bool, expected: &dyn Display| {
        if !valid {
            violations.push(Violation {
                field: format!("config.{field}"),
                message: format!("must be {expected}"),
            });
        }
    };
    for (field, value) in [
        ("retention_ms", config.retention_ms),
        ("retention_bytes", config.retention_bytes),
    ] {
        let valid = value.is_none_or(|value| value == UNLIMITED || value > 0);
        check(field, valid, &"at least 1, or -1 for no limit");
    }
    for (field, value, max) in [
        (
            "record_bytes_max",
            config.record_bytes_max,
            RECORD_BYTES_MAX,
        ),
        ("batch_bytes_max", config.batch_bytes_max, BATCH_BYTES_MAX),
    ] {
        let valid = value.is_none_or(|value| value > 0 && value.cast_unsigned() as usize <= max);
        check(field, valid, &format_args!("from 1 to {max}"));
    }
    violations
}

/// Returns `current` with the fields that `mask` names taken from `update`: one that is absent there goes back to
/// its default. An empty mask names the fields that are present in `update`.
///
/// # Errors
/// Lists mask paths that name no field, the first `UNKNOWN_PATHS_MAX` of them, and everything that would not be valid in the result.
pub fn merge(
    current: &TopicConfig,
    update: &TopicConfig,
    mask: &[String],
) -> Result<TopicConfig, Vec<Violation>> {
    let mut violations: Vec<Violation> = mask
        .iter()
        .filter(|path| !FIELDS.contains(&path.as_str()))
        .take(UNKNOWN_PATHS_MAX)
        .map(|path| Violation {
            field: "update_mask".to_owned(),
            message: format!("{path:?} is not one of {}", FIELDS.join(", ")),
        })
        .collect();
    let merged = TopicConfig {
        retention_ms: choose(mask, FIELDS[0], current.retention_ms, update.retention_ms),
        retention_bytes: choose(
            mask,
            FIELDS[1],
            current.retention_bytes,
            update.retention_bytes,
        ),
        record_bytes_max: choose(
            mask,
            FIELDS[2],
            current.record_bytes_max,
            update.record_bytes_max,
        ),
        batch_bytes_max: choose(
            mask,
            FIELDS[3],
            current.batch_bytes_max,
            update.batch_bytes_max,
        ),
    };
    violations.extend(validate(&merged));
    if violations.is_empty() {
        Ok(merged)
    } else {
        Err(violations)
    }
}

fn choose<T>(mask: &[String], field: &str, current: Option<T>, update: Option<T>) -> Option<T> {
    if mask.is_empty() {
        update.or(current)
    } else if mask.iter().any(|path| path == field) {
        update
    } else {
        current
    }
}

fn limit(value: i64) -> Option<i64> {
    (value >= 0).then_some(value.max(1))
}

fn size(value: Option<i32>, default: usize, max: usize) -> usize {
    match value {
        None => default,
        Some(value) => usize::try_from(value).unwrap_or(0).clamp(1, max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(violations: &[Violation]) -> Vec<&str> {
        violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect()
    }

    #[test]
    fn names_are_checked() {
        let longest = "x".repeat(249);
        for name in ["a", "...", "Orders_2.eu-west", longest.as_str()] {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
        let too_long = "x".repeat(250);
        for name in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "ä",
            "a\0",
            "a\n",
            too_long.as_str(),
        ] {
            assert!(validate_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let effective = Effective::of(&TopicConfig::default());
        let told = TopicConfig {
            retention_ms: Some(604_800_000),
            retention_bytes: Some(-1),
            record_bytes_max: Some(1_048_576),
            batch_bytes_max: Some(1_114_112),
        };
        assert_eq!(TopicConfig::from(effective), told);
        assert_eq!(validate(&told), []);
        assert_eq!(Effective::of(&told), effective);
        assert_eq!(effective.retention_bytes, None);
    }

    #[test]
    fn every_violation_is_listed_and_no_value_is_used_as_it_is() {
        for bad in [i64::MIN, -2, 0] {
            let config = TopicConfig {
                retention_ms: Some(bad),
                retention_bytes: Some(bad),
                record_bytes_max: Some(i32::try_from(bad).unwrap_or(i32::MAX)),
                batch_bytes_max: Some(i32::try_from(bad).unwrap_or(i32::MAX)),
            };
            assert_eq!(
                fields(&validate(&config)),
                [
                    "config.retention_ms",
                    "config.retention_bytes",
                    "config.record_bytes_max",
                    "config.batch_bytes_max"
                ]
            );
            let nearest = TopicConfig::from(Effective::of(&config));
            assert_eq!(validate(&nearest), []);
        }
        let one_too_many = TopicConfig {
            record_bytes_max: Some(1 + RECORD_BYTES_MAX as i32),
            batch_bytes_max: Some(1 + BATCH_BYTES_MAX as i32),
            ..TopicConfig::default()
        };
        assert_eq!(validate(&one_too_many).len(), 2);
        assert_eq!(
            validate(&one_too_many)[0].message,
            "must be from 1 to 1048576"
        );
    }

    #[test]
    fn an_update_changes_what_the_mask_names() {
        let current = TopicConfig {
            retention_ms: Some(10),
            retention_bytes: Some(20),
            ..TopicConfig::default()
        };
        let update = TopicConfig {
            retention_ms: Some(11),
            batch_bytes_max: Some(5),
            ..TopicConfig::default()
        };
        let merged = |paths: &[&str]| {
            let mask: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            merge(&current, &update, &mask)
        };
        let mut expected = current;
        expected.retention_ms = Some(11);
        assert_eq!(merged(&["retention_ms"]), Ok(expected));
        expected.batch_bytes_max = Some(5);
        assert_eq!(merged(&[]), Ok(expected), "what is present");
        let mut expected = current;
        expected.retention_bytes = None;
        let default_again = merged(&["retention_bytes", "record_bytes_max"]);
        assert_eq!(default_again, Ok(expected));
    }

    #[test]
    fn an_update_lists_unknown_paths_and_invalid_values_together() {
        let update = TopicConfig {
            retention_ms: Some(0),
            ..TopicConfig::default()
        };
        let mask = ["retention_ms", "config.retention_ms", ""].map(str::to_owned);
        let violations = merge(&TopicConfig::default(), &update, &mask).unwrap_err();
        assert_eq!(
            fields(&violations),
            ["update_mask", "update_mask", "config.retention_ms"]
        );
    }

    #[test]
    fn not_every_path_of_an_absurd_mask_is_listed() {
        let mask = vec![String::new(); 10_000];
        let nothing = TopicConfig::default();
        let violations = merge(&nothing, &nothing, &mask).unwrap_err();
        assert_eq!(violations.len(), UNKNOWN_PATHS_MAX);
    }

    #[test]
    fn every_field_of_the_contract_can_be_updated_alone() {
        let update = TopicConfig {
            retention_ms: Some(1),
            retention_bytes: Some(2),
            record_bytes_max: Some(3),
            batch_bytes_max: Some(4),
        };
        let mut merged = TopicConfig::default();
        for (field, count) in FIELDS.iter().zip(1..) {
            merged = merge(&merged, &update, &[(*field).to_owned()]).unwrap();
            let set = [
                merged.retention_ms,
                merged.retention_bytes,
                merged.record_bytes_max.map(i64::from),
                merged.batch_bytes_max.map(i64::from),
            ];
            assert_eq!(set.iter().flatten().count(), count, "{field}");
        }
        assert_eq!(merged, update);
    }
}
