//! One life of a node: from its start on a disk to its crash.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kelda_server::{
    consensus::{CatalogGroup, Groups, PartitionGroup, seeded},
    machine::catalog::Catalog,
    peers::Peers,
    storage::{Config, Hooks, Steps, Storage},
    types::NodeId,
};
use tokio::{task::AbortHandle, time::sleep};

use crate::{
    disk::{Disk, Fault, Random},
    keeper, watching,
    world::World,
};

/// The one topic.
pub(crate) const TOPIC: &str = "events";
/// Longest that a healthy disk takes for a transaction.
const DISK_MS: u64 = 12;

/// Whether a life still goes on. What a dead one does is never heard of.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<AtomicBool>);

impl Pulse {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn beats(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// One life of a node.
pub(crate) struct Life {
    pub(crate) node: NodeId,
    /// Counts the lives of the node.
    pub(crate) number: u64,
    pub(crate) pulse: Pulse,
    pub(crate) disk: Disk,
    /// Makes the disk slow.
    pub(crate) is_slow: AtomicBool,
    groups: Groups,
    /// What only ends when it is told to.
    background: Mutex<Vec<AbortHandle>>,
    catalog: OnceLock<CatalogGroup>,
    partition: OnceLock<PartitionGroup>,
}

impl Life {
    /// Starts a node on a disk. `None`: the disk failed, as it was told to.
    pub(crate) fn begin(
        world: &Arc<World>,
        node: NodeId,
        number: u64,
        disk: Disk,
    ) -> Option<Arc<Self>> {
        let pulse = Pulse::new();
        let (failing, failed, trace) = (pulse.clone(), disk.clone(), world.trace.clone());
        let broken = Arc::downgrade(world);
        let hooks = Hooks {
            on_fatal: Arc::new(move |error| {
                trace.note(format_args!("{node} storage failed: {error}"));
                failing.stop();
                if let (false, Some(world)) = (failed.failed(), broken.upgrade()) {
                    world.violation(format!("storage of {node} failed by itself: {error}"));
                }
            }),
            ..Hooks::default()
        };
        let (storage, steps) =
            match Storage::open_stepped(disk.clone(), config(), hooks, world.plan.mistake) {
                Ok(opened) => opened,
                Err(error) => {
                    world
                        .trace
                        .note(format_args!("{node} does not open: {error}"));
                    if !disk.failed() {
                        world.violation(format!("{node} does not open: {error}"));
                    }
                    return None;
                }
            };
        let peers = Peers::simulated(node, world.network.port(node, pulse.clone()));
        let groups = Groups::new(storage, peers);
        world.network.open(node, pulse.clone(), groups.clone());
        let life = Arc::new(Self {
            node,
            number,
            pulse,
            disk,
            is_slow: AtomicBool::new(false),
            groups,
            background: Mutex::default(),
            catalog: OnceLock::new(),
            partition: OnceLock::new(),
        });
        tokio::spawn(write(Arc::clone(world), Arc::clone(&life), steps));
        let seed = world.seed.wrapping_mul(1_000_003) ^ (node.0 << 32) ^ number;
        tokio::spawn(seeded(seed, live(Arc::clone(world), Arc::clone(&life))));
        Some(life)
    }

    pub(crate) fn catalog(&self) -> Option<&CatalogGroup> {
        self.catalog.get()
    }

    pub(crate) fn partition(&self) -> Option<&PartitionGroup> {
        self.partition.get()
    }

    fn keep(&self, task: &tokio::task::JoinHandle<()>) {
        let background = self.background.lock();
        let mut background = background.unwrap_or_else(PoisonError::into_inner);
        background.push(task.abort_handle());
    }

    /// Ends the tasks of a life whose node is dead.
    pub(crate) async fn bury(&self) {
        let background = {
            let background = self.background.lock();
            std::mem::take(&mut *background.unwrap_or_else(PoisonError::into_inner))
        };
        background.iter().for_each(AbortHandle::abort);
        if let Some(catalog) = self.catalog() {
            catalog.group().stop().await;
        }
        if let Some(partition) = self.partition() {
            partition.group().stop().await;
        }
    }
}

fn config() -> Config {
    Config {
        data_dir: None,
        free_floor_bytes: 0,
        // Small enough that entries leave memory, and are read from the disk.
        tail_bytes: 40_000,
        cache_bytes: 4 << 20,
    }
}

/// Writes what waits, as fast as the disk is.
async fn write(world: Arc<World>, life: Arc<Life>, mut steps: Steps) {
    let mut random = Random::new(world.seed ^ (life.node.0 << 40) ^ (life.number << 20));
    while life.pulse.beats() {
        let slow = life.is_slow.load(Ordering::Relaxed);
        let longest = if slow { 1000 } else { DISK_MS };
        sleep(Duration::from_millis(1 + random.below(longest))).await;
        if life.pulse.beats() && steps.step() {
            let calls = life.disk.calls();
            world
                .trace
                .note(format_args!("{} wrote, {calls} calls", life.node));
            world.count(|counts| counts.commits += 1);
        }
    }
}

/// Opens the groups of a node and keeps them as they are to be.
async fn live(world: Arc<World>, life: Arc<Life>) {
    let joined = life.node != NodeId(1);
    let catalog = match life.groups.open_catalog(joined).await {
        Ok(catalog) => life.catalog.get_or_init(|| catalog),
        Err(error) => return did_not_open(&world, &life, &error),
    };
    if !life.pulse.beats() {
        return life.bury().await;
    }
    watching::watch(&world, &life, catalog.group());
    tokio::spawn(keeper::keep_catalog(Arc::clone(&world), Arc::clone(&life)));
    life.keep(&tokio::spawn(
        life.groups.clone().keep_pulse(catalog.clone()),
    ));
    life.keep(&tokio::spawn(life.groups.clone().quiesce_idle()));
    let mut view = catalog.watch();
    let (group, founders) = loop {
        if let Some(placed) = placed(&view.borrow_and_update()) {
            break placed;
        }
        if view.changed().await.is_err() {
            return;
        }
    };
    let partition = match life.groups.open_partition(group, &founders).await {
        Ok(partition) => life.partition.get_or_init(|| partition),
        Err(error) => return did_not_open(&world, &life, &error),
    };
    if !life.pulse.beats() {
        return life.bury().await;
    }
    world
        .trace
        .note(format_args!("{} opened group {group}", life.node));
    watching::watch(&world, &life, partition.group());
    tokio::spawn(keeper::retain(Arc::clone(&world), Arc::clone(&life)));
    tokio::spawn(keeper::keep_partition(world, life));
}

/// Group and founders of the partition, once the catalog has it.
fn placed(catalog: &Catalog) -> Option<(kelda_server::types::GroupId, Vec<NodeId>)> {
    let partition = catalog.topic(TOPIC)?.partitions.first()?;
    Some((partition.group, partition.founders.clone()))
}

fn did_not_open(world: &World, life: &Life, error: &kelda_server::consensus::OpenError) {
    world
        .trace
        .note(format_args!("{} opened no group: {error}", life.node));
    if life.pulse.beats() && !life.disk.failed() {
        world.violation(format!("{} opened no group: {error}", life.node));
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine loses its power: what was not synced may be lost.
    PowerCut,
    /// The process is killed: the operating system keeps what was written.
    Kill,
}

impl Life {
    /// Ends it now, and gives what is found on the disk.
    pub(crate) fn end(&self, end: End, random: &mut Random) -> Vec<u8> {
        self.pulse.stop();
        let image = match end {
            End::PowerCut => self.disk.after_power_loss(random),
            End::Kill => self.disk.after_kill(),
        };
        self.disk.plan(Fault::Power(0));
        image
    }
}
