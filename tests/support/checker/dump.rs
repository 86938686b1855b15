//! Compares what replicas hold, without asking clients.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

/// The committed log of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    /// Who holds it.
    pub(crate) replica: String,
    pub(crate) partition: i32,
    /// Oldest offset that is there.
    pub(crate) start: i64,
    /// Offset behind the newest record that this replica knows to be committed.
    pub(crate) commit: i64,
    /// Stored bytes, by the offset at which they begin.
    pub(crate) entries: BTreeMap<i64, Vec<u8>>,
}

/// Two replicas that differ where both must be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Divergence {
    pub(crate) partition: i32,
    /// First offset at which they differ.
    pub(crate) offset: i64,
    /// Both replicas, and what they hold there; nothing if they hold nothing.
    pub(crate) replicas: [(String, Option<Vec<u8>>); 2],
}

impl Display for Divergence {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            partition, offset, ..
        } = self;
        write!(
            formatter,
            "replicas of partition {partition} differ at {offset}:"
        )?;
        for (replica, bytes) in &self.replicas {
            match bytes {
                Some(bytes) => {
                    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
                    write!(formatter, " {replica} has {} bytes {text:?};", bytes.len())?;
                }
                None => write!(formatter, " {replica} has nothing;")?,
            }
        }
        Ok(())
    }
}

/// Finds the first difference of any two replicas of a partition, in what both say is there and committed.
pub(crate) fn divergences(dumps: &[Dump]) -> Vec<Divergence> {
    let mut found = Vec::new();
    for (at, one) in dumps.iter().enumerate() {
        for other in &dumps[at + 1..] {
            if one.partition == other.partition {
                found.extend(divergence(one, other));
            }
        }
    }
    found
}

/// Asserts that the replicas of each partition are equal as far as both have committed, and that they have committed
/// something in common.
pub(crate) fn assert_equal(dumps: &[Dump]) {
    let found: Vec<_> = divergences(dumps).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for dump in dumps {
        let others = dumps
            .iter()
            .filter(|other| other.partition == dump.partition);
        let is_compared = others.filter(|other| *other != dump).all(|other| {
            let from = dump.start.max(other.start);
            from < dump.commit.min(other.commit)
        });
        assert!(
            is_compared,
            "nothing in common: {} of {}",
            dump.partition, dump.replica
        );
    }
}

fn divergence(one: &Dump, other: &Dump) -> Option<Divergence> {
    // An entry may begin below the start and still be there in part on one of them.
    let from = one.start.max(other.start);
    let to = one.commit.min(other.commit);
    if from >= to {
        return None;
    }
    let mut offsets: Vec<i64> = [one, other]
        .iter()
        .flat_map(|dump| dump.entries.range(from..to).map(|(offset, _)| *offset))
        .collect();
    offsets.sort_unstable();
    let differs = |offset: &i64| one.entries.get(offset) != other.entries.get(offset);
    let offset = offsets.into_iter().find(differs)?;
    let holds = |dump: &Dump| (dump.replica.clone(), dump.entries.get(&offset).cloned());
    Some(Divergence {
        partition: one.partition,
        offset,
        replicas: [holds(one), holds(other)],
    })
}
