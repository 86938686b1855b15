//! What the parts of a run share: nodes, network, trace, what clients know, and what was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use kelda_server::{consensus::Group, storage::Mistake, types::NodeId};

use crate::{
    checker::Recorder,
    disk::{Disk, Fault, Random},
    invariants::Invariants,
    network::Network,
    node::{End, Life},
    schedule::Faults,
    trace::Trace,
};

/// What happened in a run, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Transactions of all nodes.
    pub(crate) commits: u64,
    /// Lives that ended by a power cut.
    pub(crate) power_cuts: u64,
    /// Lives that ended by a kill.
    pub(crate) kills: u64,
    /// Times that the network was cut.
    pub(crate) partitions: u64,
    /// Changes of a group's members that were asked for.
    pub(crate) member_changes: u64,
    /// Disks that were made slow.
    pub(crate) slow_disks: u64,
    /// Leaders that were asked to hand on.
    pub(crate) hand_overs: u64,
    /// Times that the front of a log was purged behind a snapshot.
    pub(crate) purges: u64,
}

/// A node and its machine.
#[derive(Default)]
struct Machine {
    life: Option<Arc<Life>>,
    lives: u64,
    disk: Vec<u8>,
    /// Whether a database was ever made: a file gets its name only then, so half a one is never opened.
    has_database: bool,
}

/// What kind of run it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    /// A mistake of the writers that is to be found.
    pub(crate) mistake: Mistake,
}

impl From<Faults> for Plan {
    fn from(faults: Faults) -> Self {
        Self {
            faults,
            mistake: Mistake::None,
        }
    }
}

/// One run.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    /// Old records are deleted; then the histories of clients are not judged, for they end in gaps.
    pub(crate) retains: bool,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) recorder: Recorder,
    machines: Mutex<BTreeMap<NodeId, Machine>>,
    replicas: Mutex<BTreeSet<NodeId>>,
    invariants: Mutex<Invariants>,
    counts: Mutex<Counts>,
    /// Offset behind everything that was acknowledged to a client.
    acknowledged_end: AtomicU64,
    /// Clients begin nothing new.
    pub(crate) is_over: AtomicBool,
    /// Draws what is lost with the power.
    luck: Mutex<Random>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, echo: bool) -> Arc<Self> {
        let trace = Trace::new(echo);
        let random = |salt: u64| Random::new(seed.wrapping_mul(0x0001_0000_0001) ^ salt);
        Arc::new(Self {
            seed,
            plan,
            retains: plan.faults == Faults::Mixed && random(1 << 55).chance(20),
            network: Network::new(trace.clone(), random(1 << 50)),
            trace,
            recorder: Recorder::default(),
            machines: Mutex::default(),
            replicas: Mutex::default(),
            invariants: Mutex::default(),
            counts: Mutex::default(),
            acknowledged_end: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            luck: Mutex::new(random(1 << 51)),
        })
    }

    pub(crate) fn invariants(&self) -> MutexGuard<'_, Invariants> {
        locked(&self.invariants)
    }

    /// Notes what does not hold.
    pub(crate) fn violation(&self, text: String) {
        self.trace.note(format_args!("violation: {text}"));
        self.invariants().violation(text);
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut locked(&self.counts));
    }

    pub(crate) fn counts(&self) -> Counts {
        *locked(&self.counts)
    }

    /// The members that the partition's group is to have.
    pub(crate) fn replicas(&self) -> BTreeSet<NodeId> {
        locked(&self.replicas).clone()
    }

    pub(crate) fn set_replicas(&self, replicas: BTreeSet<NodeId>) {
        *locked(&self.replicas) = replicas;
    }

    /// Starts a node that does not run. With a fault its power fails again at that write or sync, perhaps before it is
    /// open.
    pub(crate) fn start(self: &Arc<Self>, node: NodeId, fault: Option<Fault>) {
        if self.life(node).is_some() {
            return;
        }
        // What is left of a life that nobody has ended.
        self.end(node, End::PowerCut);
        let (disk, number) = {
            let mut machines = locked(&self.machines);
            let machine = machines.entry(node).or_default();
            machine.lives += 1;
            if !machine.has_database {
                machine.disk.clear();
            }
            (
                Disk::new(std::mem::take(&mut machine.disk), fault),
                machine.lives,
            )
        };
        self.trace.note(format_args!("{node} starts life {number}"));
        let life = Life::begin(self, node, number, disk.clone());
        let mut machines = locked(&self.machines);
        let machine = machines.entry(node).or_default();
        machine.has_database |= life.is_some();
        if life.is_none() {
            machine.disk = disk.after_power_loss(&mut locked(&self.luck));
        }
        machine.life = life;
    }

    /// Ends the life of a node, if it runs.
    pub(crate) fn end(&self, node: NodeId, end: End) {
        let mut machines = locked(&self.machines);
        let Some(machine) = machines.get_mut(&node) else {
            return;
        };
        let Some(life) = machine.life.take() else {
            return;
        };
        machine.disk = life.end(end, &mut locked(&self.luck));
        let bytes = machine.disk.len();
        drop(machines);
        self.trace
            .note(format_args!("{node} {end:?}, {bytes} bytes are left"));
        self.count(|counts| match end {
            End::PowerCut => counts.power_cuts += 1,
            End::Kill => counts.kills += 1,
        });
        tokio::spawn(async move { life.bury().await });
    }

    /// The nodes that there are.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        locked(&self.machines).keys().copied().collect()
    }

    /// The life of a node that runs.
    pub(crate) fn life(&self, node: NodeId) -> Option<Arc<Life>> {
        let life = locked(&self.machines).get(&node)?.life.clone();
        life.filter(|life| life.pulse.beats())
    }

    /// All lives.
    pub(crate) fn lives(&self) -> Vec<Arc<Life>> {
        let machines = locked(&self.machines);
        let lives = machines.values().filter_map(|machine| machine.life.clone());
        lives.filter(|life| life.pulse.beats()).collect()
    }

    /// Some life whose partition is open.
    pub(crate) fn some_life(&self, random: &mut Random) -> Option<Arc<Life>> {
        let mut lives = self.lives();
        lives.retain(|life| life.partition().is_some());
        let count = lives.len() as u64;
        (count > 0).then(|| lives.swap_remove(random.below(count) as usize))
    }

    /// The node that leads the partition, or may.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let mut lives = self.lives().into_iter();
        let leads = |life: &Arc<Life>| life.partition().is_some_and(|it| it.group().may_lead());
        lives.find(leads).map(|life| life.node)
    }

    /// Offset behind everything that was acknowledged.
    pub(crate) fn acknowledged_end(&self) -> u64 {
        self.acknowledged_end.load(Ordering::Relaxed)
    }

    /// Records up to `end` were acknowledged.
    pub(crate) fn acknowledge(&self, end: u64) {
        self.acknowledged_end.fetch_max(end, Ordering::Relaxed);
        self.check_speakers();
    }

    /// At most one node speaks for a group, and it has everything that was acknowledged.
    pub(crate) fn check_speakers(&self) {
        let lives = self.lives();
        let speakers = |group: &dyn Fn(&Life) -> Option<Group>| -> Vec<NodeId> {
            let speaks = |life: &&Arc<Life>| group(life).is_some_and(|group| group.leads());
            lives.iter().filter(speaks).map(|life| life.node).collect()
        };
        let catalog = speakers(&|life| Some(life.catalog()?.group().clone()));
        let partition = speakers(&|life| Some(life.partition()?.group().clone()));
        for (what, speakers) in [("catalog", catalog), ("partition", partition)] {
            if speakers.len() > 1 {
                self.violation(format!("{speakers:?} speak for the {what} at once"));
            }
        }
        let floor = self.acknowledged_end();
        for life in &lives {
            let Some(partition) = life.partition() else {
                continue;
            };
            let end = partition.view().end.0;
            if partition.group().leads() && end < floor {
                let node = life.node;
                self.violation(format!(
                    "{node} leads, ends at {end}, {floor} is acknowledged"
                ));
            }
        }
    }
}
