//! One value at each offset, one offset for each value, no offset without a value.

use super::super::{
    facts::Facts,
    log::Entry,
    report::{Place, Rule, Violation},
};

pub(crate) fn check(facts: &Facts<'_>, violations: &mut Vec<Violation>) {
    for (partition, log) in &facts.logs {
        let mut found = |rule, places| {
            violations.push(Violation {
                rule,
                partition: *partition,
                places,
            });
        };
        let mut previous: Option<Place> = None;
        for (offset, entries) in log.entries() {
            if entries.len() > 1 {
                let places = entries.iter().map(|entry| place(offset, entry));
                found(Rule::InconsistentOffsets, places.collect());
            }
            let here = place(offset, &entries[0]);
            let gap = previous.filter(|before| before.offset != Some(offset - 1));
            if let Some(before) = gap {
                found(Rule::OffsetGap, vec![before, here]);
            }
            previous = Some(here);
        }
        let mut doubled: Vec<_> = log.values().filter(|(_, at)| at.len() > 1).collect();
        doubled.sort_unstable();
        for (value, offsets) in doubled {
            let places = offsets.iter().flat_map(|offset| {
                let entries = log.at(*offset).iter();
                entries
                    .filter(move |entry| entry.value == value)
                    .map(|entry| place(*offset, entry))
            });
            found(Rule::Duplicate, places.collect());
        }
    }
}

fn place(offset: i64, entry: &Entry) -> Place {
    Place {
        value: entry.value,
        offset: Some(offset),
        operation: entry.operation,
    }
}
