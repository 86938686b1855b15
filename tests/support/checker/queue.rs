//! Counts of what was sent and what came out, as for a queue.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{
    facts::Facts,
    history::{Outcome, Value},
};

/// Acknowledged values that are not there after all, by where they are among the values that one producer sent to one
/// partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Before the first that is there: the log has started over.
    pub(crate) prefix: usize,
    /// Between two that are there.
    pub(crate) middle: usize,
    /// Behind the last that is there.
    pub(crate) postfix: usize,
}

/// Counts of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Sent, with whatever outcome.
    pub(crate) attempts: usize,
    /// Acknowledged.
    pub(crate) published: usize,
    /// Read, each counted once.
    pub(crate) read: usize,
    /// Sent and read.
    pub(crate) ok: usize,
    /// Read but never sent.
    pub(crate) unexpected: usize,
    /// Read though not acknowledged.
    pub(crate) recovered: usize,
    pub(crate) lost: Losses,
}

impl Queue {
    pub(super) fn json(&self) -> Json {
        let Losses {
            prefix,
            middle,
            postfix,
        } = self.lost;
        json!({
            "attempts": self.attempts,
            "published": self.published,
            "read": self.read,
            "ok": self.ok,
            "unexpected": self.unexpected,
            "recovered": self.recovered,
            "lost": { "prefix": prefix, "middle": middle, "postfix": postfix },
        })
    }
}

/// Counts the values of a history.
pub(super) fn count(facts: &Facts<'_>) -> Queue {
    let mut queue = Queue {
        attempts: facts.writers.len(),
        ..Queue::default()
    };
    // Lowest and highest number that is there, of each partition and producer.
    let mut bounds: BTreeMap<(i32, u32), (u32, u32)> = BTreeMap::new();
    for (partition, log) in &facts.logs {
        for (value, _) in log.reads() {
            queue.read += 1;
            let Some(writer) = facts.writer(*partition, value) else {
                queue.unexpected += 1;
                continue;
            };
            queue.ok += 1;
            let acknowledged = facts.operation(writer.operation).outcome == Outcome::Ok;
            queue.recovered += usize::from(!acknowledged);
            if !facts.is_kept(*partition, value) {
                continue;
            }
            let Value { producer, number } = value;
            let bounds = bounds.entry((*partition, producer));
            let (first, last) = bounds.or_insert((number, number));
            *first = number.min(*first);
            *last = number.max(*last);
        }
    }
    for (value, writer) in &facts.writers {
        if facts.operation(writer.operation).outcome != Outcome::Ok {
            continue;
        }
        queue.published += 1;
        if facts.is_kept(writer.partition, *value) {
            continue;
        }
        match bounds.get(&(writer.partition, value.producer)) {
            Some((first, _)) if value.number < *first => queue.lost.prefix += 1,
            Some((_, last)) if value.number < *last => queue.lost.middle += 1,
            _ => queue.lost.postfix += 1,
        }
    }
    queue
}
