//! A component on a thread of its own: its name tells in `top -H` and under `/proc` what the component costs, and no
//! other component makes it late.

use std::{io, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Calls that block, such as the look-up of a name, are made on other threads of the same name. They stay: with one that
/// ends, what it has cost would be forgotten.
const BLOCKING_MAX: usize = 2;
const BLOCKING_KEEP: Duration = Duration::from_secs(365 * 24 * 3600);

/// A thread with a runtime. Dropped, it ends with all its tasks, as soon as those let it.
#[derive(Debug)]
pub struct Thread {
    handle: Handle,
    /// The thread runs until this is dropped.
    _running: oneshot::Sender<()>,
}

impl Thread {
    /// Starts a thread of this name, of which Linux shows the first 15 bytes.
    ///
    /// # Errors
    /// If the process may have no more threads or files.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(name)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_keep_alive(BLOCKING_KEEP)
            .build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            // It ends with an error, when its sender is dropped.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self {
            handle,
            _running: running,
        })
    }

    /// Runs tasks on the thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_run_on_the_named_thread_and_end_with_it() {
        let thread = Thread::start("named").expect("a thread");
        let name = thread
            .handle()
            .spawn(async { thread::current().name().map(str::to_owned) });
        assert_eq!(name.await.expect("it ran").as_deref(), Some("named"));
        let endless = thread.handle().spawn(std::future::pending::<()>());
        drop(thread);
        assert!(
            endless
                .await
                .expect_err("it never ends by itself")
                .is_cancelled()
        );
    }
}
