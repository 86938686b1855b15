//! What has become of all faults of a kind.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value as Json, json};

use crate::faults::{Kind, Operations, Outcome};

/// Least share of operations outside of faults that must succeed, or the run says nothing.
const OK_MIN: f64 = 0.9;

/// Counts over all clusters of a kind of fault.
pub(crate) struct Tally {
    pub(crate) kind: Kind,
    pub(crate) planned: u32,
    pub(crate) injected: u32,
    pub(crate) all: Operations,
    calm: Operations,
    /// By rule.
    violations: BTreeMap<String, usize>,
    refusals: usize,
    divergences: usize,
    pub(crate) repeats: u64,
    pub(crate) compared: usize,
    /// In ascending order.
    gaps: Vec<Duration>,
    failure: Option<&'static str>,
    pub(crate) seconds: u64,
}

impl Tally {
    pub(crate) fn new(kind: Kind, planned: u32) -> Self {
        Self {
            kind,
            planned,
            injected: 0,
            all: Operations::default(),
            calm: Operations::default(),
            violations: BTreeMap::new(),
            refusals: 0,
            divergences: 0,
            repeats: 0,
            compared: 0,
            gaps: Vec::new(),
            failure: None,
            seconds: 0,
        }
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        if let Some(found) = outcome.found() {
            eprintln!("{found}");
        }
        self.injected += outcome.injected;
        self.all.add(outcome.all);
        self.calm.add(outcome.calm);
        for violation in &outcome.verdict.report.violations {
            let rule = violation.rule.to_string();
            *self.violations.entry(rule).or_default() += 1;
        }
        self.refusals += outcome.verdict.refusals.len();
        self.divergences += outcome.divergences.len();
        self.repeats += outcome.verdict.repeats;
        self.compared += outcome.compared;
        self.gaps.extend(outcome.gaps);
        self.gaps.sort_unstable();
    }

    pub(crate) fn fail(&mut self, why: &'static str) {
        self.failure = Some(why);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What broke a promise: rules of the checker, refusals that a correct client must not see, replicas that differ.
    pub(crate) fn violations(&self) -> usize {
        self.violations.values().sum::<usize>() + self.refusals + self.divergences
    }

    /// Share of operations outside of faults that succeeded.
    pub(crate) fn calm_ok(&self) -> f64 {
        let Operations {
            ok,
            failed,
            unknown,
        } = self.calm;
        ok as f64 / (ok + failed + unknown).max(1) as f64
    }

    /// A gap, in seconds, that this share of the gaps does not exceed.
    pub(crate) fn gap(&self, share: f64) -> Option<f64> {
        let rank = (self.gaps.len() as f64 * share).ceil() as usize;
        let gap = self.gaps.get(rank.max(1) - 1)?;
        Some(gap.as_secs_f64())
    }

    /// Why the run does not count as passed.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.failure.iter().map(ToString::to_string).collect();
        if self.injected < self.planned {
            faults.push(format!("injected {} of {}", self.injected, self.planned));
        }
        if self.violations() > 0 {
            faults.push(format!("{} violations", self.violations()));
        }
        if self.injected > 0 && self.calm_ok() < OK_MIN {
            let share = self.calm_ok() * 100.0;
            faults.push(format!(
                "only {share:.1} % of the operations outside of faults succeeded"
            ));
        }
        if self.injected > 0 && self.compared == 0 {
            faults.push("no replica was compared with another".to_owned());
        }
        let name = self.kind.name();
        faults
            .into_iter()
            .map(|it| format!("{name}: {it}"))
            .collect()
    }

    pub(crate) fn json(&self) -> Json {
        let operations =
            |it: Operations| json!({ "ok": it.ok, "failed": it.failed, "unknown": it.unknown });
        json!({
            "fault": self.kind.name(),
            "planned": self.planned,
            "injected": self.injected,
            "seconds": self.seconds,
            "operations": operations(self.all),
            "operations_outside_faults": operations(self.calm),
            "violations": self.violations,
            "wrong_refusals": self.refusals,
            "divergent_entries": self.divergences,
            "entries_compared": self.compared,
            "repeats_stored_once": self.repeats,
            "gap_seconds": {
                "p50": self.gap(0.5),
                "p99": self.gap(0.99),
                "max": self.gap(1.0),
                "all": self.gaps.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
            },
            "faults": self.faults(),
        })
    }
}
