//! Power losses and failing disks at random moments. After each, storage must hold what it held after some prefix of
//! the operations, and every acknowledged one lies in that prefix.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::disk::{Disk, Fault, Random};
use super::model::{Act, GROUPS, Model, observe_all};
use super::support::*;
use crate::storage::{Error, GroupStore, Hooks, Storage};
use crate::types::GroupId;

type Waiting = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// What one life of a storage did and was told.
struct Life {
    /// What storage held at the start and after each operation.
    history: Vec<Vec<Model>>,
    /// Operations up to this one are acknowledged.
    acknowledged: usize,
}

/// Told from callbacks.
#[derive(Default)]
struct Told {
    acknowledged: AtomicUsize,
    failed: AtomicBool,
    after_failure: AtomicBool,
}

impl Told {
    fn acknowledge(&self, operation: usize) {
        self.acknowledged.fetch_max(operation, Ordering::SeqCst);
    }
}

/// Submits an operation without waiting for it. Operations that are slow to come back keep the order of submission,
/// because the first poll puts them into the queue.
async fn submit(
    storage: &Storage,
    group: GroupStore,
    act: Act,
    number: usize,
    told: Arc<Told>,
) -> Option<Waiting> {
    let mut waiting: Waiting = match act {
        Act::Append(entries) => {
            let done = Box::new(move |result: Result<(), Error>| {
                if result.is_ok() {
                    // A future may be polled late, this is called by the writer itself.
                    let failed = told.failed.load(Ordering::SeqCst);
                    told.after_failure.fetch_or(failed, Ordering::SeqCst);
                    told.acknowledge(number);
                }
            });
            let _ = group.append(entries, done).await;
            return None;
        }
        Act::Apply(applied) => {
            let _ = group.apply(applied).await;
            return None;
        }
        Act::Vote(vote) => Box::pin(async move { group.save_vote(vote).await }),
        Act::Truncate(from) => Box::pin(async move { group.truncate(index(from)).await }),
        Act::Purge(upto, snapshot) => Box::pin(async move { group.purge(upto, snapshot).await }),
        Act::Delete => {
            let storage = storage.clone();
            Box::pin(async move { storage.delete_group(group.id()).await })
        }
        Act::Empty(vote) => {
            let storage = storage.clone();
            Box::pin(async move { storage.empty_group(group.id(), vote).await })
        }
    };
    match futures::poll!(waiting.as_mut()) {
        std::task::Poll::Ready(result) => {
            result.is_ok().then(|| told.acknowledge(number));
            None
        }
        std::task::Poll::Pending => Some(Box::pin(async move {
            let result = waiting.await;
            if result.is_ok() {
                told.acknowledge(number);
            }
            result
        })),
    }
}

/// Opens the disk, works until the fault, and comes back with what must be found.
async fn live(
    disk: &Disk,
    random: &mut Random,
    before: &[Vec<Model>],
    serial: &mut u64,
) -> Option<Life> {
    let told = Arc::new(Told::default());
    let (fatal, failed) = (told.clone(), AtomicBool::new(false));
    let hooks = Hooks {
        on_fatal: Arc::new(move |_| {
            assert!(!failed.swap(true, Ordering::SeqCst), "told twice");
            fatal.failed.store(true, Ordering::SeqCst);
        }),
        ..Hooks::default()
    };
    let mut config = config(None);
    // Small enough that entries leave memory.
    config.tail_bytes = 50_000;
    let opened = Storage::open_on(disk.clone(), config, hooks);
    let storage = match opened {
        Ok(storage) => storage,
        Err(error) => {
            assert!(disk.failed(), "does not open without a fault: {error}");
            return None;
        }
    };
    let Ok(found) = observe_all(&storage).await else {
        // A deletion that went on after the restart met the fault.
        assert!(told.failed.load(Ordering::SeqCst));
        return None;
    };
    assert!(
        before.contains(&found),
        "found {found:#?} instead of one of {} states, the first being {:#?}",
        before.len(),
        before.first(),
    );
    let mut history = vec![found];
    let mut waiting = Vec::new();
    for number in 1..=(10 + random.below(40) as usize) {
        let mut models = history[number - 1].clone();
        let at = random.below(GROUPS) as usize;
        *serial += 1;
        let act = models[at].next(random, *serial);
        models[at].act(&act);
        let deletes = matches!(act, Act::Delete | Act::Empty(_));
        history.push(models);
        let group = storage.group(GroupId(at as u64));
        waiting.extend(submit(&storage, group, act, number, told.clone()).await);
        if deletes || random.chance(15) {
            for waiting in waiting.drain(..) {
                let _ = waiting.await;
            }
        }
        if random.chance(10) && storage.flush().await.is_ok() {
            told.acknowledge(number);
        }
        if told.failed.load(Ordering::SeqCst) {
            break;
        }
    }
    for waiting in waiting {
        let _ = waiting.await;
    }
    if random.chance(30) {
        // Ended in order, unless the fault comes now.
        if storage.close().await.is_ok() {
            told.acknowledge(history.len() - 1);
        }
    }
    let acknowledged = told.acknowledged.load(Ordering::SeqCst);
    assert!(!told.after_failure.load(Ordering::SeqCst));
    Some(Life {
        history,
        acknowledged,
    })
}

async fn several_lives(seed: u64, fault: fn(u64) -> Fault) {
    let mut random = Random::new(seed);
    let mut serial = 0;
    let mut image = Vec::new();
    let mut possible = vec![vec![Model::default(); GROUPS as usize]];
    let mut made = false;
    for _ in 0..4 {
        let range = [20, 100, 400][random.below(3) as usize];
        let at = 1 + random.below(range);
        let disk = Disk::new(image, Some(fault(at)));
        if let Some(mut life) = live(&disk, &mut random, &possible, &mut serial).await {
            possible = life.history.split_off(life.acknowledged);
            made = true;
        }
        // A database gets its name only once it is made, so half a one is never opened.
        image = match made {
            true => disk.after_power_loss(&mut random),
            false => Vec::new(),
        };
    }
    let disk = Disk::new(image, None);
    let life = live(&disk, &mut random, &possible, &mut serial).await;
    assert!(life.is_some());
}

fn run(seeds: std::ops::Range<u64>, fault: fn(u64) -> Fault) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for seed in seeds {
        println!("seed {seed}");
        runtime.block_on(several_lives(seed, fault));
    }
}

#[test]
fn what_was_acknowledged_survives_power_losses_in_order() {
    run(0..150, Fault::Power);
}

#[test]
fn nothing_is_acknowledged_after_a_failed_write_or_sync() {
    run(1000..1150, Fault::Call);
}

#[tokio::test]
async fn an_unreadable_disk_ends_storage_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let fatal = told.clone();
    let hooks = Hooks {
        on_fatal: Arc::new(move |_| {
            fatal.fetch_add(1, Ordering::SeqCst);
        }),
        ..Hooks::default()
    };
    let mut config = config(None);
    config.cache_bytes = 0;
    let disk = Disk::new(Vec::new(), None);
    let storage = Storage::open_on(disk.clone(), config, hooks).unwrap();
    let group = storage.group(GROUP);
    append(&group, entries(1, 0..3, &[100_000])).await.unwrap();
    group.forget();
    disk.stop_reads();
    for _ in 0..2 {
        let read = group.read(index(0), END, 1).await;
        assert!(matches!(read, Err(Error::Failed(_))), "{read:?}");
    }
    let refused = append(&group, entries(1, 3..4, &[10])).await;
    assert!(matches!(refused, Err(Error::Failed(_))));
    assert_eq!(told.load(Ordering::SeqCst), 1);
}
