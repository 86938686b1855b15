//! Many seeds, on all cores, and what came of them.

use std::{
    fmt::{self, Display},
    fs::OpenOptions,
    io::{self, Write},
    num::NonZero,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    run::{self, Outcome},
    schedule::Faults,
};

/// What came of some seeds.
pub(crate) struct Report {
    faults: Faults,
    from: u64,
    count: u64,
    took: Duration,
    /// In order of their seeds.
    outcomes: Vec<Outcome>,
}

/// Runs `count` seeds from `from` on.
pub(crate) fn run(faults: Faults, from: u64, count: u64) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let outcomes = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let outcome = run::run(seed, faults, false);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.seed);
    Report {
        faults,
        from,
        count,
        took: began.elapsed(),
        outcomes,
    }
}

impl Report {
    /// Whether every seed ran and nothing was violated.
    pub(crate) fn is_valid(&self) -> bool {
        self.outcomes.len() as u64 == self.count && self.violating().next().is_none()
    }

    fn violating(&self) -> impl Iterator<Item = &Outcome> {
        let outcomes = self.outcomes.iter();
        outcomes.filter(|outcome| !outcome.violations.is_empty())
    }

    fn sum(&self, count: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(count).sum()
    }

    fn numbers(&self) -> [(&'static str, u64); 16] {
        [
            ("seeds", self.outcomes.len() as u64),
            ("steps", self.sum(|it| it.steps)),
            ("simulated_s", self.sum(|it| it.simulated_ms) / 1000),
            ("power_cuts", self.sum(|it| it.counts.power_cuts)),
            ("kills", self.sum(|it| it.counts.kills)),
            ("network_cuts", self.sum(|it| it.counts.partitions)),
            ("slow_disks", self.sum(|it| it.counts.slow_disks)),
            ("hand_overs", self.sum(|it| it.counts.hand_overs)),
            ("member_changes", self.sum(|it| it.counts.member_changes)),
            ("purges", self.sum(|it| it.counts.purges)),
            ("disk_transactions", self.sum(|it| it.counts.commits)),
            ("messages", self.sum(|it| it.messages)),
            ("committed_entries", self.sum(|it| it.committed)),
            ("acknowledged_records", self.sum(|it| it.acknowledged)),
            ("violating_seeds", self.violating().count() as u64),
            ("took_s", self.took.as_secs()),
        ]
    }

    fn name(&self) -> &'static str {
        match self.faults {
            Faults::Mixed => "mixed",
            Faults::Power => "power",
        }
    }

    /// Appends a line of JSON to a file.
    pub(crate) fn append_to(&self, path: &Path) -> io::Result<()> {
        let seeds: Vec<u64> = self.violating().map(|outcome| outcome.seed).collect();
        let mut line = json!({
            "run": "simulation",
            "faults": self.name(),
            "from": self.from,
            "violations": seeds,
        });
        for (name, number) in self.numbers() {
            line[name] = number.into();
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{line}")
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "simulation, faults {}, seeds from {}",
            self.name(),
            self.from
        )?;
        for (name, number) in self.numbers() {
            writeln!(f, "  {:22}{number:>12}", name.replace('_', " "))?;
        }
        for outcome in self.violating() {
            let Outcome {
                seed, violations, ..
            } = outcome;
            writeln!(f, "seed {seed}: {} violations", violations.len())?;
            for violation in violations {
                writeln!(f, "  {violation}")?;
            }
            writeln!(
                f,
                "  to see it: kelda-simulation trace {seed} --faults {}",
                self.name()
            )?;
        }
        Ok(())
    }
}
