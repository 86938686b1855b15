//! One run: a cluster forms, clients work, things go wrong; then everything heals, and all is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kelda_proto::internal::v1::{
    CatalogCommand, ReplicaSet,
    catalog_command::{Command, CreateTopic, RegisterNode},
};
use kelda_server::{
    consensus::seeded,
    types::{NodeId, Offset},
};
use tokio::{
    runtime::{Builder, RngSeed},
    time::{sleep, timeout},
};

use crate::{
    checker::{
        check,
        dump::{Dump, divergences},
    },
    client::{self, PARTITION, Reader},
    disk::Random,
    network::Weather,
    node::{Life, TOPIC},
    panics,
    schedule::{Faults, Schedule},
    world::{Counts, Plan, World},
};

/// How long a healthy cluster may take to form, to lead again, or to bring all replicas to one state.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Stands for everything that happened, in order.
    pub(crate) trace: u64,
    /// Events of the trace.
    pub(crate) steps: u64,
    /// Length of the run by its own clock.
    pub(crate) simulated_ms: u64,
    pub(crate) counts: Counts,
    pub(crate) messages: u64,
    /// Entries that were committed, of all groups.
    pub(crate) committed: u64,
    /// Values that were acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) violations: Vec<String>,
}

/// Runs a seed. With `echo` its trace is printed.
pub(crate) fn run(seed: u64, plan: impl Into<Plan>, echo: bool) -> Outcome {
    let plan = plan.into();
    let mut outcome = Outcome {
        seed,
        trace: 0,
        steps: 0,
        simulated_ms: 0,
        counts: Counts::default(),
        messages: 0,
        committed: 0,
        acknowledged: 0,
        violations: Vec::new(),
    };
    panics::take();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()))
            .build()
            .expect("a runtime without threads and sockets can be made");
        runtime.block_on(seeded(seed, async {
            let world = World::new(seed, plan, echo);
            Box::pin(life_of_a_cluster(&world)).await;
            let (trace, steps) = world.trace.digest();
            outcome.trace = trace;
            outcome.steps = steps;
            outcome.simulated_ms = world.trace.elapsed_ms();
            outcome.counts = world.counts();
            outcome.messages = world.network.messages();
            outcome.committed = world.invariants().committed();
            outcome.acknowledged = world.recorder.acknowledged();
            outcome.violations.append(&mut world.invariants().found);
            world.network.close();
        }));
    }));
    // Whatever caught it: nothing panics, not even on a disk that fails.
    outcome.violations.extend(panics::take());
    debug_assert!(ran.is_ok() || !outcome.violations.is_empty());
    outcome
}

async fn life_of_a_cluster(world: &Arc<World>) {
    let mut random = Random::new(world.seed ^ (1 << 52));
    let (nodes, replicas) = match world.plan.faults {
        Faults::Power => (3, 3),
        Faults::Mixed => [
            (1, 1),
            (3, 3),
            (3, 3),
            (3, 3),
            (3, 3),
            (4, 3),
            (4, 3),
            (5, 5),
        ][random.below(8) as usize],
    };
    if !form(world, nodes, replicas).await {
        return world.violation("no cluster was formed".to_owned());
    }
    let mut clients = Vec::new();
    for salt in 0..4 {
        let own = Random::new(world.seed.wrapping_mul(31) ^ (salt << 53));
        let pause_ms = 100 + random.below(500);
        clients.push(match salt % 2 {
            0 => tokio::spawn(client::produce(Arc::clone(world), own, pause_ms)),
            _ => tokio::spawn(client::consume(Arc::clone(world), own, pause_ms)),
        });
    }
    Schedule::new(world, Random::new(world.seed ^ (1 << 54)))
        .run(world.plan.faults)
        .await;
    heal(world).await;
    world.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        if timeout(PATIENCE, client).await.is_err() {
            world.violation("a client does not end".to_owned());
        }
    }
    settle(world).await;
    judge(world).await;
}

/// Waits until something holds. Returns whether it did in time.
async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) -> bool {
    let wait = async {
        while !condition().await {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, wait).await.is_ok()
}

/// Founds a cluster with a topic of one partition.
async fn form(world: &Arc<World>, nodes: u64, replicas: u64) -> bool {
    let first = NodeId(1);
    world.start(first, None);
    let all: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
    let wanted: BTreeSet<NodeId> = all.iter().copied().take(replicas as usize).collect();
    world.set_replicas(wanted);
    let leads = |life: &Life| life.catalog().is_some_and(|it| it.group().may_lead());
    if !eventually(async || world.life(first).is_some_and(|life| leads(&life))).await {
        return false;
    }
    for node in &all {
        let register = RegisterNode {
            name: format!("node{node}"),
            address: format!("node{node}:1"),
            ..RegisterNode::default()
        };
        change(world, Command::RegisterNode(register)).await;
    }
    for node in &all[1..] {
        world.start(*node, None);
    }
    let knows_all = async || {
        let lives = world.lives();
        let voters = (nodes - (nodes + 1) % 2) as usize;
        lives.len() == all.len()
            && lives.iter().all(|life| {
                life.catalog()
                    .is_some_and(|it| it.group().members().voters.len() == voters)
            })
    };
    if !eventually(knows_all).await {
        return false;
    }
    // All found the group, and those who are too many leave it again: a node that has missed how the members changed
    // believes the catalog, which nothing here changes.
    let set = ReplicaSet {
        nodes: all.iter().map(|node| node.0).collect(),
    };
    let create = CreateTopic {
        name: TOPIC.to_owned(),
        partitions: vec![set],
        config: None,
    };
    change(world, Command::CreateTopic(create)).await
        && eventually(async || world.leader().is_some()).await
}

/// Changes the catalog on whichever node leads it.
async fn change(world: &World, command: Command) -> bool {
    let command = CatalogCommand {
        time_ms: 0,
        command: Some(command),
    };
    for life in world.lives() {
        if let Some(catalog) = life.catalog()
            && catalog.change_here(&command).await.is_ok()
        {
            return true;
        }
    }
    false
}

/// Ends all faults, and waits until clients are served.
async fn heal(world: &Arc<World>) {
    world.trace.note("all heals");
    world.network.cut(BTreeSet::new());
    world.network.set_weather(Weather::FINE);
    for node in world.nodes() {
        world.start(node, None);
    }
    let before = world.recorder.acknowledged();
    if !eventually(async || world.recorder.acknowledged() > before).await {
        world.violation("nothing is acknowledged after all has healed".to_owned());
    }
}

/// Waits until all replicas have everything.
async fn settle(world: &Arc<World>) {
    let settled = async || {
        let replicas = world.replicas();
        world.lives().iter().all(|life| {
            let has_all = |group: &kelda_server::consensus::Group| {
                let said = group.observations().now();
                world.invariants().has_all(group.id(), &said)
            };
            let catalog = life.catalog().is_some_and(|it| has_all(it.group()));
            let is_replica = replicas.contains(&life.node);
            catalog && (!is_replica || life.partition().is_some_and(|it| has_all(it.group())))
        })
    };
    if !eventually(settled).await {
        world.violation("the replicas do not become equal".to_owned());
    }
}

/// Reads everything, and judges what clients saw and what the replicas hold.
async fn judge(world: &Arc<World>) {
    let mut reader = Reader::new(world);
    let mut drained = false;
    for _ in 0..10_000 {
        if let Some(life) = world.leader().and_then(|node| world.life(node)) {
            drained = reader.poll(world, &life).await;
        }
        if drained {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    if !drained {
        return world.violation("the partition can not be read to its end".to_owned());
    }
    reader.drained();
    let report = check(world.recorder.history());
    if !world.retains && !report.violations.is_empty() {
        world.violation(report.to_string());
    }
    let replicas = world.replicas();
    let mut dumps = Vec::new();
    for life in world.lives() {
        if replicas.contains(&life.node) {
            match dump(&life).await {
                Ok(dump) => dumps.push(dump),
                Err(error) => world.violation(format!("{} can not be read: {error}", life.node)),
            }
        }
    }
    for divergence in divergences(&dumps) {
        world.violation(divergence.to_string());
    }
    let ends: BTreeSet<i64> = dumps.iter().map(|dump| dump.commit).collect();
    if ends.len() != 1 {
        world.violation(format!("replicas end at {ends:?}"));
    }
}

async fn dump(life: &Life) -> Result<Dump, kelda_server::storage::Error> {
    let number = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
    let mut dump = Dump {
        replica: life.node.to_string(),
        partition: PARTITION,
        start: 0,
        commit: 0,
        entries: BTreeMap::new(),
    };
    if let Some(partition) = life.partition() {
        let end = partition.view().end;
        dump.start = number(partition.view().log_start);
        let read = partition.store().read_batches(Offset(0), end, usize::MAX);
        let batches = read.await?;
        let entries = batches.iter();
        dump.commit = number(end);
        dump.entries = entries
            .map(|batch| (number(batch.row.base_offset), batch.part.bytes.to_vec()))
            .collect();
    }
    Ok(dump)
}
