//! Seeds that have shown a bug, and what they have shown: they stay for ever. A change of the simulation gives a seed
//! another run, so a bug that needs more than luck to come back has a test of its own where it was.

use kelda_server::storage::Mistake;

use crate::{
    panics,
    run::{Outcome, run},
    schedule::Faults,
    world::Plan,
};

fn holds(seed: u64, faults: Faults) -> Outcome {
    panics::record();
    let outcome = run(seed, faults, false);
    assert!(outcome.violations.is_empty(), "{outcome:#?}");
    outcome
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    panics::record();
    for (seed, faults) in [
        (3, Faults::Mixed),
        (8, Faults::Mixed),
        (13, Faults::Mixed),
        (5, Faults::Power),
    ] {
        let [one, other] = [(); 2].map(|()| run(seed, faults, false));
        assert_eq!(
            (one.trace, one.steps),
            (other.trace, other.steps),
            "seed {seed}"
        );
        assert!(one.steps > 1000, "{one:?}");
    }
}

#[test]
fn two_seeds_are_two_runs() {
    assert_ne!(holds(1, Faults::Mixed).trace, holds(2, Faults::Mixed).trace);
}

/// A leader that was left out went on to speak for the group while openraft handed its lead to another node.
#[test]
fn a_leader_that_is_left_out_is_silent_before_another_leads() {
    holds(29, Faults::Mixed);
}

/// A voter that had told a leader that nobody else could lead forgot it with a crash and voted for another node at once:
/// two nodes spoke for the group, and the first could deny what the second had acknowledged.
#[test]
fn a_restarted_voter_keeps_what_it_has_promised() {
    holds(34, Faults::Mixed);
    holds(37, Faults::Mixed);
}

/// Seeds within which a planted mistake must be found.
const SEEDS: u64 = 40;

/// The first violation that a mistake of the writers leads to.
fn found(mistake: Mistake, faults: Faults) -> String {
    panics::record();
    let violations = (1..=SEEDS).flat_map(|seed| {
        let outcome = run(seed, Plan { faults, mistake }, false);
        let violations = outcome.violations.into_iter();
        violations.map(move |violation| format!("seed {seed}: {violation}"))
    });
    let found = violations.into_iter().next();
    let found = found.unwrap_or_else(|| panic!("{mistake:?} was not found"));
    println!("{mistake:?}: {found}");
    found
}

#[test]
fn an_answer_before_the_sync_is_found() {
    found(Mistake::EarlyAnswer, Faults::Power);
    found(Mistake::EarlyAnswer, Faults::Mixed);
}

#[test]
fn a_vote_that_is_not_stored_is_found() {
    let violation = found(Mistake::LostVotes, Faults::Mixed);
    assert!(violation.contains("its vote went back"), "{violation}");
}
