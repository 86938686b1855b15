//! What the kernel counts about processes: CPU time and memory, from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: u64,
    /// Most that was ever resident.
    pub(crate) resident_peak: u64,
}

/// Memory of the process `pid`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let resident = status_bytes(&status, "VmRSS:").context("no VmRSS in /proc")?;
    let resident_peak = status_bytes(&status, "VmHWM:").context("no VmHWM in /proc")?;
    Ok(Memory {
        resident,
        resident_peak,
    })
}

/// CPU time that the process `pid` has used, in user and system mode.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    ticks(&stat, 14).context("no CPU time in /proc")
}

/// CPU time that threads of this name in the process `pid` have used. Exact where `schedstat` is, unlike the ticks of
/// `stat`: a quiet thread runs for less than a tick at a time.
pub(crate) fn cpu_of_threads(pid: u32, name: &str) -> Result<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
    let mut sum = Duration::ZERO;
    for thread in threads {
        let thread = thread?.path();
        // A thread may end while its files are read.
        let Ok(comm) = fs::read_to_string(thread.join("comm")) else {
            continue;
        };
        if comm.trim_end() == name
            && let Ok(stat) = fs::read_to_string(thread.join("schedstat"))
        {
            let nanoseconds = stat
                .split_whitespace()
                .next()
                .and_then(|it| it.parse().ok());
            sum += Duration::from_nanos(nanoseconds.context("no CPU time in schedstat")?);
        }
    }
    Ok(sum)
}

/// Bytes that the process `pid` had written to disks.
pub(crate) fn written(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).context("the process has ended")?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .context("no write_bytes in /proc")
}

/// CPU time of this process' children that have ended and been waited for.
pub(crate) fn cpu_of_ended_children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    ticks(&stat, 16).context("no CPU time of children in /proc")
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Sum of two fields of `/proc/PID/stat`, the first of which has this number in proc(5).
fn ticks(stat: &str, field: usize) -> Option<Duration> {
    // The name of the program may contain blanks and parentheses: field 3 follows the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let sum: u64 = rest
        .split_whitespace()
        .skip(field - 3)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().ok())
        .sum::<Option<u64>>()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_nanos(sum * 1_000_000_000 / ticks_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_is_skipped() {
        let stat = "7 (a ) b) S 1 1 1 0 -1 4194560 100 0 0 0 300 200 40 60 20 0 1 0";
        let second = rustix::param::clock_ticks_per_second();
        assert_eq!(
            ticks(stat, 14),
            Some(Duration::from_nanos(500 * 1_000_000_000 / second))
        );
        assert_eq!(
            ticks(stat, 16),
            Some(Duration::from_nanos(100 * 1_000_000_000 / second))
        );
        assert_eq!(ticks("7 (short) S", 14), Some(Duration::ZERO));
        assert_eq!(ticks("no parenthesis", 14), None);
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let memory = memory(std::process::id()).expect("Linux");
        assert!(memory.resident > 0 && memory.resident_peak >= memory.resident);
        cpu(std::process::id()).expect("Linux");
        cpu_of_ended_children().expect("Linux");
        let name = std::thread::current()
            .name()
            .map(|name| name.chars().take(15).collect());
        let name: String = name.unwrap_or_default();
        assert!(cpu_of_threads(std::process::id(), &name).expect("Linux") > Duration::ZERO);
        written(std::process::id()).expect("Linux");
    }
}
