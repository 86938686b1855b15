//! What the environment says. Its values are text, and mean what the same text means behind a flag: a name stays a name
//! where it looks like a number, and a list is separated by commas.

use figment::{
    Error, Metadata, Profile, Provider,
    providers::Env,
    value::{Dict, Map, Value},
};

use super::FIELDS;

/// Prefix of the variables.
const PREFIX: &str = "KELDA_";

/// Fields that are text, whatever it looks like.
const TEXTS: [&str; 8] = [
    "node_id",
    "address",
    "rack",
    "data_dir",
    "cluster_id",
    "log",
    "log_format",
    "gossip_key_file",
];
/// Fields that are lists of texts.
const LISTS: [&str; 1] = ["seeds"];
/// Fields that are on or off.
const SWITCHES: [&str; 3] = ["ephemeral", "insecure", "look_while_asleep"];

/// The environment of this process.
pub(super) struct Environment(Env);

impl Environment {
    pub(super) fn new() -> Self {
        // Other programs of the project share the prefix; only the names of fields count.
        Self(Env::prefixed(PREFIX).filter(|key| FIELDS.iter().any(|field| *field == key)))
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let values = self.0.iter().map(|(key, text)| {
            let key = key.as_str().to_lowercase();
            let value = value(&key, text);
            (key, value)
        });
        Ok(Profile::Default.collect(values.collect()))
    }
}

fn value(key: &str, text: String) -> Value {
    // An address of IPv6 begins like one, but has its port behind.
    let is_array = text.trim().starts_with('[') && text.trim().ends_with(']');
    let switch = |text: &str| match text {
        "1" => Some(true),
        "0" | "" => Some(false),
        _ => None,
    };
    if TEXTS.contains(&key) {
        return Value::from(text);
    }
    if LISTS.contains(&key) && !is_array {
        let elements = text.split(',').map(str::trim);
        let elements = elements.filter(|element| !element.is_empty());
        return Value::from(elements.map(str::to_owned).collect::<Vec<_>>());
    }
    if SWITCHES.contains(&key)
        && let Some(on) = switch(&text)
    {
        return Value::from(on);
    }
    match text.parse() {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts_lists_have_commas_and_switches_are_numbers_too() {
        let read = |key, text: &str| value(key, text.to_owned());
        assert_eq!(read("node_id", "7"), Value::from("7"));
        assert_eq!(read("cluster_id", "12e4"), Value::from("12e4"));
        let seeds = Value::from(vec!["a:1".to_owned(), "b:2".to_owned()]);
        assert_eq!(read("seeds", "a:1, b:2,"), seeds);
        assert_eq!(read("seeds", r#"["a:1", "b:2"]"#), seeds);
        let seeds = Value::from(vec!["[::1]:7946".to_owned()]);
        assert_eq!(read("seeds", "[::1]:7946"), seeds);
        assert_eq!(read("ephemeral", "1"), Value::from(true));
        assert_eq!(read("ephemeral", "true"), Value::from(true));
        assert_eq!(read("look_while_asleep", "1"), Value::from(true));
        assert_eq!(read("port", "8081"), Value::from(8081_u16));
    }
}
