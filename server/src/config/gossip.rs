//! The configuration of gossip, and its keys.

use std::{
    fs::File,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Config, Error};
use crate::membership::{self, Key};

/// Keys of a file: the one that is used, and those that it replaces or that replace it.
const KEYS_MAX: usize = 8;
/// Bytes of a file of keys that are read. Far more than the keys take, so that there is room for remarks.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

impl Config {
    /// How this node takes part in gossip, where others reach it at `ip`; reads the file of keys.
    pub(crate) fn gossip(&self, ip: IpAddr) -> Result<membership::Config, Error> {
        let keys = match &self.gossip_key_file {
            Some(file) => read_keys(file).map_err(|mistake| {
                let file = file.display();
                Error::Invalid(vec![format!("--gossip-key-file {file}: {mistake}")])
            })?,
            None => Vec::new(),
        };
        Ok(membership::Config {
            name: self.node_id.clone(),
            bind: SocketAddr::new(self.address, self.cluster_port),
            advertise: Some(SocketAddr::new(ip, self.cluster_port)),
            cluster_id: self.cluster_id.clone(),
            seeds: self.seeds.clone(),
            gossip_interval: Duration::from_millis(self.gossip_interval_ms),
            gossip_nodes: self.gossip_nodes,
            push_pull_interval: Duration::from_millis(self.gossip_push_pull_interval_ms),
            probe_interval: Duration::from_millis(self.gossip_probe_interval_ms),
            probe_timeout: Duration::from_millis(self.gossip_probe_timeout_ms),
            packet_bytes: self.gossip_packet_bytes,
            metadata_interval: Duration::from_millis(self.gossip_metadata_interval_ms),
            metadata_refresh: (self.gossip_metadata_refresh_ms > 0)
                .then(|| Duration::from_millis(self.gossip_metadata_refresh_ms)),
            keys,
            ..membership::Config::default()
        })
    }
}

/// What is wrong must be told without telling what the file says.
fn read_keys(file: &Path) -> Result<Vec<Key>, String> {
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut keys = Vec::new();
    for (number, line) in lines {
        let key = parse_key(line);
        keys.push(key.ok_or_else(|| format!("line {number} is not 32 bytes as base64 or hex"))?);
    }
    match keys.len() {
        0 => Err("it has no keys".to_owned()),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(format!("it has more than {KEYS_MAX} keys")),
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let bytes = if text.len() == 64 {
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            let is_hex = pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(pair, 16).ok())?
        });
        digits.collect::<Option<Vec<u8>>>()?
    } else {
        STANDARD.decode(text).ok()?
    };
    bytes.try_into().ok().map(Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<Key>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("keys");
        std::fs::write(&file, text).expect("written");
        read_keys(&file)
    }

    #[test]
    fn keys_are_base64_or_hex_and_the_first_comes_first() {
        let hex = "0A".repeat(32);
        let base64 = STANDARD.encode([7; 32]);
        let text = format!("# new\n{base64}\n\n  {hex}  \n");
        assert_eq!(keys(&text), Ok(vec![Key([7; 32]), Key([10; 32])]));
    }

    #[test]
    fn a_mistake_is_named_without_the_key() {
        let short = STANDARD.encode([7; 31]);
        for (text, part) in [
            (String::new(), "no keys"),
            (format!("# a\n{short}"), "line 2"),
            ("zz".repeat(32), "line 1"),
            (format!("{}\n", "0a".repeat(32)).repeat(9), "more than 8"),
        ] {
            let error = keys(&text).expect_err("a mistake");
            assert!(error.contains(part) && !error.contains(&short), "{error}");
        }
        assert!(read_keys(Path::new("/no/such/file")).is_err());
    }
}
