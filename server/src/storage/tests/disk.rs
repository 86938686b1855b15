//! A disk that can fail and lose power.
//!
//! Writes go to a live image; a sync makes them durable. When the power fails, any subset of the unsynced writes
//! survives, in part or whole, in units of a sector.
//!
//! `tests/simulation` includes this file: it needs the standard library and redb alone.
#![allow(dead_code, reason = "the simulation uses more of it")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use redb::StorageBackend;

const SECTOR: usize = 512;

/// Small, repeatable randomness.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `[0, end)`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes wrong, and at which write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is written from that call on: the power is gone.
    Power(u64),
    /// That call fails, the others do not.
    Call(u64),
}

#[derive(Debug)]
enum Change {
    Length(u64),
    Bytes { offset: u64, bytes: Vec<u8> },
}

#[derive(Debug, Default)]
struct Platter {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    calls: u64,
    fault: Option<Fault>,
    unreadable: bool,
}

/// A handle of the disk; the database gets a clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    pub(super) fn new(image: Vec<u8>, fault: Option<Fault>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter {
            live: image.clone(),
            durable: image,
            fault,
            ..Platter::default()
        })))
    }

    /// Makes every read fail from now on.
    pub(super) fn stop_reads(&self) {
        self.with(|platter| platter.unreadable = true);
    }

    /// Whether the fault came.
    pub(super) fn failed(&self) -> bool {
        self.with(|platter| match platter.fault {
            Some(Fault::Power(at) | Fault::Call(at)) => platter.calls >= at,
            None => false,
        })
    }

    /// Lets something go wrong from now on, its calls counted from here.
    pub(super) fn plan(&self, fault: Fault) {
        self.with(|platter| {
            platter.fault = Some(match fault {
                Fault::Power(at) => Fault::Power(platter.calls + at),
                Fault::Call(at) => Fault::Call(platter.calls + at),
            });
        });
    }

    /// Writes and syncs so far.
    pub(super) fn calls(&self) -> u64 {
        self.with(|platter| platter.calls)
    }

    /// What the operating system has after its process was killed.
    pub(super) fn after_kill(&self) -> Vec<u8> {
        self.with(|platter| platter.live.clone())
    }

    /// What is found after the power comes back.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        self.with(|platter| {
            let mut image = platter.durable.clone();
            let keep = [0, 50, 90, 100][random.below(4) as usize];
            for change in &platter.unsynced {
                if !random.chance(keep) {
                    continue;
                }
                match change {
                    Change::Length(length) => image.resize(*length as usize, 0),
                    Change::Bytes { offset, bytes } => {
                        let torn = random.chance(30);
                        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                            if !torn || random.chance(50) {
                                put(&mut image, *offset as usize + at * SECTOR, sector);
                            }
                        }
                    }
                }
            }
            image
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Platter) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a call and says whether it works.
    fn call<T>(&self, work: impl FnOnce(&mut Platter) -> T) -> io::Result<T> {
        self.with(|platter| {
            platter.calls += 1;
            let fails = match platter.fault {
                Some(Fault::Power(at)) => platter.calls >= at,
                Some(Fault::Call(at)) => platter.calls == at,
                None => false,
            };
            if fails {
                return Err(io::Error::other("injected"));
            }
            Ok(work(platter))
        })
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.with(|platter| Ok(platter.live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|platter| {
            if platter.unreadable {
                return Err(io::Error::other("injected"));
            }
            let offset = offset as usize;
            let range = offset..offset + out.len();
            let bytes = platter.live.get(range);
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.call(|platter| {
            platter.live.resize(length as usize, 0);
            platter.unsynced.push(Change::Length(length));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(|platter| {
            let Platter {
                durable, unsynced, ..
            } = platter;
            for change in unsynced.drain(..) {
                match change {
                    Change::Length(length) => durable.resize(length as usize, 0),
                    Change::Bytes { offset, bytes } => put(durable, offset as usize, &bytes),
                }
            }
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call(|platter| {
            put(&mut platter.live, offset as usize, bytes);
            let bytes = bytes.to_vec();
            platter.unsynced.push(Change::Bytes { offset, bytes });
        })
    }
}
