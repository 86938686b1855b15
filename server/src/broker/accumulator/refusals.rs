//! What the group refused, since this node does not lead it any more: it is handed on, with all that waits behind it.

use super::{End, Failure, Inner, Pending};
use crate::consensus::ProposeError;

/// Batches that were refused, while entries that were proposed with theirs are still on their way.
#[derive(Default)]
pub(super) struct Refusals {
    /// With the number of its entry.
    batches: Vec<(u64, Pending)>,
    error: Option<ProposeError>,
    /// Entries that were numbered.
    numbered: u64,
    /// Number of the last entry that was taken, or may have been.
    taken: Option<u64>,
}

impl Refusals {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Numbers an entry.
    pub(super) fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Takes note of how an entry ended.
    pub(super) fn note(&mut self, queue: &Inner, number: u64, end: End) {
        match end {
            End::Answered(gaps) => {
                self.taken = self.taken.max(Some(number));
                for (batch, gap) in gaps {
                    // What it lacks was refused, and comes in front of it again.
                    if batch.may_go_on() && self.holds_session_of(&batch) {
                        self.batches.push((number, batch));
                    } else {
                        batch.fail(Failure::Rejected(gap));
                    }
                }
            }
            End::Refused(batches, error) => {
                let (kept, failed): (Vec<_>, Vec<_>) =
                    batches.into_iter().partition(Pending::may_go_on);
                if !failed.is_empty() {
                    // The node that handed them on must not find one of them refused and a later one taken.
                    let behind = queue.queue().take_all(|it| !it.may_go_on());
                    let failed = failed.into_iter().chain(behind);
                    failed.for_each(|it| it.fail(Failure::Propose(error.clone())));
                }
                self.batches.extend(kept.into_iter().map(|it| (number, it)));
                self.error = Some(error);
            }
        }
    }

    fn holds_session_of(&self, batch: &Pending) -> bool {
        let id = session_of(batch);
        id.is_some() && self.batches.iter().any(|(_, it)| session_of(it) == id)
    }

    /// Leaves the numbers, which go on: what was taken counts only beside entries that were on their way with it.
    pub(super) fn take(&mut self) -> Self {
        let next = Self {
            numbered: self.numbered,
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    /// Hands on what may be, with all that waits, and fails the rest. Nothing else is on its way.
    pub(super) fn settle(self, queue: &Inner) {
        let Some(error) = self.error else { return };
        // Sequences keep the order of a session. Without one, a batch must not end up behind a later one that was
        // taken: it is the client's to decide whether it is still wanted.
        let (kept, failed): (Vec<_>, Vec<_>) = in_order(self.batches, self.taken)
            .partition(|(overtaken, batch)| batch.session.is_some() || !overtaken);
        let failure = Failure::Propose(error);
        let failed = failed.into_iter().map(|(_, batch)| batch);
        failed.for_each(|it| it.fail(failure.clone()));
        let kept: Vec<_> = kept.into_iter().map(|(_, batch)| batch).collect();
        let broker = kept.first().and_then(|batch| batch.broker.clone());
        if let Some(broker) = broker {
            let behind = || queue.queue().take_all(Pending::may_go_on);
            broker.forward_refused(&queue.key, kept, behind);
        }
    }
}

fn session_of(batch: &Pending) -> Option<&str> {
    batch.session.as_ref().map(|stamp| stamp.id.as_str())
}

/// The batches in the order in which they were proposed; whether an entry behind that of the batch was taken.
fn in_order<T>(mut batches: Vec<(u64, T)>, taken: Option<u64>) -> impl Iterator<Item = (bool, T)> {
    batches.sort_by_key(|(number, _)| *number);
    let batches = batches.into_iter();
    batches.map(move |(number, batch)| (Some(number) < taken, batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_in_order_again_and_known_as_overtaken() {
        // They end in any order.
        let entries = vec![(4, "d"), (1, "a"), (1, "b"), (3, "c")];
        let batches: Vec<_> = in_order(entries.clone(), Some(2)).collect();
        let expected = [(true, "a"), (true, "b"), (false, "c"), (false, "d")];
        assert_eq!(batches, expected);
        assert!(in_order(entries, None).all(|(overtaken, _)| !overtaken));
    }
}
