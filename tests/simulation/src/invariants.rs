//! What must hold at every moment, whatever fails: Raft's safety, checked on what each member says and stores.
//!
//! - An entry is known by its id: one id has one content and one entry in front of it, in all logs (log matching).
//! - What one member says is committed at an index is committed there for ever, on all (state machine safety).
//! - Who is elected has everything that was committed in earlier terms (leader completeness).
//! - Only who an elected vote names leads (election safety; openraft tells leaders of one term apart by their node).
//! - Vote, commit and applied never go back; a vote not even over a crash.
//! - `purged <= snapshot <= applied <= committed <= last`.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use kelda_server::{
    consensus::Observation,
    storage::EntryId,
    types::{GroupId, LogIndex, NodeId},
};

/// Most violations that are kept: one is enough to fail.
const FOUND_MAX: usize = 20;

/// A member of a group, in one life of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    /// Counts the lives of the node.
    pub(crate) life: u64,
}

impl Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} g{}", self.node, self.life, self.group)
    }
}

/// An entry as it was found in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: EntryId,
    /// Stands for everything in it.
    pub(crate) content: u64,
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Invariants {
    groups: BTreeMap<GroupId, History>,
    members: BTreeMap<Member, Seen>,
    /// What did not hold.
    pub(crate) found: Vec<String>,
}

#[derive(Default)]
struct History {
    /// By index.
    committed: BTreeMap<u64, Committed>,
    /// Content of each entry that was ever in a log, and the entry in front of it where that was seen.
    entries: BTreeMap<EntryId, (u64, Option<EntryId>)>,
    /// The highest vote that each node is known to have stored.
    votes: BTreeMap<NodeId, (u64, NodeId, bool)>,
}

/// An entry that a member has called committed.
#[derive(Clone, Copy, Debug)]
struct Committed {
    entry: Identity,
    /// Lowest term in which a member called it that: leaders of later terms must have it. An entry may be much older.
    term: u64,
}

/// What one member has said.
#[derive(Default)]
struct Seen {
    committed: Option<EntryId>,
    applied: Option<EntryId>,
    purged: Option<EntryId>,
    /// Up to here its log was compared with what is committed.
    compared: u64,
    /// The term of the election that it won last.
    led: Option<u64>,
}

impl Invariants {
    /// Notes what does not hold.
    pub(crate) fn violation(&mut self, text: String) {
        if self.found.len() < FOUND_MAX {
            self.found.push(text);
        }
    }

    /// Entries that are known to be committed, over all groups.
    pub(crate) fn committed(&self) -> u64 {
        let groups = self.groups.values();
        groups.map(|history| history.committed.len() as u64).sum()
    }

    /// Checks what a member says. Returns the index from which on its log is to be looked at.
    pub(crate) fn observe(&mut self, member: Member, now: &Observation) -> u64 {
        let mut wrong = self.order(member, now);
        let history = self.groups.entry(member.group).or_default();
        let seen = self.members.entry(member).or_default();
        let vote = (now.term, now.candidate, now.elected);
        let stored = history.votes.entry(member.node).or_insert(vote);
        if vote < *stored {
            wrong.push(format!("its vote went back from {stored:?}"));
        }
        *stored = vote.max(*stored);
        if let Some(reason) = &now.stopped {
            wrong.push(format!("it stopped by itself: {reason}"));
        }
        if now.is_leader {
            if now.candidate != member.node {
                wrong.push("it leads, and its vote is for another".to_owned());
            }
            if seen.led != Some(now.term) {
                seen.led = Some(now.term);
                // A new leader's log is looked at from its start.
                seen.compared = 0;
                let earlier = history.committed.values().rev();
                let mut earlier = earlier.filter(|committed| committed.term < now.term);
                let needed = earlier.next().map(|committed| committed.entry.id.index);
                if needed > now.last {
                    wrong.push(format!("it leads, and {needed:?} is committed"));
                }
            }
        }
        let purged = now.purged.map_or(0, |purged| purged.index.0 + 1);
        let from = purged.max(seen.compared);
        for what in wrong {
            self.violation(format!("{member}: {what}: {now:?}"));
        }
        from
    }

    /// What never goes back, and what never passes the other.
    fn order(&mut self, member: Member, now: &Observation) -> Vec<String> {
        let mut wrong = Vec::new();
        let seen = self.members.entry(member).or_default();
        let backward = [
            ("commit", seen.committed, now.committed),
            ("applied", seen.applied, now.applied),
            ("purged", seen.purged, now.purged),
        ];
        for (what, before, after) in backward {
            if after < before {
                wrong.push(format!("{what} went back from {before:?}"));
            }
        }
        seen.committed = now.committed;
        seen.applied = now.applied;
        seen.purged = now.purged;
        let index = |id: Option<EntryId>| id.map(|id| id.index);
        let places = [
            ("purged", index(now.purged)),
            ("snapshot", index(now.snapshot)),
            ("applied", index(now.applied)),
            ("committed", index(now.committed)),
            ("last", now.last),
        ];
        for pair in places.windows(2) {
            if pair[0].1 > pair[1].1 {
                wrong.push(format!("{} is behind {}", pair[0].0, pair[1].0));
            }
        }
        wrong
    }

    /// Checks entries that lie in the log of a member behind each other.
    pub(crate) fn log(&mut self, member: Member, said: &Observation, entries: &[Identity]) {
        let mut wrong = Vec::new();
        let history = self.groups.entry(member.group).or_default();
        let seen = self.members.entry(member).or_default();
        // What is applied, as openraft may call committed what its follower is just about to store.
        let committed = said.applied.map(|id| id.index);
        let mut previous = None;
        for entry in entries {
            wrong.extend(history.matches(*entry, previous));
            previous = Some(entry.id);
            let index = entry.id.index;
            let is_committed = Some(index) <= committed;
            if let Some(known) = history.committed.get_mut(&index.0) {
                // A follower's end may differ, a later leader's log and what a member calls committed may not.
                let decides = is_committed || said.is_leader && known.term < said.term;
                if decides && known.entry != *entry {
                    wrong.push(format!("{known:?} is committed, here is {entry:?}"));
                }
                if is_committed {
                    known.term = known.term.min(said.term);
                }
            } else if is_committed {
                let (entry, term) = (*entry, said.term);
                history.committed.insert(index.0, Committed { entry, term });
            }
            if Some(index) <= committed {
                // The last one is read again: its id goes in front of the next.
                seen.compared = seen.compared.max(index.0);
            }
        }
        for what in wrong {
            self.violation(format!("{member}: {what}: {said:?}"));
        }
    }
}

impl History {
    /// Checks that an entry is the one that its id says, with the same in front of it.
    fn matches(&mut self, entry: Identity, previous: Option<EntryId>) -> Option<String> {
        let first = (entry.content, previous);
        let known = self.entries.entry(entry.id).or_insert(first);
        if known.0 != entry.content {
            return Some(format!("{:?} has two contents", entry.id));
        }
        match (known.1, previous) {
            (Some(known), Some(previous)) if known != previous => Some(format!(
                "in front of {:?} is {previous:?}, elsewhere {known:?}",
                entry.id
            )),
            (None, Some(_)) => {
                known.1 = previous;
                None
            }
            _ => None,
        }
    }
}

/// Indexes for messages.
impl Invariants {
    /// Whether everything that is committed in a group was applied by a member that says so.
    pub(crate) fn has_all(&self, group: GroupId, said: &Observation) -> bool {
        let history = self.groups.get(&group);
        let last = history.and_then(|history| history.committed.keys().next_back());
        said.applied.map(|id| id.index) >= last.copied().map(LogIndex)
    }
}
