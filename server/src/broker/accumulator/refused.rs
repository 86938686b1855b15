//! What the group refused, since this node does not lead it any more: it is handed on, with all that waits behind it.

use super::{Ended, Failure, Inner, Pending};
use crate::consensus::ProposeError;

/// Entries that were refused, while others that were proposed with them are still on their way.
#[derive(Default)]
pub(super) struct Refused {
    entries: Vec<(u64, Vec<Pending>)>,
    error: Option<ProposeError>,
    /// Entries that were numbered.
    numbered: u64,
    /// Number of the last entry that was taken, or may have been.
    taken: Option<u64>,
}

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Numbers an entry.
    pub(super) fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Takes note of how an entry ended.
    pub(super) fn note(&mut self, number: u64, ended: Ended) {
        match ended {
            Ended::Answered => self.taken = self.taken.max(Some(number)),
            Ended::Refused(batches, error) => {
                self.entries.push((number, batches));
                self.error = Some(error);
            }
        }
    }

    /// Leaves the numbers and nothing else.
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
        let failure = Failure::Propose(error);
        let batches = in_order(self.entries, self.taken);
        // Sequences keep the order of a session. Without one, a batch must not end up behind a later one that was
        // taken: it is the client's to decide whether it is still wanted.
        let (kept, failed): (Vec<_>, Vec<_>) = batches.partition(|(overtaken, batch)| {
            batch.broker.is_some() && (batch.session.is_some() || !overtaken)
        });
        // The node that handed them on must not find one of them refused and a later one taken.
        let behind = queue.queue().take_all(false);
        let failed = failed.into_iter().map(|(_, batch)| batch).chain(behind);
        failed.for_each(|it| it.fail(failure.clone()));
        let kept: Vec<_> = kept.into_iter().map(|(_, batch)| batch).collect();
        let broker = kept.first().and_then(|batch| batch.broker.clone());
        if let Some(broker) = broker {
            broker.forward_refused(&queue.key, kept, || queue.queue().take_all(true));
        }
    }
}

/// All batches in the order in which they were proposed; whether an entry behind that of the batch was taken.
fn in_order<T>(
    mut entries: Vec<(u64, Vec<T>)>,
    taken: Option<u64>,
) -> impl Iterator<Item = (bool, T)> {
    entries.sort_unstable_by_key(|(number, _)| *number);
    entries.into_iter().flat_map(move |(number, batches)| {
        let overtaken = Some(number) < taken;
        batches.into_iter().map(move |batch| (overtaken, batch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_in_order_again_and_known_as_overtaken() {
        // They end in any order.
        let entries = vec![(4, vec!["d"]), (1, vec!["a", "b"]), (3, vec!["c"])];
        let batches: Vec<_> = in_order(entries.clone(), Some(2)).collect();
        let expected = [(true, "a"), (true, "b"), (false, "c"), (false, "d")];
        assert_eq!(batches, expected);
        assert!(in_order(entries, None).all(|(overtaken, _)| !overtaken));
    }
}
