//! What a node tells of itself, and the bytes that carry it.

use bytes::Bytes;
use kelda_proto::internal::v1 as proto;
use prost::Message as _;

use crate::types::NodeId;

/// Most bytes of an encoded announcement: memberlist panics above.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 512;

/// Version of the rules of gossip that this software follows.
pub(super) const PROTOCOL: u32 = 1;

/// What a node tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Its cluster, empty until it has joined one.
    pub cluster_id: String,
    /// Its id, 0 until it has joined.
    pub node_id: NodeId,
    /// Where clients reach it: host and port.
    pub client_address: String,
    /// Where nodes reach it: host and port.
    pub raft_address: String,
    /// Its rack, empty if there are none.
    pub rack: String,
    /// Version of its software.
    pub version: String,
    /// How it wants to found a cluster with others, while it has none.
    pub founding: Option<Founding>,
}

/// What nodes that found a cluster together tell each other. Of all that is heard by gossip only this decides about
/// more than a hint, so it is made to be right however old it is when it is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// How many found the cluster.
    pub expect: u32,
    /// Random number of this start of the node. Never 0.
    pub start: u64,
    /// The start of the node that may found as far as this one is asked, 0: none yet. It was said without a cluster, and
    /// after that start.
    pub consent: u64,
}

/// Why a node can not tell this of itself.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Together it is too long.
    #[error("the node tells {bytes} bytes of itself, and gossip carries {max}: shorten {flag}")]
    TooLong {
        /// The flag that takes the most.
        flag: &'static str,
        /// Bytes that it would take.
        bytes: usize,
        /// Bytes that there are.
        max: usize,
    },
    /// A field has a character that has no place in it.
    #[error("{flag} must be printable text without blanks")]
    NotPrintable {
        /// The flag that sets it.
        flag: &'static str,
    },
}

/// An announcement as it came by gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) announcement: Announcement,
    pub(super) leaving: bool,
}

/// Why bytes are not an announcement that this software understands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Malformed,
    Protocol(u32),
}

impl Announcement {
    /// Fields of text, with the flags that set them.
    fn texts(&self) -> [(&'static str, &str); 5] {
        [
            ("--cluster-id", &self.cluster_id),
            ("--address", &self.client_address),
            ("the address of --cluster-port", &self.raft_address),
            ("--rack", &self.rack),
            ("the version", &self.version),
        ]
    }

    /// The bytes of it, or which flag must change.
    pub(super) fn encode(&self, leaving: bool) -> Result<Bytes, Error> {
        if let Some((flag, _)) = self.texts().into_iter().find(|(_, text)| !is_plain(text)) {
            return Err(Error::NotPrintable { flag });
        }
        let mut message = proto::Announcement {
            protocol: PROTOCOL,
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.0,
            client_address: self.client_address.clone(),
            raft_address: self.raft_address.clone(),
            rack: self.rack.clone(),
            version: self.version.clone(),
            founding: self.founding.map(|founding| proto::Founding {
                expect: founding.expect,
                start: founding.start,
                consent: founding.consent,
            }),
            // Measured as if it were leaving, or a node could not say so when the time comes.
            leaving: true,
        };
        let bytes = message.encoded_len();
        if bytes > ANNOUNCEMENT_BYTES_MAX {
            let longest = self.texts().into_iter().max_by_key(|(_, text)| text.len());
            return Err(Error::TooLong {
                flag: longest.map_or("", |(flag, _)| flag),
                bytes,
                max: ANNOUNCEMENT_BYTES_MAX,
            });
        }
        message.leaving = leaving;
        Ok(message.encode_to_vec().into())
    }
}

impl Announced {
    /// Reads what another node tells of itself.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > ANNOUNCEMENT_BYTES_MAX {
            return Err(Unreadable::Malformed);
        }
        let message = proto::Announcement::decode(bytes).map_err(|_| Unreadable::Malformed)?;
        if message.protocol != PROTOCOL {
            return Err(Unreadable::Protocol(message.protocol));
        }
        let announcement = Announcement {
            cluster_id: message.cluster_id,
            node_id: NodeId(message.node_id),
            client_address: message.client_address,
            raft_address: message.raft_address,
            rack: message.rack,
            version: message.version,
            founding: message.founding.map(|founding| Founding {
                expect: founding.expect,
                start: founding.start,
                consent: founding.consent,
            }),
        };
        // These end up in the log and in front of people.
        if announcement.texts().iter().any(|(_, text)| !is_plain(text)) {
            return Err(Unreadable::Malformed);
        }
        Ok(Self {
            announcement,
            leaving: message.leaving,
        })
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announcement(rack: &str) -> Announcement {
        Announcement {
            cluster_id: "c".repeat(32),
            node_id: NodeId(7),
            client_address: "10.0.0.1:8080".to_owned(),
            raft_address: "10.0.0.1:8946".to_owned(),
            rack: rack.to_owned(),
            version: "0.1.0".to_owned(),
            founding: None,
        }
    }

    #[test]
    fn what_is_too_long_names_the_flag_to_change() {
        let fits = announcement("").encode(true).expect("short").len();
        let longest = "r".repeat(ANNOUNCEMENT_BYTES_MAX - fits - 3);
        for leaving in [false, true] {
            let bytes = announcement(&longest).encode(leaving).expect("it fits");
            assert!(bytes.len() <= ANNOUNCEMENT_BYTES_MAX);
        }
        let error = announcement(&format!("{longest}r")).encode(false);
        let error = error.expect_err("too long");
        assert_eq!(
            error,
            Error::TooLong {
                flag: "--rack",
                bytes: 513,
                max: 512
            }
        );
        assert!(error.to_string().contains("shorten --rack"), "{error}");
    }

    #[test]
    fn text_that_would_spoil_a_log_line_is_not_told() {
        let error = announcement("a\nb")
            .encode(false)
            .expect_err("a line break");
        assert_eq!(error, Error::NotPrintable { flag: "--rack" });
    }

    #[test]
    fn another_protocol_is_told_from_noise() {
        let mut message = proto::Announcement {
            protocol: PROTOCOL + 1,
            ..proto::Announcement::default()
        };
        let unreadable = |message: &proto::Announcement| {
            Announced::decode(&message.encode_to_vec()).expect_err("unreadable")
        };
        assert_eq!(unreadable(&message), Unreadable::Protocol(PROTOCOL + 1));
        message.protocol = PROTOCOL;
        message.rack = "a b".to_owned();
        assert_eq!(unreadable(&message), Unreadable::Malformed);
        assert_eq!(Announced::decode(&[0xff]), Err(Unreadable::Malformed));
        assert_eq!(Announced::decode(&[]), Err(Unreadable::Protocol(0)));
    }

    proptest! {
        #[test]
        fn what_is_told_is_heard(
            texts in proptest::array::uniform5("[!-~]{0,60}"),
            node_id: u64,
            leaving: bool,
            founding: Option<(u32, u64, u64)>,
        ) {
            let [cluster_id, client_address, raft_address, rack, version] = texts;
            let node_id = NodeId(node_id);
            let founding = founding.map(|(expect, start, consent)| Founding { expect, start, consent });
            let announcement = Announcement {
                cluster_id, node_id, client_address, raft_address, rack, version, founding,
            };
            let bytes = announcement.encode(leaving).expect("short and printable");
            prop_assert_eq!(Announced::decode(&bytes), Ok(Announced { announcement, leaving }));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Announced::decode(&bytes);
        }
    }
}
