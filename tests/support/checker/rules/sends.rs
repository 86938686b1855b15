//! A producer's sends keep their order, and the values of one send stay together.

use std::collections::HashMap;

use super::super::{
    facts::Facts,
    history::{Kind, Outcome},
    report::{Place, Rule, Violation},
};

pub(crate) fn check(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    // The last place that each client is known to have written in each partition.
    let mut positions: HashMap<(u32, i32), Place> = HashMap::new();
    for operation in facts.history.operations() {
        let client = operation.client;
        let (partition, values) = match &operation.kind {
            Kind::Crash => {
                positions.retain(|(owner, _), _| *owner != client);
                continue;
            }
            Kind::Send { partition, values } if operation.outcome != Outcome::Fail => {
                (*partition, values)
            }
            _ => continue,
        };
        let log = &facts.logs[&partition];
        let index = |place: &Place| place.offset.and_then(|offset| log.index(offset));
        let mut found = |rule, before, after| {
            violations.push(Violation {
                rule,
                partition,
                places: vec![before, after],
            });
        };
        let places: Vec<Place> = values
            .iter()
            .filter_map(|(value, _)| Some(facts.sent(*value, facts.writers.get(value)?)))
            .collect();
        for pair in places.windows(2) {
            let (Some(before), Some(after)) = (index(&pair[0]), index(&pair[1])) else {
                continue;
            };
            match after - before {
                ..=0 => found(Rule::InternalNonmonotonicSend, pair[0], pair[1]),
                1 => {}
                2.. => found(Rule::SplitBatch, pair[0], pair[1]),
            }
        }
        let mut seen = places.iter().filter(|place| index(place).is_some());
        let Some(first) = seen.next() else { continue };
        let last = seen.next_back().unwrap_or(first);
        if let Some(before) = positions.insert((client, partition), *last)
            && index(first) <= index(&before)
        {
            found(Rule::NonmonotonicSend, before, *first);
        }
    }
}
