//! Who is let in: what is heard of a node is taken only if that node is of this cluster, follows the same rules and
//! tells of itself what can be read. Whoever is not let in is logged once.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    announcement::{Announced, PROTOCOL, Unreadable},
    config::is_name,
};
use crate::telemetry::Metrics;

/// Most names that are kept, of the living and the dead: memory must not depend on what strangers send.
pub(super) const NAMES_MAX: usize = 1024;

/// Most strangers that are remembered as logged. There is no line for further ones.
const LOGGED_MAX: usize = 256;

/// Why what was heard of a node is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It is a node of another cluster.
    #[error("it is in cluster {theirs}, and this node is in cluster {ours}")]
    OtherCluster {
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// It follows other rules.
    #[error(
        "it speaks version {theirs} of the gossip protocol, and this node {PROTOCOL}: upgrade the older one"
    )]
    OtherProtocol {
        /// Its version.
        theirs: u32,
    },
    /// Its name is none.
    #[error("its name is not one of a node")]
    NotAName,
    /// What it tells of itself can not be read.
    #[error("what it tells of itself can not be read")]
    Malformed,
    /// There are too many names already.
    #[error("{NAMES_MAX} names are known already, and no more are kept")]
    Crowded,
}

/// What is heard of a node, for the gate to judge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'a> {
    pub(super) name: &'a str,
    pub(super) address: SocketAddr,
    pub(super) metadata: &'a [u8],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    me: String,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What this node tells of itself.
    own: Bytes,
    /// The cluster that this node belongs to.
    cluster: Option<String>,
    /// The cluster that it found while it belongs to none, and the name of its node; it must not mix two.
    found: Option<(String, String)>,
    names: HashSet<String>,
    logged: HashSet<(String, SocketAddr)>,
}

impl State {
    fn cluster(&self) -> Option<&str> {
        let found = self.found.as_ref().map(|(cluster, _)| cluster.as_str());
        self.cluster.as_deref().or(found)
    }

    /// The node that this one found its cluster by says now that it is of another one, or of none: it has lost its
    /// directory. Of its old cluster nothing is known any more.
    fn lose(&mut self, name: &str, metadata: &[u8]) {
        let is_it = |found: &(String, String)| found.1 == name;
        if self.cluster.is_none()
            && let Some(found) = self.found.take_if(|found| is_it(found))
            && Announced::decode(metadata).is_ok_and(|it| it.announcement.cluster_id == found.0)
        {
            self.found = Some(found);
        }
    }
}

impl Gate {
    pub(super) fn new(me: String, cluster: Option<String>, metrics: Arc<Metrics>) -> Self {
        let state = State {
            cluster: cluster.filter(|id| !id.is_empty()),
            ..State::default()
        };
        Self {
            me,
            metrics,
            state: Mutex::new(state),
        }
    }

    /// This node belongs to this cluster from now on. An empty id changes nothing.
    pub(super) fn belong(&self, cluster_id: &str) {
        if !cluster_id.is_empty() {
            self.state().cluster = Some(cluster_id.to_owned());
        }
    }

    /// This node tells this of itself from now on.
    pub(super) fn publish(&self, metadata: Bytes) {
        self.state().own = metadata;
    }

    /// What this node tells of itself.
    pub(super) fn own(&self) -> Bytes {
        self.state().own.clone()
    }

    /// Judges what is heard of a node, and remembers those that are let in.
    pub(super) fn admit(&self, heard: Heard<'_>) -> Result<Announced, Refusal> {
        let mut state = self.state();
        let is_me = heard.name == self.me && heard.metadata == state.own;
        state.lose(heard.name, heard.metadata);
        let judged = Self::judge(&state, heard, is_me);
        match &judged {
            Ok(announced) if !is_me => {
                let theirs = &announced.announcement.cluster_id;
                if state.cluster().is_none() && !theirs.is_empty() {
                    state.found = Some((theirs.clone(), heard.name.to_owned()));
                }
                if !state.names.contains(heard.name) {
                    state.names.insert(heard.name.to_owned());
                }
            }
            Ok(_) => {}
            Err(refusal) => self.refuse(&mut state, heard, refusal),
        }
        judged
    }

    /// Judges a node of a list without taking it in: a list with a stranger in it is a stranger's list.
    pub(super) fn inspect(&self, heard: Heard<'_>) -> Result<(), Refusal> {
        let mut state = self.state();
        let is_me = heard.name == self.me && heard.metadata == state.own;
        match Self::judge(&state, heard, is_me) {
            // A list may be long for good reasons, and each of its names is judged again.
            Ok(_) | Err(Refusal::Crowded) => Ok(()),
            Err(refusal) => {
                self.refuse(&mut state, heard, &refusal);
                Err(refusal)
            }
        }
    }

    fn judge(state: &State, heard: Heard<'_>, is_me: bool) -> Result<Announced, Refusal> {
        let announced =
            Announced::decode(heard.metadata).map_err(|unreadable| match unreadable {
                Unreadable::Malformed => Refusal::Malformed,
                Unreadable::Protocol(theirs) => Refusal::OtherProtocol { theirs },
            })?;
        if is_me {
            return Ok(announced);
        }
        if !is_name(heard.name) {
            return Err(Refusal::NotAName);
        }
        let theirs = &announced.announcement.cluster_id;
        if let Some(ours) = state.cluster()
            && !theirs.is_empty()
            && theirs != ours
        {
            return Err(Refusal::OtherCluster {
                theirs: theirs.clone(),
                ours: ours.to_owned(),
            });
        }
        if state.names.len() >= NAMES_MAX && !state.names.contains(heard.name) {
            return Err(Refusal::Crowded);
        }
        Ok(announced)
    }

    fn refuse(&self, state: &mut State, heard: Heard<'_>, refusal: &Refusal) {
        self.metrics.gossip().refused();
        let name = if is_name(heard.name) { heard.name } else { "?" };
        if state.logged.len() < LOGGED_MAX && state.logged.insert((name.to_owned(), heard.address))
        {
            let address = heard.address;
            tracing::warn!(node = name, %address, %refusal, "a node was refused in gossip");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::announcement::Announcement;

    fn gate(cluster: Option<&str>) -> Gate {
        let cluster = cluster.map(str::to_owned);
        Gate::new("me".to_owned(), cluster, Metrics::new("1"))
    }

    fn metadata(cluster_id: &str) -> Bytes {
        let announcement = Announcement {
            cluster_id: cluster_id.to_owned(),
            ..Announcement::default()
        };
        announcement.encode(false).expect("short")
    }

    fn heard<'a>(name: &'a str, metadata: &'a [u8]) -> Heard<'a> {
        Heard {
            name,
            address: SocketAddr::from(([1, 2, 3, 4], 5)),
            metadata,
        }
    }

    #[test]
    fn a_node_without_a_cluster_keeps_to_the_first_that_it_finds() {
        let gate = gate(None);
        gate.admit(heard("a", &metadata(""))).expect("unfounded");
        gate.admit(heard("b", &metadata("one"))).expect("the first");
        let error = gate.admit(heard("c", &metadata("two")));
        let other = Refusal::OtherCluster {
            theirs: "two".to_owned(),
            ours: "one".to_owned(),
        };
        assert_eq!(error, Err(other.clone()));
        assert_eq!(gate.inspect(heard("c", &metadata("two"))), Err(other));
        gate.belong("two");
        gate.admit(heard("c", &metadata("two")))
            .expect("what it belongs to counts for more than what it found");
        assert!(gate.admit(heard("b", &metadata("one"))).is_err());
    }

    #[test]
    fn a_founder_that_lost_its_cluster_may_found_another() {
        let gate = gate(None);
        gate.admit(heard("a", &metadata("one"))).expect("the first");
        gate.admit(heard("b", &metadata(""))).expect("unfounded");
        let refused = gate.admit(heard("b", &metadata("two")));
        assert!(refused.is_err(), "it says nothing of the first");
        gate.admit(heard("a", &metadata(""))).expect("wiped");
        gate.admit(heard("a", &metadata("two"))).expect("founded");
        assert!(gate.admit(heard("c", &metadata("one"))).is_err());
    }

    #[test]
    fn looking_at_a_list_adopts_nothing() {
        let gate = gate(None);
        gate.inspect(heard("a", &metadata("one"))).expect("fine");
        gate.admit(heard("b", &metadata("two"))).expect("the first");
    }

    #[test]
    fn a_node_is_never_a_stranger_to_itself() {
        let gate = gate(Some("one"));
        gate.publish(metadata("two"));
        gate.admit(heard("me", &metadata("two"))).expect("itself");
        assert!(gate.admit(heard("me", &metadata("three"))).is_err());
    }

    #[test]
    fn names_and_metadata_of_strangers_are_refused() {
        let gate = gate(None);
        for name in ["", "a b", "a\n", &"a".repeat(65)] {
            let refused = gate.admit(heard(name, &metadata("")));
            assert_eq!(refused, Err(Refusal::NotAName), "{name:?}");
        }
        let refused = gate.admit(heard("a", b"\xff\xff"));
        assert_eq!(refused, Err(Refusal::Malformed));
        let refused = gate.admit(heard("a", b""));
        assert_eq!(refused, Err(Refusal::OtherProtocol { theirs: 0 }));
    }

    #[test]
    fn there_is_room_for_so_many_names_and_so_many_log_lines() {
        let gate = gate(None);
        for number in 0..NAMES_MAX {
            gate.admit(heard(&format!("n{number}"), &metadata("")))
                .expect("room");
        }
        let refused = gate.admit(heard("more", &metadata("")));
        assert_eq!(refused, Err(Refusal::Crowded));
        gate.admit(heard("n0", &metadata(""))).expect("known");
        gate.inspect(heard("more", &metadata(""))).expect("no harm");
        for number in 0..2 * LOGGED_MAX {
            let _ = gate.admit(heard(&format!("s{number}"), b"\xff"));
        }
        assert_eq!(gate.state().logged.len(), LOGGED_MAX);
        let refused = format!("kelda_gossip_refused_total {}", 1 + 2 * LOGGED_MAX);
        assert!(gate.metrics.render().lines().any(|line| line == refused));
    }
}
