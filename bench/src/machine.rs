//! Describes the machine that is measured: what a reader needs to judge the figures, and nothing that names it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use serde::Serialize;

/// A machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Name of the processor.
    pub(crate) processor: String,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// Kernel and its version.
    pub(crate) kernel: String,
    /// Kind of the measured disk.
    pub(crate) disk: String,
    /// File system on it.
    pub(crate) file_system: String,
}

/// Describes this machine and the disk that holds `directory`.
pub(crate) fn describe(directory: &Path) -> Result<Machine> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory_kib: f64 = field(&memory, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0.0);
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let name = rustix::system::uname();
    let device = fs::metadata(directory)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(Machine {
        cores: thread::available_parallelism()?.get(),
        processor: field(&processors, "model name")
            .unwrap_or("unknown")
            .to_owned(),
        memory_gib: (memory_kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        kernel: format!(
            "{} {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy()
        ),
        disk: disk(major, minor).unwrap_or_else(|| "unknown".to_owned()),
        file_system: file_system(major, minor).context("the disk is not mounted")?,
    })
}

/// Value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
        .next()
}

fn disk(major: u32, minor: u32) -> Option<String> {
    let mut device: PathBuf = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    if device.join("partition").exists() {
        // A partition's queue is that of its disk.
        device.pop();
    }
    let rotates = fs::read_to_string(device.join("queue/rotational")).ok()?;
    let cache = fs::read_to_string(device.join("queue/write_cache")).ok()?;
    let path = device.to_string_lossy();
    let bus = ["nvme", "virtio", "usb", "ata"]
        .into_iter()
        .find(|bus| path.contains(bus))
        .unwrap_or("other");
    let kind = if rotates.trim() == "1" {
        "reported as rotating"
    } else {
        "solid state"
    };
    Some(format!("{bus}, {kind}, {}", cache.trim()))
}

fn file_system(major: u32, minor: u32) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let number = format!("{major}:{minor}");
    let mount = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&number))?;
    // proc(5): optional fields end with a lone hyphen, then comes the type.
    mount
        .split(" - ")
        .nth(1)?
        .split(' ')
        .next()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe(Path::new(".")).expect("Linux");
        assert!(machine.cores > 0 && machine.memory_gib > 0.0);
        assert!(!machine.file_system.is_empty());
    }

    #[test]
    fn the_first_of_several_lines_counts() {
        assert_eq!(
            field("a : 1\nmodel name\t: x y\nmodel name\t: z\n", "model name"),
            Some("x y")
        );
        assert_eq!(field("a : 1\n", "b"), None);
    }
}
