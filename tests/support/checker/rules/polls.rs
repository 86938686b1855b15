//! A reader sees everything once, in order.

use std::collections::HashMap;

use super::super::{
    facts::Facts,
    history::{Kind, Outcome, Value},
    log::Log,
    report::{Place, Rule, Violation},
};

pub(crate) fn check(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    // Where each client is in each partition.
    let mut positions: HashMap<(u32, i32), Place> = HashMap::new();
    for (at, operation) in facts.history.operations().iter().enumerate() {
        let client = operation.client;
        match &operation.kind {
            Kind::Crash => positions.retain(|(owner, _), _| *owner != client),
            Kind::Assign { partition } => {
                positions.remove(&(client, *partition));
            }
            Kind::Poll { partition, records } if operation.outcome == Outcome::Ok => {
                let place = |record: &(i64, Value)| Place {
                    value: record.1,
                    offset: Some(record.0),
                    operation: at,
                };
                let (Some(first), Some(last)) = (records.first(), records.last()) else {
                    continue;
                };
                let log = &facts.logs[partition];
                let mut found = |rules, pair| {
                    violations.extend(judge(log, rules, pair).map(|rule| Violation {
                        rule,
                        partition: *partition,
                        places: pair.to_vec(),
                    }));
                };
                let before = positions.insert((client, *partition), place(last));
                if let Some(before) = before {
                    let rules = (Rule::NonmonotonicPoll, Rule::PollSkip);
                    found(rules, [before, place(first)]);
                }
                for pair in records.windows(2) {
                    let rules = (Rule::InternalNonmonotonicPoll, Rule::InternalPollSkip);
                    found(rules, [place(&pair[0]), place(&pair[1])]);
                }
            }
            Kind::Poll { .. } | Kind::Send { .. } | Kind::Drain { .. } => {}
        }
    }
}

/// The rule that is broken if the second place follows the first, of the rules against going back and leaving out.
fn judge(log: &Log, rules: (Rule, Rule), pair: [Place; 2]) -> Option<Rule> {
    let [before, after] = pair.map(|place| place.offset.and_then(|offset| log.index(offset)));
    match after? - before? {
        ..=0 => Some(rules.0),
        1 => None,
        2.. => Some(rules.1),
    }
}
