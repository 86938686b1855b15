//! Which group gives up its tail first: the one that was written to longest ago.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::storage::store::Shared;
use crate::storage::tail::Group;
use crate::types::GroupId;

/// Groups that hold something in memory, in the order in which they were written to.
#[derive(Default)]
pub(super) struct Recency {
    by_time: BTreeMap<u64, Arc<Group>>,
    times: HashMap<GroupId, u64>,
    now: u64,
}

impl Recency {
    /// Notes that `group` was written to.
    pub(super) fn touch(&mut self, group: &Arc<Group>) {
        self.now += 1;
        if let Some(before) = self.times.insert(group.id, self.now) {
            self.by_time.remove(&before);
        }
        self.by_time.insert(self.now, group.clone());
    }

    /// Lets go of a deleted group.
    pub(super) fn forget(&mut self, group: GroupId) {
        if let Some(time) = self.times.remove(&group) {
            self.by_time.remove(&time);
        }
    }

    /// Makes the tails fit their budget, as far as what they hold is on disk.
    pub(super) fn evict(&mut self, shared: &Shared) {
        let mut emptied = Vec::new();
        for (time, group) in &self.by_time {
            let over = shared
                .tail_used
                .load(Ordering::Relaxed)
                .saturating_sub(shared.config.tail_bytes);
            if over == 0 {
                break;
            }
            if !group.with(|tail| tail.evict(over)) {
                emptied.push((*time, group.id));
            }
        }
        for (time, group) in emptied {
            self.by_time.remove(&time);
            self.times.remove(&group);
        }
    }
}
