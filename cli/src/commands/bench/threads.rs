//! Threads with a runtime each.

use std::{cell::RefCell, rc::Rc, thread};

use kelda_client::Client;
use tokio::task::LocalSet;

use super::report::Tally;
use crate::{client::ClientOptions, failure::Failure};

/// A tally that the tasks of one thread share.
pub(super) type SharedTally = Rc<RefCell<Tally>>;

/// Runs `tasks` tasks on `threads` threads and adds up what they count.
///
/// `task` gets the thread's client, the task's number and the thread's tally. The first failure of a task is
/// returned once all tasks have ended.
pub(super) fn run<F, T>(
    options: &ClientOptions,
    threads: usize,
    tasks: usize,
    task: F,
) -> Result<Tally, Failure>
where
    F: Fn(Client, usize, SharedTally) -> T + Send + Sync,
    T: Future<Output = Result<(), Failure>> + 'static,
{
    let threads = threads.clamp(1, tasks.max(1));
    let task = &task;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || run_thread(options, (thread..tasks).step_by(threads), task))
            })
            .collect();
        let mut sum = Tally::new();
        let mut failure = None;
        for handle in handles {
            match handle.join().expect("a measuring thread does not panic") {
                Ok(tally) => sum.add(tally),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(sum), Err)
    })
}

fn run_thread<F, T>(
    options: &ClientOptions,
    numbers: impl Iterator<Item = usize>,
    task: &F,
) -> Result<Tally, Failure>
where
    F: Fn(Client, usize, SharedTally) -> T,
    T: Future<Output = Result<(), Failure>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tally = Rc::new(RefCell::new(Tally::new()));
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let client = options.connect().await?;
        let running: Vec<_> = numbers
            .map(|number| tokio::task::spawn_local(task(client.clone(), number, Rc::clone(&tally))))
            .collect();
        let mut result = Ok(());
        for handle in running {
            let ended = handle.await.expect("a measuring task does not panic");
            result = result.and(ended);
        }
        result
    })?;
    let tally = tally.replace(Tally::new());
    Ok(tally)
}
