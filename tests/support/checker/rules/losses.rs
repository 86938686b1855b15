//! What is committed is read, and stays.

use super::super::{
    facts::Facts,
    report::{Place, Rule, Violation},
};

pub(crate) fn check(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    unread(facts, violations);
    vanished(facts, violations);
}

fn unread(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    for (partition, log) in &facts.logs {
        // First offsets for what was read and last ones for what was not: where values were seen more than once,
        // other rules are broken, but nothing is called lost that may be there.
        let first = |value| log.offsets_of(value).next();
        let bound = log.reads().filter_map(|(value, _)| first(value)).max();
        let mut missing: Vec<_> = facts
            .writers
            .iter()
            .filter(|(_, writer)| writer.partition == *partition && writer.committed)
            .filter(|(value, _)| !log.is_read(**value))
            .collect();
        missing.sort_unstable_by_key(|(value, _)| **value);
        for (value, writer) in missing {
            let last = log.offsets_of(*value).last();
            let is_below = last.is_some_and(|last| Some(last) <= bound);
            violations.push(Violation {
                rule: if is_below {
                    Rule::LostWrite
                } else {
                    Rule::Unseen
                },
                partition: *partition,
                places: vec![facts.sent(*value, writer)],
            });
        }
    }
}

fn vanished(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    for drain in &facts.drains {
        let partition = drain.partition;
        let Some(log) = facts.logs.get(&partition) else {
            continue;
        };
        let mut missing: Vec<_> = log
            .reads()
            .filter(|(value, _)| !drain.values.contains(value))
            .filter_map(|(value, poll)| {
                let writer = facts.writer(partition, value)?;
                let known = facts.is_known(value, writer, drain.began);
                (writer.committed && known).then_some((value, poll, writer))
            })
            .collect();
        missing.sort_unstable_by_key(|(value, ..)| *value);
        for (value, poll, writer) in missing {
            let sent = facts.sent(value, writer);
            let shown_by = |operation| Place { operation, ..sent };
            violations.push(Violation {
                rule: Rule::Vanished,
                partition,
                places: vec![sent, shown_by(poll), shown_by(drain.operation)],
            });
        }
    }
}
