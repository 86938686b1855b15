//! What the kernel says about this process, read when a scrape asks and never else.

use std::fs;

use opentelemetry::metrics::Meter;

use super::clock;

/// Ticks a second of the times in `/proc`: fixed at 100 towards user space on every architecture that Rust's
/// standard library supports on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the process metrics with the names that Prometheus's own client libraries use. Where there is no
/// `/proc` they are left out.
pub(super) fn register(meter: &Meter) {
    let start_seconds = clock::now_ms() as f64 / 1000.0;
    meter
        .f64_observable_counter("process_cpu_seconds")
        .with_description("User and system CPU time spent, in seconds.")
        .with_callback(|observer| {
            let stat = fs::read_to_string("/proc/self/stat");
            if let Some(seconds) = stat.ok().as_deref().and_then(cpu_seconds) {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process_resident_memory_bytes")
        .with_description("Resident memory, in bytes.")
        .with_callback(|observer| {
            let status = fs::read_to_string("/proc/self/status");
            if let Some(bytes) = status.ok().as_deref().and_then(resident_bytes) {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process_open_fds")
        .with_description("Open file descriptors.")
        .with_callback(|observer| {
            if let Ok(entries) = fs::read_dir("/proc/self/fd") {
                // The directory handle that counts is one of those counted.
                observer.observe(entries.count().saturating_sub(1) as u64, &[]);
            }
        })
        .build();
    meter
        .f64_observable_gauge("process_start_time_seconds")
        .with_description("When the process started, in seconds since the Unix epoch.")
        .with_callback(move |observer| observer.observe(start_seconds, &[]))
        .build();
}

/// Reads user and system time from `/proc/self/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in brackets, which may itself hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// Reads the resident set from `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_strange_program_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 90 0 0 0 150 25 3 4 20 0 9 0 12 13 14";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("7 (x) S 1"), None);
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(
            resident_bytes("VmSize:\t  900 kB\nVmRSS:\t   12 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident_bytes("VmRSS: lots\n"), None);
    }
}
