//! Notices panics of any thread of this process.

use std::{
    panic,
    sync::{Mutex, Once, PoisonError},
};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Begins to watch, once for the process.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            // redb panics on some damaged files; storage catches that and gives an error.
            let caught = file.contains("/redb-");
            // The tests' own assertions fail their test.
            let test = file.starts_with("tests/");
            if !caught && !test {
                let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push(info.to_string());
            }
            if !caught {
                before(info);
            }
        }));
    });
}

/// Asserts that the product has not panicked.
pub(crate) fn assert_none() {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.is_empty(), "panics: {seen:#?}");
}
