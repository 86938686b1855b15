//! What nodes must survive under load without losing anything: one list of faults, for the short run in the tests and
//! for the long run of `make chaos`.
//!
//! [`Kind`] is the list. A [`Stage`] is a cluster under load on which faults of it are injected one after the other;
//! [`Stage::finish`] judges what clients have seen, and compares the replicas.

#![allow(dead_code, unused_imports, reason = "both runs use some of it")]

mod cuts;
mod growth;
mod kills;
mod replicas;
mod restarts;
mod stage;

pub(crate) use stage::{Operations, Outcome, Stage};

use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The leader is killed with -9, and started again.
    KillLeader,
    /// All nodes are killed with -9 at once, and started again.
    KillAll,
    /// The leader is stopped between two instructions, and goes on later as if nothing had been.
    FreezeLeader,
    /// The leader and the others do not hear each other.
    CutLeader,
    /// A follower and the others do not hear each other.
    CutMinority,
    /// The others do not hear the leader.
    MuteLeader,
    /// The leader does not hear the others.
    DeafenLeader,
    /// All nodes are stopped in order and started again, one after the other.
    Roll,
    /// The leader is killed and loses its disk: it comes back as a new node.
    Wipe,
    /// A new node joins and gets replicas, is emptied, taken out of the cluster and stopped.
    Grow,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::KillLeader,
        Self::KillAll,
        Self::FreezeLeader,
        Self::CutLeader,
        Self::CutMinority,
        Self::MuteLeader,
        Self::DeafenLeader,
        Self::Roll,
        Self::Wipe,
        Self::Grow,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::KillAll => "kill-all",
            Self::FreezeLeader => "freeze-leader",
            Self::CutLeader => "cut-leader",
            Self::CutMinority => "cut-minority",
            Self::MuteLeader => "mute-leader",
            Self::DeafenLeader => "deafen-leader",
            Self::Roll => "roll",
            Self::Wipe => "wipe",
            Self::Grow => "grow",
        }
    }

    /// How often the long run injects it; the four kinds of cuts together 50 times.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::KillLeader => 100,
            Self::KillAll | Self::FreezeLeader => 20,
            Self::CutLeader => 17,
            Self::CutMinority | Self::MuteLeader | Self::DeafenLeader => 11,
            Self::Roll | Self::Grow => 10,
            Self::Wipe => 3,
        }
    }

    /// How long it lasts at least in the long run.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::FreezeLeader => Duration::from_secs(10),
            _ if self.is_cut() => Duration::from_secs(5),
            _ => Duration::ZERO,
        }
    }

    /// How often one cluster can stand it: a group of three that has lost a disk must not lose another.
    pub(crate) fn count_per_cluster(self) -> u32 {
        match self {
            Self::Wipe => 1,
            _ => 10,
        }
    }

    /// Whether nodes need networks of their own for it.
    pub(crate) fn is_cut(self) -> bool {
        matches!(
            self,
            Self::CutLeader | Self::CutMinority | Self::MuteLeader | Self::DeafenLeader
        )
    }

    async fn inject(self, stage: &mut Stage) {
        match self {
            Self::KillLeader => kills::leader(stage).await,
            Self::KillAll => kills::all(stage).await,
            Self::FreezeLeader => kills::freeze_leader(stage).await,
            Self::CutLeader => cuts::leader(stage).await,
            Self::CutMinority => cuts::minority(stage).await,
            Self::MuteLeader => cuts::mute_leader(stage).await,
            Self::DeafenLeader => cuts::deafen_leader(stage).await,
            Self::Roll => restarts::roll(stage).await,
            Self::Wipe => restarts::wipe(stage).await,
            Self::Grow => growth::grow_and_shrink(stage).await,
        }
    }
}
