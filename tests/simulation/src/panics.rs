//! Panics of a run, which catch tasks and the storage room alike. A run has a thread of its own.

use std::cell::RefCell;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics are kept, and not printed.
pub(crate) fn record() {
    std::panic::set_hook(Box::new(|panic| {
        let text = format!("a panic: {panic}");
        // Not while the thread ends.
        let _ = PANICS.try_with(|panics| panics.borrow_mut().push(text));
    }));
}

/// The panics of this thread since it was asked last.
pub(crate) fn take() -> Vec<String> {
    PANICS.take()
}
