//! The verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter, Write as _},
};

use serde_json::{Value as Json, json};

use super::{
    history::{History, Kind, Outcome, Value},
    queue::Queue,
};

/// Most violations of one rule that a message lists.
const EXAMPLES_MAX: usize = 5;

/// What a log must never do. The index of an offset is its place among the offsets at which anything was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// A committed value below one that was read was never read. Committed: acknowledged, or sent together with
    /// one that was read.
    LostWrite,
    /// A committed value behind all that was read, or whose offset nobody knows, was never read.
    Unseen,
    /// A value was missing when its partition was drained, though it was read, and known to be committed before.
    Vanished,
    /// A value was seen at two offsets.
    Duplicate,
    /// Two values were seen at one offset.
    InconsistentOffsets,
    /// Nothing was ever seen at an offset between others: offsets have no gaps.
    OffsetGap,
    /// A value was read whose send certainly failed.
    AbortedRead,
    /// A value was read before its send began, or without any send to that partition. In a log without transactions
    /// this is all that can be read too early: any later read might be of a value that was just committed.
    PrecommittedRead,
    /// A client's poll began at or before the end of its poll before, with no assign between.
    NonmonotonicPoll,
    /// The same within one poll.
    InternalNonmonotonicPoll,
    /// A client's poll left out values behind its poll before, with no assign between.
    PollSkip,
    /// The same within one poll.
    InternalPollSkip,
    /// A client's send took effect before an earlier one.
    NonmonotonicSend,
    /// The same within one send.
    InternalNonmonotonicSend,
    /// Something else stands between the values of one send.
    SplitBatch,
}

impl Display for Rule {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LostWrite => "lost-write",
            Self::Unseen => "unseen",
            Self::Vanished => "vanished",
            Self::Duplicate => "duplicate",
            Self::InconsistentOffsets => "inconsistent-offsets",
            Self::OffsetGap => "offset-gap",
            Self::AbortedRead => "aborted-read",
            Self::PrecommittedRead => "precommitted-read",
            Self::NonmonotonicPoll => "nonmonotonic-poll",
            Self::InternalNonmonotonicPoll => "internal-nonmonotonic-poll",
            Self::PollSkip => "poll-skip",
            Self::InternalPollSkip => "internal-poll-skip",
            Self::NonmonotonicSend => "nonmonotonic-send",
            Self::InternalNonmonotonicSend => "internal-nonmonotonic-send",
            Self::SplitBatch => "split-batch",
        })
    }
}

/// A value, where it was seen, and which operation of the history shows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) value: Value,
    /// Nothing if nobody knows it.
    pub(crate) offset: Option<i64>,
    pub(crate) operation: usize,
}

/// A rule that was broken, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) partition: i32,
    pub(crate) places: Vec<Place>,
}

impl Display for Violation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in partition {}:", self.rule, self.partition)?;
        for (at, place) in self.places.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(formatter, "{comma} {}", place.value)?;
            if let Some(offset) = place.offset {
                write!(formatter, " at {offset}")?;
            }
            write!(formatter, " by #{}", place.operation)?;
        }
        Ok(())
    }
}

/// What the checker found.
pub(crate) struct Report {
    pub(crate) history: History,
    /// By rule.
    pub(crate) violations: Vec<Violation>,
    pub(crate) queue: Queue,
}

impl Report {
    pub(super) fn new(history: History, violations: Vec<Violation>, queue: Queue) -> Self {
        Self {
            history,
            violations,
            queue,
        }
    }

    /// The rules that were broken.
    pub(crate) fn rules(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|found| found.rule).collect()
    }

    /// Asserts that no rule was broken, and that there was something to judge.
    pub(crate) fn assert_valid(&self) {
        assert!(self.violations.is_empty(), "{self}");
        let judged = self.queue.published > 0 && self.queue.read > 0;
        assert!(judged, "nothing acknowledged or nothing read:\n{self}");
        let undrained = self.undrained();
        assert!(
            undrained.is_empty(),
            "partitions {undrained:?} are not drained:\n{self}"
        );
    }

    /// Partitions that were written to and whose last state nobody has read.
    fn undrained(&self) -> BTreeSet<i32> {
        let mut undrained = BTreeSet::new();
        for operation in self.history.operations() {
            match operation.kind {
                Kind::Send { partition, .. } => undrained.insert(partition),
                Kind::Drain { partition } => undrained.remove(&partition),
                _ => continue,
            };
        }
        undrained
    }

    /// Counts, for reports.
    pub(crate) fn json(&self) -> Json {
        let mut operations: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for operation in self.history.operations() {
            let kind = match operation.kind {
                Kind::Send { .. } => "send",
                Kind::Poll { .. } => "poll",
                Kind::Assign { .. } => "assign",
                Kind::Drain { .. } => "drain",
                Kind::Crash => "crash",
            };
            let outcome = match operation.outcome {
                Outcome::Ok => "ok",
                Outcome::Fail => "fail",
                Outcome::Info => "unknown",
            };
            let outcomes = operations.entry(kind).or_default();
            *outcomes.entry(outcome).or_default() += 1;
        }
        let violations: BTreeMap<String, usize> = self
            .by_rule()
            .map(|found| (found[0].rule.to_string(), found.len()))
            .collect();
        json!({
            "operations": operations,
            "values": self.queue.json(),
            "violations": violations,
            "valid": self.violations.is_empty(),
        })
    }

    fn by_rule(&self) -> impl Iterator<Item = &[Violation]> {
        self.violations
            .chunk_by(|one, other| one.rule == other.rule)
    }
}

impl Display for Report {
    /// Counts, some violations of each rule, and the operations that these name.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:#}", self.json())?;
        let mut named = BTreeSet::new();
        for found in self.by_rule() {
            for violation in found.iter().take(EXAMPLES_MAX) {
                writeln!(formatter, "{violation}")?;
                named.extend(violation.places.iter().map(|place| place.operation));
            }
            if found.len() > EXAMPLES_MAX {
                writeln!(formatter, "{} in all: {}", found[0].rule, found.len())?;
            }
        }
        let mut operations = String::new();
        for at in named {
            writeln!(operations, "#{at} {}", self.history.operations()[at])?;
        }
        formatter.write_str(&operations)
    }
}
