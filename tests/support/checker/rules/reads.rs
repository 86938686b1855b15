//! Only what was sent and may have been committed is read.

use super::super::{
    facts::Facts,
    history::Outcome,
    report::{Place, Rule, Violation},
};

pub(crate) fn check(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    for (partition, log) in &facts.logs {
        let read = |value, operation| Place {
            value,
            offset: log.offsets_of(value).next(),
            operation,
        };
        let mut polls: Vec<_> = log.first_polls().collect();
        polls.sort_unstable();
        for (value, poll) in polls {
            let completed = facts.operation(poll).completed.unwrap_or(u64::MAX);
            let writer = facts.writer(*partition, value);
            let begun = |at: usize| facts.operation(at).invoked < completed;
            if writer.is_some_and(|writer| begun(writer.operation)) {
                continue;
            }
            let places = writer.map(|writer| facts.sent(value, writer));
            violations.push(Violation {
                rule: Rule::PrecommittedRead,
                partition: *partition,
                places: [Some(read(value, poll)), places]
                    .into_iter()
                    .flatten()
                    .collect(),
            });
        }
        let mut reads: Vec<_> = log.reads().collect();
        reads.sort_unstable();
        for (value, poll) in reads {
            let Some(writer) = facts.writer(*partition, value) else {
                continue;
            };
            if facts.operation(writer.operation).outcome == Outcome::Fail {
                violations.push(Violation {
                    rule: Rule::AbortedRead,
                    partition: *partition,
                    places: vec![read(value, poll), facts.sent(value, writer)],
                });
            }
        }
    }
}
