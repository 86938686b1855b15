//! Tests of the configuration.

use super::*;

#[derive(Serialize)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[test]
fn every_field_can_be_set_from_the_environment() {
    let value = serde_json::to_value(Config {
        cluster_id: Some(String::new()),
        gossip_key_file: Some(PathBuf::new()),
        ..Config::default()
    });
    let value = value.expect("the configuration is plain data");
    let mut names: Vec<_> = value
        .as_object()
        .expect("a struct")
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    let mut fields = FIELDS;
    fields.sort_unstable();
    assert_eq!(names, fields);
}

fn load(file: &Path, port: Option<u16>) -> Result<Config, Error> {
    Config::load(Some(file), &Flags { port }, &Config::default())
}

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kelda.toml");
    std::fs::write(&file, "port = 1\nnode_id = \"n2\"\n").expect("written");
    let config = load(&file, Some(2)).expect("valid");
    assert_eq!((config.port, config.node_id.as_str()), (2, "n2"));
    let config = load(&file, None).expect("valid");
    assert_eq!(config.port, 1);
}

#[test]
fn an_unknown_key_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kelda.toml");
    std::fs::write(&file, "prot = 1\n").expect("written");
    let error = load(&file, None).expect_err("a mistake");
    assert!(error.to_string().contains("prot"), "{error}");
}

#[test]
fn all_mistakes_are_listed_at_once() {
    let config = Config {
        node_id: String::new(),
        address: IpAddr::from([0, 0, 0, 0]),
        log: "loud".to_owned(),
        ..Config::default()
    };
    let error = config.validate().expect_err("mistakes").to_string();
    for flag in ["--node-id", "--insecure", "--log"] {
        assert!(error.contains(flag), "{flag} in {error}");
    }
}

fn mistakes(config: &Config) -> String {
    match config.validate() {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn nodes_that_found_together_name_each_other_and_nobody_else() {
    let config = |expect, seeds: &[&str]| Config {
        bootstrap_expect: expect,
        seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        ..Config::of_cluster()
    };
    for seeds in [&["b:1", "c:1"][..], &["a:1", "b:1", "c:1"]] {
        assert_eq!(mistakes(&config(3, seeds)), "");
    }
    for seeds in [
        &[][..],
        &["b:1"],
        &["a:1", "b:1", "c:1", "d:1"],
        &["b:1", "b:1"],
    ] {
        let mistakes = mistakes(&config(3, seeds));
        assert!(mistakes.contains("--seeds"), "{seeds:?}: {mistakes}");
    }
    assert_eq!(mistakes(&config(1, &[])), "");
    let alone = Config {
        cluster_port: 0,
        ..config(1, &[])
    };
    assert!(mistakes(&alone).contains("--cluster-port"));
}

#[test]
fn gossip_is_checked_as_a_whole() {
    let config = Config {
        gossip_interval_ms: 0,
        gossip_probe_interval_ms: 1000,
        gossip_probe_timeout_ms: 1000,
        gossip_nodes: 0,
        gossip_packet_bytes: 100,
        gossip_key_file: Some(PathBuf::from("keys")),
        ..Config::default()
    };
    let mistakes = mistakes(&config);
    for flag in [
        "--gossip-interval",
        "--gossip-probe-timeout must be below --gossip-probe-interval",
        "--gossip-nodes",
        "--gossip-packet-bytes",
        "--gossip-key-file",
    ] {
        assert!(mistakes.contains(flag), "{flag} in {mistakes}");
    }
}

#[test]
fn the_cluster_address_is_found_back_from_the_raft_address() {
    let raft = raft_address("[::1]:7946").expect("host:port");
    assert_eq!(raft, "[::1]:8946");
    assert_eq!(cluster_address(&raft).as_deref(), Some("[::1]:7946"));
    assert_eq!(cluster_address("a:999"), None);
}
